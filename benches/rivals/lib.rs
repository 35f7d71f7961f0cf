//! Rounds of two engines at the same work.
