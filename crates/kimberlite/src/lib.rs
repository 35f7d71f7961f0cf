//! Embedded, verifiable log database: append events, prove that nobody touched them.
