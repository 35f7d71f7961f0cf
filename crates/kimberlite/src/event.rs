//! What the user appends.

use std::fmt;

use bytes::Bytes;
use kimberlite_crypto::EnvelopeParts;
use kimberlite_types::{EventType, limits};
use serde::Serialize;

use crate::error::{Error, Problem};

/// An event: a type, data, and metadata. All three are encrypted.
///
/// ```
/// use kimberlite::Event;
///
/// let event = Event::new("triaged", "priority 2").with_metadata("nurse station 4");
/// assert_eq!(event.data(), "priority 2");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    kind: String,
    metadata: Bytes,
    data: Bytes,
}

impl Event {
    /// Makes an event from its type and data.
    ///
    /// The type has 1 to 255 bytes without control characters, the data up to 16 MiB; both are
    /// checked when the event is appended.
    pub fn new(event_type: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self {
            kind: event_type.into(),
            metadata: Bytes::new(),
            data: data.into(),
        }
    }

    /// Makes an event whose data is `value` as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the value has no JSON form.
    pub fn json(
        event_type: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, Error> {
        let data = serde_json::to_vec(value).map_err(Problem::Json)?;
        Ok(Self::new(event_type, data))
    }

    /// Adds metadata, up to 64 KiB.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<Bytes>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// Returns the type.
    pub fn event_type(&self) -> &str {
        &self.kind
    }

    /// Returns the data.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Returns the metadata, empty when there is none.
    pub fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        EventType::new(&self.kind)?;
        check_bytes(
            "an event's metadata",
            &self.metadata,
            limits::METADATA_BYTES_MAX,
        )?;
        check_bytes("an event's data", &self.data, limits::DATA_BYTES_MAX)
    }

    pub(crate) fn envelope(&self) -> EnvelopeParts<'_> {
        EnvelopeParts {
            event_type: &self.kind,
            metadata: &self.metadata,
            data: &self.data,
        }
    }
}

impl fmt::Debug for Event {
    // What it says is secret, its type too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("data_bytes", &self.data.len())
            .field("metadata_bytes", &self.metadata.len())
            .finish_non_exhaustive()
    }
}

fn check_bytes(what: &'static str, bytes: &[u8], bytes_max: usize) -> Result<(), Error> {
    if bytes.len() <= bytes_max {
        return Ok(());
    }
    Err(Problem::TooLarge {
        what,
        bytes: bytes.len(),
        bytes_max,
    }
    .into())
}
