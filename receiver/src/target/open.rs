//! Opening the targets of a volume: exclusively, directly, and only if they are the right ones.

use super::error::TargetError;
use super::identity::{TargetIdentity, block_of, size_of};
use super::usage;
use crate::aligned::AlignedBuffer;
use crate::apply::{KNOWN_BLOCKS, KnownBlocks, known_ranges};
use crate::catalog::{TargetRecord, VolumeRecord};
use rustix::fs::{AtFlags, FlockOperation, OFlags, StatxFlags};
use rustix::io::Errno;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often, and how far apart, a lock is tried: udev locks a block device while it looks at it.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A target, opened and locked.
#[derive(Debug)]
pub struct OpenTarget {
    /// The file; the lock lives as long as it is open.
    pub file: File,
    /// Where it was opened.
    pub path: PathBuf,
    /// Bytes of the volume on it, from its start.
    pub used_bytes: u64,
    /// Whether it is written past the page cache.
    pub direct: bool,
}

/// Opens all targets of a volume. Refused, with nothing written, if one is missing, in use, not
/// the one the volume was given, or changed by someone else (P13).
pub fn open_volume(record: &VolumeRecord) -> Result<Vec<OpenTarget>, TargetError> {
    let mut open = Vec::with_capacity(record.targets.len());
    for (index, target) in record.targets.iter().enumerate() {
        let found = open_exclusive(&target.path, record.sector_bytes)?;
        let found = OpenTarget {
            used_bytes: record.used_bytes(index)?,
            ..found
        };
        check(record, target, &found)?;
        open.push(found);
    }
    Ok(open)
}

/// Looks whether the targets of a volume are the ones it was given and hold what it last wrote.
/// Opened for reading only; what is wrong with each.
pub fn examine_volume(record: &VolumeRecord) -> Result<Vec<TargetError>, TargetError> {
    let mut wrong = Vec::new();
    for (index, target) in record.targets.iter().enumerate() {
        let used_bytes = record.used_bytes(index)?;
        let checked = open_readable(&target.path, record.sector_bytes).and_then(|found| {
            let found = OpenTarget {
                used_bytes,
                ..found
            };
            check(record, target, &found)
        });
        wrong.extend(checked.err());
    }
    Ok(wrong)
}

/// Opens a target for reading and writing, exclusively, past the page cache where that works.
pub(super) fn open_exclusive(path: &Path, sector_bytes: u32) -> Result<OpenTarget, TargetError> {
    let metadata = std::fs::metadata(path).map_err(|e| TargetError::io("open", path, e))?;
    let block = block_of(&metadata);
    if block.is_none() && !metadata.is_file() {
        return Err(TargetError::Kind(path.to_owned()));
    }
    let exclusive = if block.is_some() {
        OFlags::EXCL
    } else {
        OFlags::empty()
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let file = open_with(&options, path, exclusive).map_err(|error| match block {
        Some(block) if is(&error, Errno::BUSY) => TargetError::InUse {
            path: path.to_owned(),
            by: usage::user_of(block),
        },
        _ => TargetError::io("open", path, error),
    })?;
    lock(&file, path)?;
    if let Some(by) = usage::loop_of(path).filter(|_| block.is_none()) {
        return Err(TargetError::InUse {
            path: path.to_owned(),
            by,
        });
    }
    let direct = set_direct(&file, &metadata, sector_bytes);
    let direct = direct.map_err(|error| TargetError::io("open", path, error))?;
    if !direct {
        tracing::info!(path = %path.display(), "no direct I/O here, writing through the page cache");
    }
    Ok(OpenTarget {
        file,
        path: path.to_owned(),
        used_bytes: 0,
        direct,
    })
}

/// Opens a target for reading only, past the page cache where that works.
pub(super) fn open_readable(path: &Path, sector_bytes: u32) -> Result<OpenTarget, TargetError> {
    let opened = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        let direct = set_direct(&file, &metadata, sector_bytes)?;
        Ok(OpenTarget {
            file,
            path: path.to_owned(),
            used_bytes: 0,
            direct,
        })
    });
    opened.map_err(|error| TargetError::io("open", path, error))
}

fn open_with(options: &OpenOptions, path: &Path, flags: OFlags) -> io::Result<File> {
    let mut options = options.clone();
    let flags = (flags | OFlags::CLOEXEC).bits();
    options
        .custom_flags(i32::try_from(flags).map_err(io::Error::other)?)
        .open(path)
}

