//! The log of one tenant: frames, segments, commit, index, recovery.
