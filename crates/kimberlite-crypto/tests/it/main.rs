//! The public interface against known answers that were computed without it.
//!
//! `tests/vectors/vectors.py` works them out from the definitions, with the standard library of
//! Python alone, and writes `vectors.json`. When an answer changes, the format has changed.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

mod hashes;
mod keys;
mod note;

use serde_json::Value;

/// Returns a section of the known answers.
fn section(name: &str) -> Value {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/vectors.json")).unwrap();
    vectors[name].clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn number_u32(value: &Value) -> u32 {
    number(value).try_into().unwrap()
}

/// Reads hexadecimal digits.
fn bytes(value: &Value) -> Vec<u8> {
    let digits = text(value).as_bytes();
    assert_eq!(digits.len() % 2, 0);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}
