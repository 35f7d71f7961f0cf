//! What an application sees of Kimberlite, on real and on simulated disks.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails says where"
)]

mod backup;
mod basics;
mod checkpoints;
mod crash;
mod doctor;
mod full;
mod futures;
mod gate;
mod group_commit;
mod idempotency;
mod keys;
mod opening;
mod projections;
mod queue;
mod reads;
mod repair;
mod restore;
mod retention;
mod streams;
mod support;
mod thinning;
mod wakers;
