//! Values as bytes.

use kimberlite_types::{Position, Timestamp};

/// A type of values.
///
/// | type | bytes |
/// |---|---|
/// | `()` | none |
/// | `u64`, `i64`, positions, times | 8, little-endian |
/// | `bool` | `00` or `01` |
/// | `String`, `Vec<u8>` | its bytes |
/// | a pair | the first part, of fixed length, and the second one |
pub trait Stored: Sized {
    /// How a value is given.
    type Ref<'a>;

    /// Appends the bytes of a value.
    fn encode(value: Self::Ref<'_>, to: &mut Vec<u8>);

    /// Reads a value; `None` when the bytes are no value of this type.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// A type of values that all have the same length.
pub trait FixedBytes: Stored {
    /// That length.
    const BYTES: usize;
}

impl Stored for () {
    type Ref<'a> = ();

    fn encode((): (), _: &mut Vec<u8>) {}

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

macro_rules! number {
    ($($type:ty, $wire:ty, $get:expr, $new:expr);*) => {$(
        impl Stored for $type {
            type Ref<'a> = Self;

            fn encode(value: Self, to: &mut Vec<u8>) {
                let number: $wire = $get(value);
                to.extend_from_slice(&number.to_le_bytes());
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                let number = <$wire>::from_le_bytes(bytes.try_into().ok()?);
                Some($new(number))
            }
        }

        impl FixedBytes for $type {
            const BYTES: usize = size_of::<$wire>();
        }
    )*};
}

number!(
    u64, u64, core::convert::identity, core::convert::identity;
    i64, i64, core::convert::identity, core::convert::identity;
    Position, u64, Position::get, Position::new;
    Timestamp, u64, Timestamp::as_nanoseconds, Timestamp::from_nanoseconds
);

impl Stored for bool {
    type Ref<'a> = Self;

    fn encode(value: Self, to: &mut Vec<u8>) {
        to.push(u8::from(value));
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl FixedBytes for bool {
    const BYTES: usize = 1;
}

impl Stored for Vec<u8> {
    type Ref<'a> = &'a [u8];

    fn encode(value: &[u8], to: &mut Vec<u8>) {
        to.extend_from_slice(value);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl Stored for String {
    type Ref<'a> = &'a str;

    fn encode(value: &str, to: &mut Vec<u8>) {
        to.extend_from_slice(value.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        core::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl<A: FixedBytes, B: Stored> Stored for (A, B) {
    type Ref<'a> = (A::Ref<'a>, B::Ref<'a>);

    fn encode(value: Self::Ref<'_>, to: &mut Vec<u8>) {
        A::encode(value.0, to);
        B::encode(value.1, to);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, second) = bytes.split_at_checked(A::BYTES)?;
        Some((A::decode(first)?, B::decode(second)?))
    }
}
