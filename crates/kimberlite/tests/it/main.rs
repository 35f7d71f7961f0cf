//! What an application sees of Kimberlite, on real and on simulated disks.

mod basics;
mod crash;
mod keys;
mod support;
