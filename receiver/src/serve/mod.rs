//! Serve: the groups at work, and what reaches them. Drivers only; what is decided is decided in [`group`].
//!
//! ```text
//! QUIC sessions --told--> actor thread per group --append--> journal thread
//!       ^                   |  ^                                  |
//!       +------ say --------+  +---- durable, jobs done <---------+
//!                           +-- job --> worker thread per group --> targets, catalog
//! ```
//!
//! Promises: whatever comes in over a socket at worst ends that session; a clean stop applies what
//! may be applied, then rests; bytes on their way from a session to the journal are bounded by
//! [`INTAKE_BYTES_MAX`] (P11).
//!
//! Does not: keep any state of its own beyond the handles of threads and sessions.

mod actor;
mod backlog;
mod begin;
mod combined;
pub mod group;
mod hub;
mod line;
mod live;
mod meetings;
mod messages;
mod restore;
mod room;
mod worker;

pub(crate) use combined::groups_of;
pub use hub::Hub;
pub use line::{Line, Next, SAID_MAX};
pub use live::Live;
pub use messages::Told;
pub(crate) use restore::Groups;
pub use restore::start;
pub use room::{Room, Rooms, Share};

/// Most bytes received and not yet durable, over all sessions; less where the journal is small.
pub const INTAKE_BYTES_MAX: usize = 64 << 20;
