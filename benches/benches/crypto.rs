//! Hashing, sealing and opening, each beside the bare library that it stands on.
//!
//! `cargo bench --locked -p kimberlite-benches --bench crypto`. A figure means something next to its
//! floor of the same run: groups named `floor` use the library directly.

use std::hint::black_box;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut as _, Aes256Gcm, KeyInit as _};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kimberlite_crypto::{
    Backend, Commit, DataKey, Frontier, KeyId, KeyVersion, Place, SessionCipher, chain_next,
    chain_seed, commitment_bytes, internal_hash, internal_hash_many, leaf_hash, payload_digest,
    payload_digests, seal_overhead,
};
use kimberlite_types::{LogId, Position, RECORD_HEADER_BYTES, RecordFlags, SessionId, StreamId};
use sha2::{Digest as _, Sha256};

const LOG: LogId = LogId::new([1; 32]);
const BACKENDS: [Backend; 2] = [Backend::AwsLc, Backend::RustCrypto];
const PAYLOAD_BYTES: [usize; 2] = [256, 1024];
const COMMITS: [(Commit, &str); 2] = [
    (Commit::Included, "committed"),
    (Commit::Omitted, "uncommitted"),
];

fn bytes(count: usize) -> u64 {
    u64::try_from(count).expect("a size")
}

fn chain(criterion: &mut Criterion) {
    let payload = [7; 1024];
    let header = [7; RECORD_HEADER_BYTES];
    let mut group = criterion.benchmark_group("chain_hash");
    group.throughput(Throughput::Bytes(1024));
    group.bench_function("sha256 1 KiB", |bencher| {
        bencher.iter(|| payload_digest(black_box(&payload)));
    });
    group.bench_function("sha256 1 KiB floor", |bencher| {
        bencher.iter(|| Sha256::digest(black_box(&payload)));
    });

    for count in [2, 16] {
        let payloads = vec![payload.as_slice(); count];
        group.throughput(Throughput::Bytes(1024 * bytes(count)));
        group.bench_function(
            BenchmarkId::new("sha256 1 KiB side by side", count),
            |bencher| {
                bencher.iter(|| payload_digests(black_box(&payloads).iter().copied()));
            },
        );
    }

    group.throughput(Throughput::Elements(1));
    group.bench_function("leaf and link", |bencher| {
        let mut chain = chain_seed(&LOG);
        bencher.iter(|| {
            chain = chain_next(&chain, &leaf_hash(black_box(&header)));
            chain
        });
    });
    group.bench_function("leaf and link floor", |bencher| {
        let blocks = [[7; 64]; 2];
        let mut state = [0; 8];
        bencher.iter(|| {
            sha2::block_api::compress256(&mut state, black_box(&blocks));
            sha2::block_api::compress256(&mut state, black_box(&blocks));
            state
        });
    });
    group.bench_function("frontier push", |bencher| {
        let leaf = leaf_hash(&header);
        let mut frontier = Frontier::new();
        bencher.iter(|| frontier.push(black_box(leaf)));
    });
    group.finish();
}

fn internal(criterion: &mut Criterion) {
    let page = [7; 1024];
    let large = vec![7; 1 << 20];
    let mut group = criterion.benchmark_group("internal_hash");
    group.throughput(Throughput::Bytes(1024));
    group.bench_function("blake3 1 KiB", |bencher| {
        bencher.iter(|| internal_hash(black_box(&page)));
    });
    for count in [2, 4, 8, 16] {
        let pages = vec![page.as_slice(); count];
        group.throughput(Throughput::Bytes(1024 * bytes(count)));
        group.bench_function(
            BenchmarkId::new("blake3 1 KiB side by side", count),
            |bencher| {
                bencher.iter(|| internal_hash_many(black_box(&pages)));
            },
        );
    }
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("blake3 1 MiB", |bencher| {
        bencher.iter(|| internal_hash(black_box(&large)));
    });
    group.finish();
}

fn place() -> Place {
    Place {
        log_id: LOG,
        stream: Some(StreamId::new(Position::new(5))),
        session: SessionId::new(Position::new(6)),
        counter: 7,
    }
}

fn ciphers() -> [SessionCipher; 2] {
    let key = DataKey::new([3; 32]);
    let (id, version) = (KeyId::new([4; 16]), KeyVersion::new(0));
    let (_, params) = SessionCipher::open_new(&key, &LOG, id, version, [5; 32]);
    BACKENDS.map(|backend| {
        SessionCipher::with_backend(&key, &LOG, &params, backend).expect("the key is the session's")
    })
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for payload_bytes in PAYLOAD_BYTES {
        group.throughput(Throughput::Bytes(bytes(payload_bytes)));
        for cipher in ciphers() {
            for (commit, name) in COMMITS {
                let name = format!("{:?} {name}", cipher.backend());
                let mut buffer = Vec::with_capacity(payload_bytes + seal_overhead(commit));
                group.bench_function(BenchmarkId::new(name, payload_bytes), |bencher| {
                    bencher.iter(|| {
                        buffer.resize(payload_bytes + commitment_bytes(commit), 7);
                        cipher.seal_in_place(&place(), commit, black_box(&mut buffer), 0);
                    });
                });
            }
        }
        floor(&mut group, payload_bytes);
    }
    group.finish();
}

fn floor(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    payload_bytes: usize,
) {
    let mut buffer = vec![7; payload_bytes];
    let associated = [9; 84];
    let aws_lc = UnboundKey::new(&AES_256_GCM, &[3; 32]).expect("the key has 32 bytes");
    let aws_lc = LessSafeKey::new(aws_lc);
    group.bench_function(BenchmarkId::new("AwsLc floor", payload_bytes), |bencher| {
        bencher.iter(|| {
            let nonce = Nonce::assume_unique_for_key([1; 12]);
            aws_lc.seal_in_place_separate_tag(nonce, Aad::from(&associated), black_box(&mut buffer))
        });
    });
    let portable = Aes256Gcm::new(&[3; 32].into());
    group.bench_function(
        BenchmarkId::new("RustCrypto floor", payload_bytes),
        |bencher| {
            bencher.iter(|| {
                let text = InOutBuf::from(black_box(buffer.as_mut_slice()));
                portable.encrypt_inout_detached(&[1; 12].into(), &associated, text)
            });
        },
    );
    group.bench_function(BenchmarkId::new("sha256 floor", payload_bytes), |bencher| {
        bencher.iter(|| Sha256::digest(black_box(&buffer)));
    });
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for payload_bytes in PAYLOAD_BYTES {
        group.throughput(Throughput::Bytes(bytes(payload_bytes)));
        for cipher in ciphers() {
            for (commit, name) in COMMITS {
                let flags = match commit {
                    Commit::Included => RecordFlags::COMMITTED,
                    Commit::Omitted => RecordFlags::ENCRYPTED,
                };
                let mut sealed = vec![7; payload_bytes + commitment_bytes(commit)];
                cipher.seal_in_place(&place(), commit, &mut sealed, 0);
                let name = format!("{:?} {name}", cipher.backend());
                group.bench_function(BenchmarkId::new(name, payload_bytes), |bencher| {
                    bencher.iter(|| cipher.open(&place(), flags, black_box(&sealed)));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, chain, internal, seal, open);
criterion_main!(benches);
