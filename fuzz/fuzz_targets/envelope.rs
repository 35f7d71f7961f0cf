//! What an event holds, as it stands after opening.

#![no_main]

use bytes::Bytes;
use kimberlite_crypto::{Envelope, EnvelopeParts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(envelope) = Envelope::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let parts = EnvelopeParts {
        event_type: envelope.event_type.as_str(),
        metadata: &envelope.metadata,
        data: &envelope.data,
    };
    let mut encoded = Vec::new();
    parts.encode_into(&mut encoded);
    assert_eq!(encoded.len(), parts.encoded_len());
    assert_eq!(Envelope::decode(encoded.into()), Ok(envelope));
});
