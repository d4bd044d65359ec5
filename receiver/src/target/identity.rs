//! What a target is recognised by (P13).

use super::block::Block;
use rustix::fs::{AtFlags, StatxFlags};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Identity of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TargetIdentity {
    /// A regular file.
    File {
        /// Number of the device its file system is on; may change over a reboot.
        device: u64,
        /// Inode.
        inode: u64,
        /// When it was created, in nanoseconds since the Unix epoch; zero if unknown.
        born_ns: u64,
        /// Size.
        size_bytes: u64,
    },
    /// A block device.
    Block {
        /// WWN, serial, partition UUID or the like.
        id: String,
        /// Size.
        size_bytes: u64,
    },
}

impl TargetIdentity {
    /// Reads the identity of an open target; `None` if it is neither file nor block device.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() {
            let id = Block::new(metadata.rdev()).identity();
            return Ok(Some(Self::Block {
                id,
                size_bytes: size_of(file)?,
            }));
        }
        if !metadata.is_file() {
            return Ok(None);
        }
        Ok(Some(Self::File {
            device: metadata.dev(),
            inode: metadata.ino(),
            born_ns: born_ns(file)?,
            size_bytes: metadata.size(),
        }))
    }

    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::File { size_bytes, .. } | Self::Block { size_bytes, .. } => *size_bytes,
        }
    }

    /// Whether it is no more than the kernel's name for a disk.
    pub fn is_weak(&self) -> bool {
        matches!(self, Self::Block { id, .. } if id.starts_with("name:"))
    }

    /// Whether what was `found` is what was bound.
    ///
    /// Inode and time of birth name a file; the device number stands in where there is no time of
    /// birth, since it may change over a reboot.
    pub fn is(&self, found: &Self) -> bool {
        match (self, found) {
            (
                Self::File {
                    device,
                    inode,
                    born_ns,
                    size_bytes,
                },
                Self::File {
                    device: device2,
                    inode: inode2,
                    born_ns: born2,
                    size_bytes: size2,
                },
            ) => {
                let same_life = born_ns == born2 && (*born_ns != 0 || device == device2);
                inode == inode2 && size_bytes == size2 && same_life
            }
            _ => self == found,
        }
    }

    /// Whether both are one and the same thing, whatever its size is now.
    pub(super) fn is_same_object(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::File { device, inode, .. },
                Self::File {
                    device: device2,
                    inode: inode2,
                    ..
                },
            ) => (device, inode) == (device2, inode2),
            (Self::Block { id, .. }, Self::Block { id: id2, .. }) => id == id2,
            _ => false,
        }
    }
}

impl fmt::Display for TargetIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                inode, size_bytes, ..
            } => write!(f, "inode {inode}, {size_bytes} bytes"),
            Self::Block { id, size_bytes } => write!(f, "{id}, {size_bytes} bytes"),
        }
    }
}

/// Size of a file or block device.
pub(super) fn size_of(mut file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let size_bytes = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(size_bytes)
}

/// The block device a file is, if it is one.
pub(super) fn block_of(metadata: &Metadata) -> Option<Block> {
    metadata
        .file_type()
        .is_block_device()
        .then(|| Block::new(metadata.rdev()))
}

fn born_ns(file: &File) -> io::Result<u64> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME)?;
    let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let seconds = u64::try_from(found.stx_btime.tv_sec).unwrap_or_default();
    let ns = seconds.saturating_mul(1_000_000_000) + u64::from(found.stx_btime.tv_nsec);
    Ok(if known { ns } else { 0 })
}
