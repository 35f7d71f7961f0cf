//! Derived state of Kimberlite: the projection trait and the stream index.
