//! The pure state machine of Kimberlite.
