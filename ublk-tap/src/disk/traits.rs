//! What a backing disk can do, so that the device we make can do the same.
//!
//! Volatile cache and FUA decide whether flushes reach us at all (P1): the block layer strips them
//! from devices that do not say they have a cache.

use super::error::DiskError;
use super::sysfs::BlockDir;
use rustix::fs::{AtFlags, FallocateFlags, StatxFlags};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a disk can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Logical sector: unit of every request, 512 to 4096 bytes.
    pub sector_bytes: u32,
    /// Physical sector: what the disk writes in one piece; at least the logical one.
    pub physical_bytes: u32,
    /// Preferred smallest request.
    pub io_min_bytes: u32,
    /// Preferred large request; zero if the disk names none.
    pub io_opt_bytes: u32,
    /// Completed writes may still be lost with the power until flushed.
    pub volatile_cache: bool,
    /// One write can be made durable by itself.
    pub fua: bool,
    /// Ranges can be punched so that they read as zeroes; without it we offer no discard.
    pub punch: bool,
    /// Unit in which punching frees space.
    pub punch_bytes: u32,
    /// Seeking costs.
    pub rotational: bool,
    /// Opened past the page cache.
    pub direct: bool,
}

/// Memory alignment every buffer of ours has: ring payloads and pool buffers.
const MEMORY_ALIGN_BYTES: u64 = 512;
/// Largest logical sector a ublk device can have.
const SECTOR_BYTES_MAX: u64 = 4096;

impl Traits {
    /// Of a block device.
    pub(super) fn of_block(dir: &BlockDir, direct: bool) -> Self {
        let sector_bytes = small(dir.limit("logical_block_size").max(512));
        let physical_bytes = small(dir.limit("physical_block_size")).max(sector_bytes);
        let punch = dir.limit("discard_max_bytes") > 0 && dir.limit("write_zeroes_max_bytes") > 0;
        Self {
            sector_bytes,
            physical_bytes,
            io_min_bytes: small(dir.limit("minimum_io_size")).max(sector_bytes),
            io_opt_bytes: small(dir.limit("optimal_io_size")),
            volatile_cache: dir.whole_text("queue/write_cache").as_deref() == Some("write back"),
            fua: dir.limit("fua") == 1,
            punch,
            punch_bytes: small(dir.limit("discard_granularity")).max(sector_bytes),
            rotational: dir.limit("rotational") == 1,
            direct,
        }
    }

    /// Of a regular file: the filesystem below caches until told otherwise, and can write through.
    pub(super) fn of_file(file: &File, direct: bool) -> Self {
        let (memory, offset) = if direct {
            direct_alignment(file)
        } else {
            (0, 0)
        };
        let block = rustix::fs::fstat(file).map_or(4096, |stat| stat.st_blksize as u64);
        // Our buffers are aligned to 512 bytes, and to 4096 from 4096 bytes on.
        let memory = if memory > MEMORY_ALIGN_BYTES {
            memory
        } else {
            0
        };
        let sector_bytes = small(offset.max(memory).max(512));
        let physical_bytes = small(block.min(SECTOR_BYTES_MAX)).max(sector_bytes);
        Self {
            sector_bytes,
            physical_bytes,
            io_min_bytes: physical_bytes,
            io_opt_bytes: 0,
            volatile_cache: true,
            fua: true,
            punch: can_punch(file),
            punch_bytes: physical_bytes,
            rotational: false,
            direct,
        }
    }

    /// Refuses what no ublk device can mirror.
    pub(super) fn check(&self, path: &Path) -> Result<(), DiskError> {
        let sector_bytes = u64::from(self.sector_bytes);
        if self.sector_bytes.is_power_of_two() && sector_bytes <= SECTOR_BYTES_MAX {
            return Ok(());
        }
        Err(DiskError::Unsupported {
            path: path.to_path_buf(),
            what: format!("{sector_bytes}-byte sectors"),
        })
    }
}

/// Alignment of memory and offset that direct I/O on this file needs; zeroes if unknown.
fn direct_alignment(file: &File) -> (u64, u64) {
    let found = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    found.map_or((0, 0), |found| {
        (
            u64::from(found.stx_dio_mem_align),
            u64::from(found.stx_dio_offset_align),
        )
    })
}

/// Asks the filesystem by punching behind the end of the file, which changes nothing but the file's
/// time; that is put back, for it tells of writes ([`super::Writes`]).
fn can_punch(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let behind = metadata.len().next_multiple_of(4096);
    let can = rustix::fs::fallocate(file, flags, behind, 4096).is_ok();
    let omitted = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_OMIT,
    };
    let times = rustix::fs::Timestamps {
        last_access: omitted,
        last_modification: rustix::fs::Timespec {
            tv_sec: metadata.mtime(),
            tv_nsec: metadata.mtime_nsec(),
        },
    };
    // A time that stays as it is now costs a copy, no more.
    let _ = rustix::fs::futimens(file, &times);
    can
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
