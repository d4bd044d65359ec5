//! The shared ring between the tap and the shipper: one per group and host.
//!
//! The tap owns the memory. Its queue threads claim places ([`Ring::claim`]), fill them and settle
//! them when the disk has answered; the shipper maps the same memory read-only ([`Consumer`]) and
//! writes one page only: how far it has sent, how far the receiver holds everything durably, and
//! whether it sleeps. Memory is given back only after the tap has checked that word itself, so
//! nothing the shipper can write reaches the local path (P1).
//!
//! Promises held here: stamps follow the order of claims on one atomic word (P2), a stream has no
//! hole (P4), memory of a disk write in flight is never reused (P1), every size has a maximum
//! (P11), nothing found in shared memory is used before it is checked (P14).
//!
//! It does not know disks, sockets of the network, clocks or threads: time is an argument, waiting
//! is the caller's. `unsafe` lives in the private modules `map`, `mapping` and `handoff::peer` only. The
//! layout is written down in `docs/ring.md`, the reasons in `docs/decisions/ring-layout.md`.

mod claim;
mod config;
mod consumer;
mod create;
mod descriptor;
pub mod handoff;
mod layout;
mod map;
#[cfg_attr(any(ring_loom, ring_shuttle), path = "mapping_model.rs")]
mod mapping;
mod place;
mod reclaim;
mod recover;
mod sync;
mod tap;
mod wake;

pub use claim::{Claim, Filled};
pub use config::{ConfigError, RING_PAYLOAD_BYTES_MAX, RingConfig};
pub use consumer::{Consumer, Entry, OpenError, RingFault};
pub use create::{Bytes, CreateError};
pub use descriptor::RecordFields;
pub use handoff::ConsumerFds;
pub use reclaim::AckViolation;
pub use recover::{Orphan, RecoverError, Recovered};
pub use tap::{ClaimError, Origin, ReopenError, Ring, Usage};
pub use wake::WakeFd;
