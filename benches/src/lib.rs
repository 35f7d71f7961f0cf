//! What the benches of Kimberlite share.
