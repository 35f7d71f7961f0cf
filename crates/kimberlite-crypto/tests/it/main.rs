//! The public interface as the other crates use it.
