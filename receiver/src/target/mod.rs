//! Targets: the disks and files the base lies on.
//!
//! Opening them exclusively and proving that they are the ones a volume was given (P13), creating
//! and checking them when a volume is added, how a volume is striped over them, reading a volume
//! back through that layout, and exporting it to a sparse file.
//!
//! Promises: a refusal changes nothing; nothing is written to a target here except that a new
//! file is created sparse, with the size it needs.
//!
//! Does not: write data ([`crate::apply`] does), take a path from a peer (operators name them).

mod block;
mod error;
mod export;
mod identity;
mod layout;
mod open;
mod provision;
mod read;
mod usage;

#[cfg(test)]
mod tests;

pub use error::TargetError;
pub use export::{ExportProgress, export};
pub use identity::TargetIdentity;
pub use layout::{Layout, LayoutError, Part, STRIPE_BYTES, TARGETS_MAX};
pub use open::{OpenTarget, examine_volume, open_volume};
pub use provision::{NewVolume, Provision, provision};
pub use read::VolumeReader;
