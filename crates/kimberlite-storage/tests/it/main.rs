//! The log of one tenant on disks that behave, fail, lie and are tampered with.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what tests call is tests"
)]

mod appends;
mod begun;
mod budgets;
mod counting;
mod crashes;
mod flips;
mod golden;
mod hostile;
mod keyed;
mod os;
mod purges;
mod reads;
mod rig;
mod rollback;
mod seals;
mod space;
mod tails;
