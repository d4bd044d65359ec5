//! End-to-end stories, told on a real kernel: `scripts/test lab`.
//!
//! Each test makes its own disks, its own receiver and its own source, and takes them away again.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that fails"
)]

mod bad_input;
mod broken_disk;
mod failing_disk;
mod faults;
mod filesystems;
mod hostile;
mod identity;
mod link_down;
mod memory;
mod nbd;
mod pressure;
mod privilege;
mod queues;
mod receiver_disks;
mod recopy;
mod recover;
mod removal;
mod resized;
mod standard_tools;
mod transfer;
mod units;
mod upgrade;
mod volatile_cache;
