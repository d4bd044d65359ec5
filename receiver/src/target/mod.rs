//! Targets: the disks and files the base lies on.
//!
//! Opening them exclusively and proving that they are the ones a volume was given (P13), creating
//! and checking them when a volume is added, how a volume lies on them (striped, or in segments of a
//! pool), reading a volume back, and exporting it to a sparse file.
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
mod need;
mod open;
mod placement;
mod pool;
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
#[cfg(test)]
pub(crate) use placement::placed;
pub use placement::{LayoutKind, Placement, pool_bytes};
pub use pool::{
    BadMap, MapChange, POOL_DISK_SEGMENTS_MAX, POOL_SEGMENT_BYTES, POOL_VOLUME_SEGMENTS_MAX, Place,
    Pool, PoolFull, PoolPlan,
};
pub use provision::{NewTarget, NewVolume, Provision, provision};
pub use read::VolumeReader;
