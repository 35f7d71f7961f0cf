//! The simulation as a test: a few histories of every sort, and planted faults that it must find.

mod canaries;
mod histories;
