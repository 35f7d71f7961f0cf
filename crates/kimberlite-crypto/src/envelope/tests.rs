use proptest::prelude::*;

use super::*;

fn encode(parts: &EnvelopeParts<'_>) -> Bytes {
    let mut buffer = Vec::new();
    parts.encode_into(&mut buffer);
    assert_eq!(buffer.len(), parts.encoded_len());
    buffer.into()
}

fn decode(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
    Envelope::decode(Bytes::copy_from_slice(bytes))
}

fn check(parts: &EnvelopeParts<'_>) {
    let envelope = Envelope::decode(encode(parts)).unwrap();
    assert_eq!(envelope.event_type.as_str(), parts.event_type);
    assert_eq!(envelope.metadata, parts.metadata);
    assert_eq!(envelope.data, parts.data);
}

#[test]
fn the_bytes_are_as_documented() {
    let data = [0xdd; 300];
    let parts = EnvelopeParts {
        event_type: "admitted",
        metadata: b"{}",
        data: &data,
    };
    let mut expected = vec![1, 8];
    expected.extend(b"admitted");
    expected.extend([2, b'{', b'}', 0xac, 0x02]);
    expected.extend(data);
    assert_eq!(encode(&parts), expected);
    check(&parts);
}

#[test]
fn slices_share_the_payload() {
    let payload = encode(&EnvelopeParts {
        event_type: "t",
        metadata: b"mm",
        data: b"ddd",
    });
    let envelope = Envelope::decode(payload.clone()).unwrap();
    assert!(payload.as_ptr_range().contains(&envelope.data.as_ptr()));
    assert!(payload.as_ptr_range().contains(&envelope.metadata.as_ptr()));
}

#[test]
fn parts_at_their_limits_are_read_and_longer_ones_refused() {
    let event_type = "t".repeat(EVENT_TYPE_BYTES_MAX + 1);
    let metadata = vec![1; METADATA_BYTES_MAX + 1];
    let data = vec![2; DATA_BYTES_MAX + 1];
    let good = EnvelopeParts {
        event_type: event_type.get(1..).unwrap(),
        metadata: metadata.get(1..).unwrap(),
        data: data.get(1..).unwrap(),
    };
    check(&good);
    let too_long = |parts: EnvelopeParts<'_>, expected: &str| {
        let found = Envelope::decode(encode(&parts)).unwrap_err();
        assert!(
            matches!(found, EnvelopeError::TooLong { field, .. } if field == expected),
            "{found}"
        );
    };
    too_long(
        EnvelopeParts {
            event_type: &event_type,
            ..good
        },
        "type",
    );
    too_long(
        EnvelopeParts {
            metadata: &metadata,
            ..good
        },
        "metadata",
    );
    too_long(
        EnvelopeParts {
            data: &data,
            ..good
        },
        "data",
    );
}

#[test]
fn every_truncation_is_found() {
    let bytes = encode(&EnvelopeParts {
        event_type: "admitted",
        metadata: b"meta",
        data: &[7; 200],
    });
    for end in 0..bytes.len() {
        let error = decode(bytes.get(..end).unwrap()).unwrap_err();
        assert!(
            matches!(error, EnvelopeError::Truncated { .. }),
            "{end}: {error}"
        );
    }
}

#[test]
fn padding_is_zeros() {
    let mut bytes = encode(&EnvelopeParts {
        event_type: "t",
        metadata: b"",
        data: b"d",
    })
    .to_vec();
    bytes.extend([0; 100]);
    assert_eq!(decode(&bytes).unwrap().data, &b"d"[..]);
    *bytes.last_mut().unwrap() = 1;
    assert_eq!(decode(&bytes), Err(EnvelopeError::Padding));
}

#[test]
fn malformed_envelopes_are_told_apart() {
    let length = |field| Err(EnvelopeError::Length { field });
    assert_eq!(
        decode(&[2, 0, 0, 0]),
        Err(EnvelopeError::Version { found: 2 })
    );
    assert_eq!(decode(&[1, 0x80, 0x00]), length("type"));
    assert_eq!(decode(&[1, 0xff, 0xff, 0xff, 0xff, 0x1f]), length("type"));
    assert_eq!(
        decode(&[1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
        length("metadata")
    );
    assert_eq!(decode(&[1, 1, 0xff, 0, 0]), Err(EnvelopeError::EventType));
    assert_eq!(
        decode(&[1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        Err(EnvelopeError::TooLong {
            field: "data",
            bytes: u32::MAX as usize,
            bytes_max: DATA_BYTES_MAX
        })
    );
}

proptest! {
    #[test]
    fn envelopes_round_trip(
        event_type in ".{0,60}",
        metadata in prop::collection::vec(any::<u8>(), 0..300),
        data in prop::collection::vec(any::<u8>(), 0..20_000),
    ) {
        check(&EnvelopeParts { event_type: &event_type, metadata: &metadata, data: &data });
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        mut bytes in prop::collection::vec(prop_oneof![0_u8..8, any::<u8>()], 0..64),
        versioned: bool,
    ) {
        if versioned && let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        if let Ok(envelope) = decode(&bytes) {
            let mut encoded = encode(&EnvelopeParts {
                event_type: envelope.event_type.as_str(),
                metadata: &envelope.metadata,
                data: &envelope.data,
            }).to_vec();
            prop_assert!(encoded.len() <= bytes.len());
            encoded.resize(bytes.len(), 0);
            prop_assert_eq!(encoded, bytes);
        }
    }
}