fn lock(file: &File, path: &Path) -> Result<(), TargetError> {
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(TargetError::io("lock", path, error.into())),
        }
    }
    let by = "another receiver or program has it locked".to_owned();
    Err(TargetError::InUse {
        path: path.to_owned(),
        by,
    })
}

/// Turns O_DIRECT on where every sector of the volume can be written alone that way.
fn set_direct(file: &File, metadata: &Metadata, sector_bytes: u32) -> io::Result<bool> {
    let needed = if block_of(metadata).is_some() {
        Some(rustix::fs::ioctl_blksszget(file)?)
    } else {
        direct_alignment(file)?
    };
    if needed.is_none_or(|needed| needed > sector_bytes) {
        return Ok(false);
    }
    let flags = rustix::fs::fcntl_getfl(file)?;
    match rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What direct I/O on a file must be aligned to; `None` if it is not possible or not told.
fn direct_alignment(file: &File) -> io::Result<Option<u32>> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    let told = found.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let needed = found.stx_dio_mem_align.max(found.stx_dio_offset_align);
    Ok((told && needed != 0).then_some(needed))
}

fn check(
    record: &VolumeRecord,
    target: &TargetRecord,
    open: &OpenTarget,
) -> Result<(), TargetError> {
    let (path, volume) = (&open.path, &record.name);
    let io = |error| TargetError::io("read", path, error);
    let found = TargetIdentity::of(&open.file).map_err(io)?;
    let found = found.ok_or_else(|| TargetError::Kind(path.clone()))?;
    if !target.identity.is(&found) {
        let detail = format!("found {found}; expected {}", target.identity);
        return Err(TargetError::Other {
            path: path.clone(),
            volume: volume.clone(),
            detail,
        });
    }
    let size_bytes = size_of(&open.file).map_err(io)?;
    assert!(
        size_bytes >= open.used_bytes,
        "a bound target is never smaller than its share"
    );
    // A disk that cannot be read has not been changed: nobody is to look for who did it.
    match target.known {
        Some(known) if known_blocks(open).map_err(io)? != known => Err(TargetError::Changed {
            path: path.clone(),
            volume: volume.clone(),
        }),
        _ => Ok(()),
    }
}

/// Reads what a target is known by.
fn known_blocks(open: &OpenTarget) -> io::Result<KnownBlocks> {
    let mut blocks = [const { Vec::new() }; KNOWN_BLOCKS];
    for (block, range) in blocks.iter_mut().zip(known_ranges(open.used_bytes)) {
        let mut buffer = AlignedBuffer::new(range.len_bytes as usize);
        open.file
            .read_exact_at(buffer.as_mut(), range.offset_bytes)?;
        *block = buffer.as_slice().to_vec();
    }
    Ok(KnownBlocks::of(&blocks))
}

/// Whether the system's error is this one.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::KnownBlocks;

    #[test]
    fn a_target_whose_known_blocks_cannot_be_read_is_not_called_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        std::fs::write(&path, [1; 8192]).unwrap();
        let identity = TargetIdentity::of(&File::open(&path).unwrap()).unwrap();
        let target = TargetRecord {
            path: path.clone(),
            identity: identity.unwrap(),
            known: Some(KnownBlocks([1; KNOWN_BLOCKS])),
        };
        let record = VolumeRecord {
            name: "pg/data".parse().unwrap(),
            source: wire::Name::new("db1").unwrap(),
            size_bytes: 8192,
            sector_bytes: 512,
            kind: crate::target::LayoutKind::Plain,
            disk: None,
            targets: vec![target.clone()],
        };
        let open = |file| OpenTarget {
            file,
            path: path.clone(),
            used_bytes: 8192,
            direct: false,
        };
        let readable = check(&record, &target, &open(File::open(&path).unwrap()));
        assert!(matches!(readable, Err(TargetError::Changed { .. })));
        // Not to be read, as after an error of the disk.
        let write_only = OpenOptions::new().write(true).open(&path).unwrap();
        let error = check(&record, &target, &open(write_only)).unwrap_err();
        assert!(
            matches!(error, TargetError::Io { action: "read", .. }),
            "{error}"
        );
    }
}
