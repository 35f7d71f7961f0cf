//! What a person sees of the command line: results, messages and exit codes, by running the binary.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and stand outside of the database"
)]

mod backups;
mod doctor;
mod exits;
mod imports;
mod projections;
mod retention;
mod shell;
mod sql;
mod views;
