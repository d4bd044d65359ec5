//! Why a target or volume is refused: one line each, with the next step.

use super::layout::LayoutError;
use super::pool::BadMap;
use std::io;
use std::path::PathBuf;
use wire::VolumeName;

/// A target or volume was refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The sector size is not one of a block device.
    #[error("sector size {0} is not possible; use 512 or 4096")]
    Sector(u32),
    /// The size is zero or not whole sectors.
    #[error("a size of {size_bytes} bytes is not a multiple of the sector size {sector_bytes}")]
    Size {
        /// The size asked for.
        size_bytes: u64,
        /// The sector size.
        sector_bytes: u32,
    },
    /// A pool's map in the catalog.
    #[error("the catalog is damaged: volume {volume}: {bad}; restore it from a backup")]
    Map {
        /// The volume.
        volume: VolumeName,
        /// What is wrong.
        bad: BadMap,
    },
    /// The volume has more segments than a map.
    #[error("a volume in a pool has at most {most_bytes} bytes, not {size_bytes}")]
    PoolSize {
        /// The size asked for.
        size_bytes: u64,
        /// The largest possible.
        most_bytes: u64,
    },
    /// A new file of a pool without a size.
    #[error("target {path} does not exist: say how large it is to be, as {path}=64GiB, or name a disk", path = .0.display())]
    SizeWanted(PathBuf),
    /// A size for what has one.
    #[error("target {} has its size from the volume, or as a disk; leave =SIZE out", .0.display())]
    SizeGiven(PathBuf),
    /// Too many or too few targets.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The target is not there.
    #[error("target {} does not exist; attach the disk, or put the file back", .0.display())]
    Missing(PathBuf),
    /// The directory of a new file is not there.
    #[error("directory {} does not exist; create it first", .0.display())]
    NoDirectory(PathBuf),
    /// Neither a file nor a block device.
    #[error("target {} is neither a file nor a block device; name one", .0.display())]
    Kind(PathBuf),
    /// Mounted, or held by a driver or program.
    #[error("target {} is in use ({by}); free it, then try again", path.display())]
    InUse {
        /// The target.
        path: PathBuf,
        /// Who uses it, in words.
        by: String,
    },
    /// Permission denied.
    #[error("no permission to open target {}; run as root, or give the receiver the disk", .0.display())]
    Permission(PathBuf),
    /// The system refused something else.
    #[error("cannot {action} target {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The target.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is too small.
    #[error(
        "target {} has {found_bytes} bytes, the volume needs {needed_bytes} there; name a larger one",
        path.display()
    )]
    Small {
        /// The target.
        path: PathBuf,
        /// Its size.
        found_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// A file that holds something of another size.
    #[error(
        "target file {} has {found_bytes} bytes, not {needed_bytes}; name a new or empty file",
        path.display()
    )]
    OtherSize {
        /// The target.
        path: PathBuf,
        /// Its size.
        found_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// The disk's logical sector is larger than the volume's.
    #[error(
        "target {} has sectors of {found_bytes} bytes, the volume has {sector_bytes}; name a disk \
         with smaller sectors",
        path.display()
    )]
    CoarseSector {
        /// The target.
        path: PathBuf,
        /// Its logical sector.
        found_bytes: u32,
        /// The volume's.
        sector_bytes: u32,
    },
    /// The target belongs to a volume already.
    #[error("target {} is a target of volume {volume} already; name another", path.display())]
    Taken {
        /// The target.
        path: PathBuf,
        /// Whose it is.
        volume: VolumeName,
    },
    /// The same target is named twice.
    #[error("target {} is named twice, or overlaps another one named", .0.display())]
    Twice(PathBuf),
    /// The target lies where the receiver keeps its own files.
    #[error("target {} lies among the receiver's own files; name another place", .0.display())]
    Own(PathBuf),
    /// Another disk or file than the one bound.
    #[error(
        "target {} is not the one volume {volume} was given ({detail}); put that one back, or \
         remove and add the volume",
        path.display()
    )]
    Other {
        /// The target.
        path: PathBuf,
        /// The volume.
        volume: VolumeName,
        /// What differs.
        detail: String,
    },
    /// Someone has written it since the last step.
    #[error(
        "target {} was changed by someone else since the last step; remove and add volume \
         {volume} to copy it again",
        path.display()
    )]
    Changed {
        /// The target.
        path: PathBuf,
        /// The volume.
        volume: VolumeName,
    },
    /// The writer thread cannot start.
    #[error(
        "cannot start the io_uring writer of target {}: {source}; see that \
         kernel.io_uring_disabled is 0",
        path.display()
    )]
    Thread {
        /// The target.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl TargetError {
    /// An error of the system about `path`, by the cases an operator can act on.
    pub(super) fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(path),
            io::ErrorKind::PermissionDenied => Self::Permission(path),
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// Whether the words given were wrong, rather than the state of a disk.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Sector(_)
                | Self::Size { .. }
                | Self::PoolSize { .. }
                | Self::SizeWanted(_)
                | Self::SizeGiven(_)
                | Self::Layout(_)
                | Self::Twice(_)
        )
    }

    /// Whether permission or kernel support is missing.
    pub fn is_privilege(&self) -> bool {
        matches!(self, Self::Permission(_) | Self::Thread { .. })
    }

    /// Whether the disk is just not there or does not answer, rather than another one, or changed.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Missing(_)
                | Self::InUse { .. }
                | Self::Permission(_)
                | Self::Io { .. }
                | Self::Thread { .. }
        )
    }

    /// Whether a disk is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}
