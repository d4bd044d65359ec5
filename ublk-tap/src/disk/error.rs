//! Why a disk cannot be wrapped: one line with cause and next step, and an exit code.

use std::io;
use std::path::PathBuf;

/// Why a disk cannot be wrapped.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is no such path.
    #[error("{0} does not exist; give the path of a block device or of a file")]
    NotFound(PathBuf),
    /// A directory, a character device and the like.
    #[error("{0} is neither a block device nor a regular file; give one of those")]
    NotADisk(PathBuf),
    /// We may not open it for reading and writing.
    #[error("no permission to open {0} for reading and writing; run as root")]
    NoPermission(PathBuf),
    /// Write protected.
    #[error("{0} is read-only; make it writable (blockdev --setrw) or choose another disk")]
    ReadOnly(PathBuf),
    /// A filesystem on it is mounted.
    #[error("{path} is mounted on {at}; unmount it, then add it and mount the tap's device")]
    Mounted {
        /// The disk.
        path: PathBuf,
        /// The mount point.
        at: String,
    },
    /// Something else in the kernel is built on it.
    #[error("{path} is used by {by}; release it there, or add {by} instead")]
    Used {
        /// The disk.
        path: PathBuf,
        /// A mapping, array, loop device or swap.
        by: String,
    },
    /// Somebody else has it open for himself alone.
    #[error("{0} is already tapped or locked by another program; see `ublk-tap list`, or close it")]
    Taken(PathBuf),
    /// Nothing to protect.
    #[error("{0} is empty; give it a size first (truncate -s)")]
    Empty(PathBuf),
    /// Its end is inside a sector.
    #[error(
        "{path} has {size_bytes} bytes, not a multiple of its {sector_bytes}-byte sectors; \
         make it {} bytes (truncate -s)",
        size_bytes.next_multiple_of(u64::from(*sector_bytes))
    )]
    Unaligned {
        /// The disk.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// Its sector size.
        sector_bytes: u32,
    },
    /// Sectors no ublk device can have, or memory alignment the ring cannot give.
    #[error("{path} has {what}, which is not supported; choose another disk")]
    Unsupported {
        /// The disk.
        path: PathBuf,
        /// What about it.
        what: String,
    },
    /// The system refused something that should work.
    #[error("cannot {what} {path}: {source}; see the kernel log (dmesg)")]
    Io {
        /// What we tried.
        what: &'static str,
        /// The disk.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DiskError {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) | Self::NotADisk(_) => 2,
            Self::NoPermission(_) => 5,
            Self::Io { .. } => 1,
            Self::ReadOnly(_)
            | Self::Mounted { .. }
            | Self::Used { .. }
            | Self::Taken(_)
            | Self::Empty(_)
            | Self::Unaligned { .. }
            | Self::Unsupported { .. } => 3,
        }
    }
}
