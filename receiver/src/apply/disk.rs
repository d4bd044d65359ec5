//! The seam to a target disk: what the applier asks of it.
//!
//! [`crate::apply::UringDisk`] writes real targets, [`crate::apply::MemoryDisk`] stands in for
//! one in tests.

use super::known::KnownBlocks;
use crate::fold::DiskWrite;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// Everything one step writes to one disk.
#[derive(Clone, Debug, Default)]
pub struct DiskBatch {
    /// The writes: disjoint, in disk order.
    pub writes: Vec<DiskWrite>,
    /// The data they take their bytes from.
    pub arena: Bytes,
}

/// One target disk. Batches go one after the other: `start`, then `finish`.
pub trait Disk: Send {
    /// Starts to write a batch; does not wait for it.
    fn start(&mut self, batch: DiskBatch) -> Result<(), DiskError>;

    /// Waits until the batch is written and synced, and reads back what the disk is known by.
    ///
    /// An error stays: every later call returns it again, since a failed sync says nothing about
    /// what a later one would cover (P10).
    fn finish(&mut self) -> Result<KnownBlocks, DiskError>;
}

/// What failed on a target disk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// The system refused an operation.
    #[error("cannot {action} target {path}: {source}")]
    Io {
        /// `write`, `zero`, `sync`, `read`.
        action: &'static str,
        /// The target.
        path: Arc<str>,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The thread of the disk has ended.
    #[error("the writer of target {path} has ended; restart the receiver")]
    Gone {
        /// The target.
        path: Arc<str>,
    },
}

impl DiskError {
    /// Whether the target has no room left.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}
