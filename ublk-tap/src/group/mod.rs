//! A group on this host: what the tap decides, and the loop that does it.
//!
//! [`Core`] decides: which mode the group is in, when the stream is given up and taken up again,
//! and where each volume stands in it. It is pure; its tests run on virtual time. [`Departure`]
//! and [`Barriers`] are the two smaller decisions about waiting. [`Driver`] owns ring, volumes and
//! copiers, asks the core, and does what it says; it never waits. What takes long (opening disks,
//! making devices, syncing state) is done by the [`clerk`], one thing after the other.
//!
//! Promises kept here: no silent gap (P5), the application waits for a stated time at most (P6),
//! the stream is taken up again without an operator (P12).

mod adding;
mod backoff;
mod barrier;
pub mod clerk;
mod core;
mod departure;
mod driver;
mod front;
mod members;
mod orphans;
mod ports;
mod rate;
mod records;
mod recovery;
mod refusal;
mod removal;
mod report;
mod roster;
mod size_watch;
mod stopping;
mod tapped;
#[cfg(test)]
mod tests;
mod upgrade;
mod volume;

pub use self::core::{Core, CoreEvent, Facts, Mode, Output, Start};
pub(crate) use backoff::Backoff;
pub use barrier::Barriers;
pub use departure::Departure;
pub use driver::{Driver, DriverConfig, Input};
pub use front::{Front, FrontKind, Fronts, HostFronts};
pub use orphans::Orphans;
pub use recovery::{Recovery, Reopened, Waits};
pub use roster::Roster;
pub use upgrade::Become;
pub use volume::Place;
