//! The backing disk: a block device or a regular file, opened for one tap alone.
//!
//! [`Disk::open`] decides whether the disk may be wrapped at all, and says in one line why not.
//! What is open is exclusive (`O_EXCL` on a block device, an exclusive lock on both) on a
//! description that is never passed on: it is freed with the last io_uring that still writes
//! through it, so whoever opens the disk next cannot be overtaken by a write of ours (P3).
//!
//! This module reads `/sys`, `/proc` and the disk; it never writes to the disk.

mod error;
mod fingerprint;
mod identity;
mod open;
mod openers;
mod partitions;
pub mod stack;
mod sysfs;
mod traits;
mod usage;
mod writes;

pub use error::DiskError;
pub use fingerprint::Fingerprint;
pub use openers::openers;
pub use traits::Traits;
pub use writes::Writes;

use rustix::fs::Dev;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sysfs::BlockDir;

/// A disk that is ours until dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    file: File,
    /// Number of the block device; none for a file.
    dev: Option<Dev>,
    identity: String,
    size_bytes: u64,
    traits: Traits,
}

impl Disk {
    /// Opens `path`, checks that it can be wrapped, and takes it for us alone.
    ///
    /// A disk that is mounted or part of something else is refused at once. If a tap that is just
    /// ending still has it, we wait up to `patience`.
    pub fn open(path: &Path, patience: Duration) -> Result<Self, DiskError> {
        open::open(path, patience)
    }

    /// What it was opened as.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.dev.is_none()
    }

    /// What tells this disk from others, also after its name changed: WWN, serial, partition UUID,
    /// or device and inode of a file.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Size in bytes, a multiple of the sector size.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Size in bytes right now: another than [`Self::size_bytes`] if somebody has resized it since.
    ///
    /// Does not wait for the disk: seeking to its end would, while a range is being zeroed.
    pub fn size_bytes_now(&self) -> io::Result<u64> {
        let Some(dev) = self.dev else {
            return Ok(self.file.metadata()?.len());
        };
        let sectors = BlockDir::of(dev).and_then(|dir| dir.text("size")?.parse::<u64>().ok());
        sectors
            .map(|sectors| sectors * 512)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Logical sector size in bytes: the unit of every read and write.
    pub fn sector_bytes(&self) -> u32 {
        self.traits.sector_bytes
    }

    /// What the disk can do; the device we make has the same.
    pub fn traits(&self) -> &Traits {
        &self.traits
    }

    /// Fills `buffer` from `offset_bytes`. Both are sector aligned, the memory to 512 bytes.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        read_exactly(&self.file, buffer, offset_bytes)
    }

    /// Makes all completed writes durable.
    pub fn sync(&self) -> io::Result<()> {
        // Of a file, its time as well: it tells of later writes.
        self.file.sync_all()
    }

    /// What is known of writes to it up to now, ours included.
    pub fn writes(&self) -> Writes {
        self.dev
            .map_or_else(|| Writes::of_file(&self.file), Writes::of_block)
    }

    /// Digest of what a write to the raw disk behind our back would have changed.
    pub fn fingerprint(&self) -> io::Result<Fingerprint> {
        Fingerprint::of(&self.file, self.size_bytes, self.sector_bytes())
    }

    /// Whether this disk is, or is stored on, block device `dev`.
    pub fn rests_on(&self, dev: Dev) -> bool {
        match self.dev {
            Some(own) => stack::rests_on(own, dev),
            None => stack::lies_on(&self.path, dev).unwrap_or(false),
        }
    }

    /// Whether `path` is stored on this disk, directly or through partitions, mappings, loops.
    ///
    /// A state file or ring there would wait for the very device that waits for it.
    pub fn carries(&self, path: &Path) -> io::Result<bool> {
        match self.dev {
            Some(dev) => stack::lies_on(path, dev),
            None => stack::lies_on_file(path, &self.file),
        }
    }
}

impl AsFd for Disk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Disk {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Reads all of `buffer`, whatever the kernel does in pieces; the end of the file is an error.
fn read_exactly(file: &File, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset_bytes + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
