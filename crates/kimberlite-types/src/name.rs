//! Names of tenants, streams and event types, checked where they come in.

use core::fmt;

use crate::limits::{EVENT_TYPE_BYTES_MAX, STREAM_NAME_BYTES_MAX, TENANT_NAME_BYTES_MAX};

/// A string that holds up to 23 bytes without allocation.
pub type SmallName = smartstring::SmartString<smartstring::LazyCompact>;

/// A name that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no bytes.
    #[error("{what} must not be empty")]
    Empty {
        /// What was named.
        what: &'static str,
    },
    /// The name is too long.
    #[error("{what} has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// What was named.
        what: &'static str,
        /// Bytes of the name.
        bytes: usize,
        /// Bytes that are allowed.
        bytes_max: usize,
    },
    /// The name has a character that is not allowed.
    #[error("{what} must not contain {character:?}; allowed are {allowed}")]
    Character {
        /// What was named.
        what: &'static str,
        /// The first character that is not allowed.
        character: char,
        /// What is allowed, in words.
        allowed: &'static str,
    },
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmallName);

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            ///
            /// [`NameError`] says which rule the name breaks.
            pub fn new(name: &str) -> Result<Self, NameError> {
                $check(name)?;
                Ok(Self(SmallName::from(name)))
            }

            /// Returns the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// The name of a tenant, also the name of its directory: 1 to 64 of `a-z 0-9 - _ .`, beginning
    /// with a letter or digit. Names that begin with `_` are the database's own.
    TenantName, check_tenant
}
name_type! {
    /// The name of a stream: 1 to 1,024 bytes of UTF-8 without control characters.
    StreamName, check_stream
}
name_type! {
    /// The type of an event: 1 to 255 bytes of UTF-8 without control characters.
    EventType, check_event_type
}

fn check_tenant(name: &str) -> Result<(), NameError> {
    const WHAT: &str = "a tenant name";
    const ALLOWED: &str = "a-z, 0-9, '-', '_' and '.', the first a letter or digit";
    check_length(WHAT, name, TENANT_NAME_BYTES_MAX)?;
    for (index, character) in name.chars().enumerate() {
        let alphanumeric = character.is_ascii_lowercase() || character.is_ascii_digit();
        let joining = index > 0 && matches!(character, '-' | '_' | '.');
        if !(alphanumeric || joining) {
            return Err(NameError::Character {
                what: WHAT,
                character,
                allowed: ALLOWED,
            });
        }
    }
    Ok(())
}

fn check_stream(name: &str) -> Result<(), NameError> {
    check_text("a stream name", name, STREAM_NAME_BYTES_MAX)
}

fn check_event_type(name: &str) -> Result<(), NameError> {
    check_text("an event type", name, EVENT_TYPE_BYTES_MAX)
}

fn check_text(what: &'static str, name: &str, bytes_max: usize) -> Result<(), NameError> {
    check_length(what, name, bytes_max)?;
    match name.chars().find(|character| character.is_control()) {
        Some(character) => Err(NameError::Character {
            what,
            character,
            allowed: "all but control characters",
        }),
        None => Ok(()),
    }
}

fn check_length(what: &'static str, name: &str, bytes_max: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty { what }),
        bytes if bytes > bytes_max => Err(NameError::TooLong {
            what,
            bytes,
            bytes_max,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names_are_safe_directory_names() {
        for good in ["a", "clinic-7", "7", "x_y.z"] {
            assert!(TenantName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "", ".", "..", "_system", "-a", "A", "a/b", "a\\b", "é", "a b", "a\0",
        ] {
            assert!(TenantName::new(bad).is_err(), "{bad:?}");
        }
        assert!(TenantName::new(&"a".repeat(TENANT_NAME_BYTES_MAX)).is_ok());
        assert!(TenantName::new(&"a".repeat(TENANT_NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn stream_names_and_event_types_take_text_up_to_their_limits() {
        assert!(StreamName::new("patient/42 é").is_ok());
        assert!(StreamName::new("a\nb").is_err());
        assert!(StreamName::new("").is_err());
        assert!(StreamName::new(&"s".repeat(STREAM_NAME_BYTES_MAX)).is_ok());
        assert!(StreamName::new(&"s".repeat(STREAM_NAME_BYTES_MAX + 1)).is_err());
        assert!(EventType::new(&"t".repeat(EVENT_TYPE_BYTES_MAX)).is_ok());
        assert!(EventType::new(&"t".repeat(EVENT_TYPE_BYTES_MAX + 1)).is_err());
    }
}
