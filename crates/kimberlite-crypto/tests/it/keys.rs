//! From the root key to a sealed payload.

use bytes::Bytes;
use kimberlite_crypto::{
    Backend, Commit, DataKey, Envelope, EnvelopeParts, KeyId, KeyVersion, PageCipher, PagePlace,
    Place, RootKey, SessionCipher, SessionParams, StoreIdentity, commitment_bytes,
};
use kimberlite_types::{LogId, Position, RecordFlags, SessionId, StreamId};
use serde_json::Value;

use super::{array, bytes, number, number_u32, section, text};

struct Known {
    section: Value,
    log_id: LogId,
    key_id: KeyId,
    version: KeyVersion,
    data_key: DataKey,
}

fn known() -> Known {
    let section = section("keys");
    Known {
        log_id: LogId::new(array(&section["log_id"])),
        key_id: KeyId::new(array(&section["key_id"])),
        version: KeyVersion::new(number_u32(&section["key_version"])),
        data_key: DataKey::new(array(&section["data_key"])),
        section,
    }
}

#[test]
fn a_root_key_file_leads_to_the_known_wrapped_key() {
    let known = known();
    let file = text(&known.section["root_key_file"]);
    let root = RootKey::decode(file).unwrap();
    assert_eq!(*root.encode(), file);
    assert_eq!(
        *RootKey::generate(array(&known.section["root_key"])).encode(),
        file
    );

    let epoch = number_u32(&known.section["epoch"]);
    let kek = root.key_encryption_key(&known.log_id, epoch);
    let wrapped = kek.wrap(&known.log_id, &known.key_id, known.version, &known.data_key);
    assert_eq!(wrapped.as_slice(), bytes(&known.section["wrapped"]));

    let opened = kek
        .unwrap(&known.log_id, &known.key_id, known.version, &wrapped)
        .unwrap();
    let params = SessionParams::decode(&bytes(&known.section["params"])).unwrap();
    assert!(SessionCipher::from_params(&opened, &known.log_id, &params).is_ok());
}

#[test]
fn a_session_has_the_known_parameters() {
    let known = known();
    let salt = array(&known.section["salt"]);
    let (_, params) = SessionCipher::open_new(
        &known.data_key,
        &known.log_id,
        known.key_id,
        known.version,
        salt,
    );
    assert_eq!(params.encode(), bytes(&known.section["params"]));
}

#[test]
fn an_envelope_has_the_known_bytes() {
    let known = &known().section["envelope"];
    let (metadata, data) = (bytes(&known["metadata"]), bytes(&known["data"]));
    let parts = EnvelopeParts {
        event_type: text(&known["event_type"]),
        metadata: &metadata,
        data: &data,
    };
    let mut encoded = Vec::new();
    parts.encode_into(&mut encoded);
    assert_eq!(encoded, bytes(&known["encoded"]));
    let envelope = Envelope::decode(Bytes::from(encoded)).unwrap();
    assert_eq!(envelope.event_type.as_str(), parts.event_type);
    assert_eq!(
        (&envelope.metadata[..], &envelope.data[..]),
        (&metadata[..], &data[..])
    );
}

fn check_sealings(backend: Backend) {
    let known = known();
    let params = SessionParams::decode(&bytes(&known.section["params"])).unwrap();
    let cipher =
        SessionCipher::with_backend(&known.data_key, &known.log_id, &params, backend).unwrap();
    let sealings = known.section["sealings"].as_array().unwrap();
    assert_eq!(sealings.len(), 4);
    for sealing in sealings {
        let place = Place {
            log_id: known.log_id,
            stream: StreamId::from_stored(number(&sealing["stream"])),
            session: SessionId::new(Position::new(number(&sealing["session"]))),
            counter: number_u32(&sealing["counter"]),
        };
        let (commit, flags) = if sealing["committed"].as_bool().unwrap() {
            (Commit::Included, RecordFlags::COMMITTED)
        } else {
            (Commit::Omitted, RecordFlags::ENCRYPTED)
        };
        let plaintext = bytes(&sealing["plaintext"]);
        let mut buffer = vec![0; commitment_bytes(commit)];
        buffer.extend(&plaintext);
        cipher.seal_in_place(&place, commit, &mut buffer, 0);
        assert_eq!(buffer, bytes(&sealing["sealed"]), "{place:?}");
        assert_eq!(cipher.open(&place, flags, &buffer), Ok(plaintext));
    }
}

#[test]
fn payloads_seal_to_the_known_bytes() {
    check_sealings(Backend::default());
}

#[test]
fn payloads_seal_to_the_known_bytes_with_the_portable_library() {
    check_sealings(Backend::RustCrypto);
}

#[test]
fn a_page_seals_to_the_known_bytes_and_a_superblock_has_the_known_code() {
    let known = section("page");
    let data_key = DataKey::new(array(&known["data_key"]));
    let store = StoreIdentity {
        log_id: LogId::new(array(&known["log_id"])),
        name_hash: array(&known["name_hash"]),
        version: number_u32(&known["version"]),
    };
    let key = data_key.projection_key(&store.log_id);
    let cipher = PageCipher::new(&key, &store, &array(&known["salt"]));
    let place = PagePlace {
        page: number_u32(&known["page"]),
        kind: number(&known["kind"]).try_into().unwrap(),
    };
    let (counter, plaintext) = (number(&known["counter"]), bytes(&known["plaintext"]));
    let mut text = plaintext.clone();
    let tag = cipher.seal(place, counter, &mut text);
    assert_eq!([&text[..], &tag].concat(), bytes(&known["sealed"]));
    cipher.open(place, counter, &mut text, &tag).unwrap();
    assert_eq!(text, plaintext);
    let superblock = bytes(&known["superblock"]);
    let code = array(&known["superblock_code"]);
    assert_eq!(key.superblock_code(&superblock), code);
    assert!(key.is_code_of(&superblock, &code));
}
