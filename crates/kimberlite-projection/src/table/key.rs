//! Keys as bytes that stand in the order of the keys.

use kimberlite_types::{Offset, Position, StreamId, Timestamp};

/// A type of keys.
///
/// | type | bytes |
/// |---|---|
/// | `u8` to `u64`, positions, offsets, times | big-endian |
/// | `i64` | big-endian, the sign bit turned |
/// | `String`, `Vec<u8>` | its bytes, each `00` as `00 ff`, then `00 01` |
/// | pairs and triples | one part after the other |
pub trait Key: Sized {
    /// How a key is given.
    type Ref<'a>;
    /// What a key may begin with: some characters of a text, the first part of a pair.
    type Beginning<'a>;

    /// Appends the bytes of a key.
    fn encode(key: Self::Ref<'_>, to: &mut Vec<u8>);

    /// Appends the bytes that all keys with this beginning begin with.
    fn encode_beginning(beginning: Self::Beginning<'_>, to: &mut Vec<u8>);

    /// Takes a key from the beginning of `from`; `None` when no key of this type stands there.
    fn decode(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! unsigned {
    ($($number:ty),*) => {$(
        impl Key for $number {
            type Ref<'a> = Self;
            type Beginning<'a> = ();

            #[expect(clippy::big_endian_bytes, reason = "bytes stand in the order of the numbers")]
            fn encode(key: Self, to: &mut Vec<u8>) {
                to.extend_from_slice(&key.to_be_bytes());
            }

            fn encode_beginning((): (), _: &mut Vec<u8>) {}

            #[expect(clippy::big_endian_bytes, reason = "bytes stand in the order of the numbers")]
            fn decode(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_be_bytes(*bytes))
            }
        }
    )*};
}

unsigned!(u8, u16, u32, u64);

impl Key for i64 {
    type Ref<'a> = Self;
    type Beginning<'a> = ();

    fn encode(key: Self, to: &mut Vec<u8>) {
        u64::encode(key.cast_unsigned() ^ (1 << 63), to);
    }

    fn encode_beginning((): (), _: &mut Vec<u8>) {}

    fn decode(from: &mut &[u8]) -> Option<Self> {
        u64::decode(from).map(|key| (key ^ (1 << 63)).cast_signed())
    }
}

macro_rules! number {
    ($($type:ty, $get:path, $new:path);*) => {$(
        impl Key for $type {
            type Ref<'a> = Self;
            type Beginning<'a> = ();

            fn encode(key: Self, to: &mut Vec<u8>) {
                u64::encode($get(key), to);
            }

            fn encode_beginning((): (), _: &mut Vec<u8>) {}

            fn decode(from: &mut &[u8]) -> Option<Self> {
                u64::decode(from).map($new)
            }
        }
    )*};
}

fn stream_number(stream: StreamId) -> u64 {
    stream.position().get()
}

fn stream_of_number(number: u64) -> StreamId {
    StreamId::new(Position::new(number))
}

number!(
    Position, Position::get, Position::new;
    Offset, Offset::get, Offset::new;
    StreamId, stream_number, stream_of_number;
    Timestamp, Timestamp::as_nanoseconds, Timestamp::from_nanoseconds
);

fn escape(bytes: &[u8], to: &mut Vec<u8>) {
    for part in bytes.split_inclusive(|byte| *byte == 0) {
        to.extend_from_slice(part);
        if part.last() == Some(&0) {
            to.push(0xff);
        }
    }
}

fn unescape(from: &mut &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let end = from.iter().position(|byte| *byte == 0)?;
        let (part, rest) = from.split_at(end);
        bytes.extend_from_slice(part);
        let (&mark, rest) = rest.get(1..)?.split_first()?;
        *from = rest;
        match mark {
            0xff => bytes.push(0),
            1 => return Some(bytes),
            _ => return None,
        }
    }
}

impl Key for Vec<u8> {
    type Ref<'a> = &'a [u8];
    type Beginning<'a> = &'a [u8];

    fn encode(key: &[u8], to: &mut Vec<u8>) {
        escape(key, to);
        to.extend_from_slice(&[0, 1]);
    }

    fn encode_beginning(beginning: &[u8], to: &mut Vec<u8>) {
        escape(beginning, to);
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        unescape(from)
    }
}

impl Key for String {
    type Ref<'a> = &'a str;
    type Beginning<'a> = &'a str;

    fn encode(key: &str, to: &mut Vec<u8>) {
        Vec::<u8>::encode(key.as_bytes(), to);
    }

    fn encode_beginning(beginning: &str, to: &mut Vec<u8>) {
        escape(beginning.as_bytes(), to);
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(unescape(from)?).ok()
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    type Ref<'a> = (A::Ref<'a>, B::Ref<'a>);
    type Beginning<'a> = A::Ref<'a>;

    fn encode(key: Self::Ref<'_>, to: &mut Vec<u8>) {
        A::encode(key.0, to);
        B::encode(key.1, to);
    }

    fn encode_beginning(beginning: A::Ref<'_>, to: &mut Vec<u8>) {
        A::encode(beginning, to);
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        Some((A::decode(from)?, B::decode(from)?))
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    type Ref<'a> = (A::Ref<'a>, B::Ref<'a>, C::Ref<'a>);
    type Beginning<'a> = (A::Ref<'a>, B::Beginning<'a>);

    fn encode(key: Self::Ref<'_>, to: &mut Vec<u8>) {
        A::encode(key.0, to);
        B::encode(key.1, to);
        C::encode(key.2, to);
    }

    fn encode_beginning(beginning: Self::Beginning<'_>, to: &mut Vec<u8>) {
        A::encode(beginning.0, to);
        B::encode_beginning(beginning.1, to);
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        Some((A::decode(from)?, B::decode(from)?, C::decode(from)?))
    }
}
