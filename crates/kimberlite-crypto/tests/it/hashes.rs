//! Headers, digests, leaves, chain and tree.

use kimberlite_crypto::{
    Frontier, chain_next, chain_seed, leaf_hash, log_id, node_hash, payload_digest,
};
use kimberlite_types::{
    LeafHash, NodeHash, Offset, Position, RECORD_HEADER_BYTES, RecordFlags, RecordHeader,
    RecordKind, SessionId, StreamId, Timestamp,
};
use serde_json::Value;

use super::{array, bytes, number, number_u32, section, text};

fn header(record: &Value) -> RecordHeader {
    let offset = number(&record["offset"]);
    RecordHeader {
        kind: RecordKind::from_byte(number(&record["kind"]).try_into().unwrap()),
        flags: RecordFlags::try_from(u8::try_from(number(&record["flags"])).unwrap()).unwrap(),
        counter: number_u32(&record["counter"]),
        position: Position::new(number(&record["position"])),
        time: Timestamp::from_nanoseconds(number(&record["time"])),
        stream: StreamId::from_stored(number(&record["stream"])),
        offset: (offset != u64::MAX).then(|| Offset::new(offset)),
        session: SessionId::from_stored(number(&record["session"])),
        payload_bytes: number_u32(&record["payload_bytes"]),
        payload_digest: payload_digest(&bytes(&record["payload"])),
    }
}

#[test]
fn records_hash_to_the_known_headers_leaves_and_chain() {
    let log = section("log");
    let id = log_id(&bytes(&log["genesis_payload"]));
    assert_eq!(id.to_string(), text(&log["log_id"]));
    let mut chain = chain_seed(&id);
    assert_eq!(chain.to_string(), text(&log["chain_seed"]));
    let records = log["records"].as_array().unwrap();
    assert_eq!(records.len(), 5);
    for record in records {
        let header = header(record);
        assert_eq!(
            header.payload_digest.to_string(),
            text(&record["payload_digest"])
        );
        let encoded = header.encode();
        assert_eq!(encoded.as_slice(), bytes(&record["header"]));
        let leaf = leaf_hash(&encoded);
        assert_eq!(leaf.to_string(), text(&record["leaf"]));
        chain = chain_next(&chain, &leaf);
        assert_eq!(chain.to_string(), text(&record["chain"]));
    }
}

fn leaf(index: u64) -> LeafHash {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..8].copy_from_slice(&index.to_le_bytes());
    leaf_hash(&header)
}

#[test]
fn the_frontier_has_the_known_root_at_every_known_size() {
    let tree = section("tree");
    let node = |index| NodeHash::new(*leaf(index).as_bytes());
    let first_two = node_hash(&node(0), &node(1));
    assert_eq!(first_two.to_string(), text(&tree["node_of_first_two"]));

    let mut frontier = Frontier::new();
    let roots = tree["roots"].as_array().unwrap();
    assert!(roots.len() > 20);
    for known in roots {
        let size = number(&known["size"]);
        for index in frontier.size()..size {
            frontier.push(leaf(index));
        }
        assert_eq!(
            frontier.root().to_string(),
            text(&known["root"]),
            "size {size}"
        );
        let stored = Frontier::decode(&frontier.encode()).unwrap();
        assert_eq!(stored.root(), frontier.root(), "size {size}");
    }
}

#[test]
fn the_chain_depends_on_order_and_on_every_leaf() {
    let seed = chain_seed(&log_id(b"a log"));
    assert_ne!(seed, chain_seed(&log_id(b"another log")));
    let chain = |leaves: &[u64]| {
        leaves
            .iter()
            .fold(seed, |chain, index| chain_next(&chain, &leaf(*index)))
    };
    assert_ne!(chain(&[1, 2, 3]), chain(&[2, 1, 3]));
    assert_ne!(chain(&[1, 2, 3]), chain(&[1, 2]));
    assert_ne!(chain(&[1, 2, 3]), chain(&[1, 2, 4]));
    assert_ne!(chain(&[]), chain(&[0]));
}

/// A digest of known bytes that is not worked out by the same library.
#[test]
fn the_empty_payload_has_the_known_digest() {
    let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(payload_digest(b"").to_string(), known);
    assert_eq!(Frontier::new().root().to_string(), known);
    assert_eq!(
        array::<32>(&Value::from(known)),
        *payload_digest(b"").as_bytes()
    );
}
