//! The envelope: type, metadata and data of an event as one payload.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 1 | version | 1 |
//! | 1..5 | type length | varint |
//! | | type | UTF-8 |
//! | 1..5 | metadata length | varint |
//! | | metadata | |
//! | 1..5 | data length | varint |
//! | | data | |
//! | | padding | zeros up to the end, none by default |
//!
//! A varint holds seven bits a byte, the lowest first, the top bit set in all bytes but the last; it
//! has no more bytes than it needs and is below 2^32.

#![deny(clippy::indexing_slicing)]

use std::fmt;
use std::ops::Range;

use bytes::{Buf as _, Bytes};
use kimberlite_types::SmallName;
use kimberlite_types::limits::{DATA_BYTES_MAX, EVENT_TYPE_BYTES_MAX, METADATA_BYTES_MAX};

const VERSION: u8 = 1;
const VARINT_BYTES_MAX: usize = 5;

/// The parts of an envelope that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeParts<'a> {
    /// The type of the event.
    pub event_type: &'a str,
    /// What the application says about the event.
    pub metadata: &'a [u8],
    /// The event itself.
    pub data: &'a [u8],
}

/// An envelope that was read; metadata and data are slices of the payload that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The type of the event.
    pub event_type: EventTypeText,
    /// What the application says about the event.
    pub metadata: Bytes,
    /// The event itself.
    pub data: Bytes,
}

/// The type of an event that was read: UTF-8 of any length up to the limit. Most are short enough to
/// be held without allocation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventTypeText(SmallName);

/// Why bytes are not an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The version is not known.
    #[error("envelope version {found} is not known to this release")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// The bytes end inside a field.
    #[error("the envelope ends inside its {field}")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// A length has more bytes than it needs or does not fit 32 bits.
    #[error("the length of the envelope's {field} is malformed")]
    Length {
        /// The field.
        field: &'static str,
    },
    /// A field is longer than any that is written.
    #[error("the envelope's {field} has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its bytes.
        bytes: usize,
        /// Bytes that are allowed.
        bytes_max: usize,
    },
    /// The type is not UTF-8.
    #[error("the type in the envelope is not UTF-8")]
    EventType,
    /// Something other than zeros stands behind the data.
    #[error("the padding of the envelope is not zero")]
    Padding,
}

impl EnvelopeParts<'_> {
    /// Returns the bytes that [`encode_into`](Self::encode_into) appends.
    pub const fn encoded_len(&self) -> usize {
        1 + field_bytes(self.event_type.len())
            + field_bytes(self.metadata.len())
            + field_bytes(self.data.len())
    }

    /// Appends the envelope, without padding.
    ///
    /// The parts are to be within the limits of events; what is longer is written, but not read.
    pub fn encode_into(&self, buffer: &mut Vec<u8>) {
        let end = buffer.len() + self.encoded_len();
        buffer.reserve(self.encoded_len());
        buffer.push(VERSION);
        push_field(buffer, self.event_type.as_bytes());
        push_field(buffer, self.metadata);
        push_field(buffer, self.data);
        debug_assert_eq!(buffer.len(), end);
    }
}

impl Envelope {
    /// Reads an envelope; what it returns are slices of `payload`.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] when the payload is of another version or malformed.
    pub fn decode(mut payload: Bytes) -> Result<Self, EnvelopeError> {
        let mut reader = Reader {
            bytes: &payload,
            at: 0,
        };
        let version = reader
            .byte()
            .ok_or(EnvelopeError::Truncated { field: "version" })?;
        if version != VERSION {
            return Err(EnvelopeError::Version { found: version });
        }
        let event_type = reader.field("type", EVENT_TYPE_BYTES_MAX)?;
        let event_type = payload.get(event_type).unwrap_or_default();
        let event_type = EventTypeText::new(event_type).ok_or(EnvelopeError::EventType)?;
        let metadata = reader.field("metadata", METADATA_BYTES_MAX)?;
        let data = reader.field("data", DATA_BYTES_MAX)?;
        let padding = payload.get(data.end..).unwrap_or_default();
        if padding.iter().any(|byte| *byte != 0) {
            return Err(EnvelopeError::Padding);
        }
        // The data takes the payload over, and nothing is counted that is not there.
        let metadata = if metadata.is_empty() {
            Bytes::new()
        } else {
            payload.slice(metadata)
        };
        payload.truncate(data.end);
        payload.advance(data.start);
        Ok(Self {
            event_type,
            metadata,
            data: payload,
        })
    }
}

impl EventTypeText {
    fn new(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        Some(Self(SmallName::from(text)))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EventTypeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for EventTypeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<str> for EventTypeText {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

const fn field_bytes(bytes: usize) -> usize {
    varint_bytes(bytes) + bytes
}

const fn varint_bytes(value: usize) -> usize {
    let mut bytes = 1;
    let mut rest = value >> 7;
    while rest > 0 {
        bytes += 1;
        rest >>= 7;
    }
    bytes
}

fn push_field(buffer: &mut Vec<u8>, field: &[u8]) {
    let mut rest = field.len();
    loop {
        let low = u8::try_from(rest & 0x7f).expect("seven bits fit a byte");
        rest >>= 7;
        if rest == 0 {
            buffer.push(low);
            break;
        }
        buffer.push(low | 0x80);
    }
    buffer.extend_from_slice(field);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self, field: &'static str) -> Result<u32, EnvelopeError> {
        let mut value = 0_u32;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.byte().ok_or(EnvelopeError::Truncated { field })?;
            let shift = 7 * u32::try_from(index).expect("below five");
            let bits = u32::from(byte & 0x7f);
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let needless = byte == 0 && index > 0;
                let overflows = (bits << shift) >> shift != bits;
                if needless || overflows {
                    break;
                }
                return Ok(value);
            }
        }
        Err(EnvelopeError::Length { field })
    }

    /// Passes a field over, and returns where its bytes stand.
    fn field(
        &mut self,
        field: &'static str,
        bytes_max: usize,
    ) -> Result<Range<usize>, EnvelopeError> {
        let bytes = self.varint(field)?;
        let bytes = usize::try_from(bytes).map_err(|_| EnvelopeError::Length { field })?;
        if bytes > bytes_max {
            return Err(EnvelopeError::TooLong {
                field,
                bytes,
                bytes_max,
            });
        }
        if bytes > self.bytes.len() - self.at {
            return Err(EnvelopeError::Truncated { field });
        }
        let start = self.at;
        self.at += bytes;
        Ok(start..self.at)
    }
}

#[cfg(test)]
mod tests;
