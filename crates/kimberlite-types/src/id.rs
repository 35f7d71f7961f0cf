//! Integers with a meaning: where a record stands, and what it belongs to.

use core::fmt;

use crate::limits::POSITION_MAX;

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The first one.
            pub const ZERO: Self = Self(0);

            /// Makes one from its number. `u64::MAX` is reserved and never assigned.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the one that is `count` further on, or `None` past the last that can be
            /// assigned.
            pub const fn checked_add(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(value) if value <= POSITION_MAX => Some(Self(value)),
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }
    };
}

counted! {
    /// The 0-based index of a record in its tenant's log, which is also its Merkle leaf index.
    Position
}

counted! {
    /// The 0-based index of an event in its stream.
    Offset
}

macro_rules! created_at {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Position);

        impl $name {
            /// Makes the id of what the record at `position` created.
            pub const fn new(position: Position) -> Self {
                Self(position)
            }

            /// Returns the position of the record that created it.
            pub const fn position(self) -> Position {
                self.0
            }

            /// Reads a stored field, in which all ones mean that none applies.
            pub const fn from_stored(value: u64) -> Option<Self> {
                if value > POSITION_MAX { None } else { Some(Self(Position::new(value))) }
            }

            /// Returns the stored field of `id`, all ones for none.
            pub const fn to_stored(id: Option<Self>) -> u64 {
                match id {
                    Some(id) => id.0.get(),
                    None => u64::MAX,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

created_at! {
    /// A stream, named by the position of the record that created it.
    StreamId
}

created_at! {
    /// A key session, named by the position of the record that opened it.
    SessionId
}

created_at! {
    /// A legal hold, named by the position of the record that put it.
    HoldId
}

created_at! {
    /// An order to destroy keys, named by the position of its record.
    ShredId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_stops_at_the_last_assignable_position() {
        assert_eq!(Position::new(1).checked_add(2), Some(Position::new(3)));
        assert_eq!(
            Position::new(POSITION_MAX).checked_add(0),
            Some(Position::new(POSITION_MAX))
        );
        assert_eq!(Position::new(POSITION_MAX).checked_add(1), None);
        assert_eq!(Position::new(u64::MAX).checked_add(1), None);
    }

    #[test]
    fn all_ones_is_the_stored_form_of_none() {
        assert_eq!(StreamId::to_stored(None), u64::MAX);
        assert_eq!(StreamId::from_stored(u64::MAX), None);
        let id = StreamId::new(Position::new(7));
        assert_eq!(
            StreamId::from_stored(StreamId::to_stored(Some(id))),
            Some(id)
        );
    }
}
