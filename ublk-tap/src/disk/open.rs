//! Opening a disk for us alone, and saying why it cannot be.

use super::error::DiskError;
use super::sysfs::BlockDir;
use super::traits::Traits;
use super::usage::{self, Use};
use super::{Disk, identity};
use rustix::fs::{Dev, FlockOperation};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a disk that is taken is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// udev locks a disk for moments while it looks at it, and a removed tap's io_uring goes a moment
/// after its thread; this long we wait in any case.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

pub(super) fn open(path: &Path, patience: Duration) -> Result<Disk, DiskError> {
    let metadata = path.metadata().map_err(|error| cannot_open(path, error))?;
    let kind = metadata.file_type();
    if kind.is_block_device() {
        open_block(path, metadata.rdev(), patience)
    } else if kind.is_file() {
        open_file(path, patience)
    } else {
        Err(DiskError::NotADisk(path.to_path_buf()))
    }
}

fn open_block(path: &Path, dev: Dev, patience: Duration) -> Result<Disk, DiskError> {
    let dir = BlockDir::of(dev).ok_or_else(|| DiskError::NotFound(path.to_path_buf()))?;
    refuse_unfit(path, &dir)?;
    let in_use = || usage::of_block(dev, Some(&dir));
    let (file, direct) = take(path, libc::O_EXCL, patience, in_use)?;
    let size_bytes = (&file)
        .seek(SeekFrom::End(0))
        .map_err(io_error("read the size of", path))?;
    let traits = Traits::of_block(&dir, direct);
    let align_bytes = dir.limit("dma_alignment") + 1;
    if align_bytes > u64::from(traits.sector_bytes) {
        let what = format!("a memory alignment of {align_bytes} bytes");
        return Err(DiskError::Unsupported {
            path: path.to_path_buf(),
            what,
        });
    }
    let identity = identity::of_block(&dir, dev);
    finish(Disk {
        path: path.to_path_buf(),
        file,
        dev: Some(dev),
        identity,
        size_bytes,
        traits,
    })
}

/// Refuses what would open, and fail with the first write.
fn refuse_unfit(path: &Path, dir: &BlockDir) -> Result<(), DiskError> {
    if dir.text("ro").as_deref() == Some("1") {
        return Err(DiskError::ReadOnly(path.to_path_buf()));
    }
    if dir.whole_text("queue/zoned").as_deref() == Some("host-managed") {
        let what = "zones that must be written in order".to_owned();
        return Err(DiskError::Unsupported {
            path: path.to_path_buf(),
            what,
        });
    }
    Ok(())
}

fn open_file(path: &Path, patience: Duration) -> Result<Disk, DiskError> {
    let in_use = || usage::of_file(path);
    if let Some(used) = in_use() {
        return Err(refusal(path, used));
    }
    let (file, direct) = take(path, 0, patience, in_use)?;
    let metadata = file
        .metadata()
        .map_err(io_error("read the size of", path))?;
    let traits = Traits::of_file(&file, direct);
    let identity = identity::of_file(&metadata);
    let size_bytes = metadata.len();
    finish(Disk {
        path: path.to_path_buf(),
        file,
        dev: None,
        identity,
        size_bytes,
        traits,
    })
}

fn finish(disk: Disk) -> Result<Disk, DiskError> {
    let path = || disk.path.clone();
    disk.traits.check(&disk.path)?;
    if disk.size_bytes == 0 {
        return Err(DiskError::Empty(path()));
    }
    let sector_bytes = disk.traits.sector_bytes;
    if !disk.size_bytes.is_multiple_of(u64::from(sector_bytes)) {
        return Err(DiskError::Unaligned {
            path: path(),
            size_bytes: disk.size_bytes,
            sector_bytes,
        });
    }
    Ok(disk)
}

/// Opens and locks, waiting for a tap that is just ending; a use the kernel can name is final.
fn take(
    path: &Path,
    flags: i32,
    patience: Duration,
    in_use: impl Fn() -> Option<Use>,
) -> Result<(File, bool), DiskError> {
    let deadline = Instant::now() + patience.max(PATIENCE_MIN);
    loop {
        match try_take(path, flags)? {
            Some(taken) => return Ok(taken),
            None => {
                if let Some(used) = in_use() {
                    return Err(refusal(path, used));
                }
                if Instant::now() >= deadline {
                    return Err(DiskError::Taken(path.to_path_buf()));
                }
                std::thread::sleep(RETRY_INTERVAL);
            }
        }
    }
}

/// The open and locked file, and whether it is past the page cache; none if somebody has it.
fn try_take(path: &Path, flags: i32) -> Result<Option<(File, bool)>, DiskError> {
    let open = |direct: i32| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags | direct)
            .open(path)
    };
    let (file, direct) = match open(libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (open(0), false),
        other => (other, true),
    };
    let file = match file {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(None),
        other => other.map_err(|error| cannot_open(path, error))?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some((file, direct))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(io_error("lock", path)(errno.into())),
    }
}

fn refusal(path: &Path, used: Use) -> DiskError {
    let path = path.to_path_buf();
    match used {
        Use::Mounted(at) => DiskError::Mounted { path, at },
        Use::By(by) => DiskError::Used { path, by },
    }
}

fn cannot_open(path: &Path, error: io::Error) -> DiskError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENXIO | libc::ENODEV) => {
            DiskError::NotFound(path.to_path_buf())
        }
        Some(libc::EACCES | libc::EPERM) => DiskError::NoPermission(path.to_path_buf()),
        Some(libc::EROFS) => DiskError::ReadOnly(path.to_path_buf()),
        Some(libc::EISDIR) => DiskError::NotADisk(path.to_path_buf()),
        _ => io_error("open", path)(error),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError::Io {
        what,
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(bytes: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        file
    }

    fn error_of(path: &Path) -> DiskError {
        Disk::open(path, Duration::ZERO).unwrap_err()
    }

    #[test]
    fn a_file_that_ends_inside_a_sector_is_refused_with_the_size_it_should_have() {
        let file = file_of(1_000_001);
        let error = error_of(file.path());
        assert!(
            matches!(
                error,
                DiskError::Unaligned {
                    size_bytes: 1_000_001,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("make it 100"), "{error}");
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn what_is_no_disk_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(error_of(dir.path()), DiskError::NotADisk(_)));
        assert!(matches!(
            error_of(Path::new("/dev/null")),
            DiskError::NotADisk(_)
        ));
        assert!(matches!(
            error_of(&dir.path().join("none")),
            DiskError::NotFound(_)
        ));
        assert!(matches!(error_of(file_of(0).path()), DiskError::Empty(_)));
    }

    #[test]
    fn a_block_device_that_takes_no_writes_as_they_come_is_refused_in_words() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let refused = |name: &str| {
            let dir = BlockDir::at(&root.path().join(name)).unwrap();
            refuse_unfit(Path::new("/dev/x"), &dir).err()
        };
        file("sda/ro", "0\n");
        file("sda/queue/zoned", "none\n");
        file("sda/sda1/partition", "1\n");
        file("sda/sda1/ro", "1\n");
        file("sdz/ro", "0\n");
        file("sdz/queue/zoned", "host-managed\n");
        assert!(refused("sda").is_none());
        let read_only = refused("sda/sda1").unwrap();
        assert!(matches!(read_only, DiskError::ReadOnly(_)), "{read_only}");
        let zoned = refused("sdz").unwrap();
        assert!(zoned.to_string().contains("written in order"), "{zoned}");
        assert_eq!((read_only.exit_code(), zoned.exit_code()), (3, 3));
    }

    #[test]
    fn a_second_tap_on_the_same_file_is_refused_until_the_first_lets_go() {
        let file = file_of(1 << 20);
        let first = Disk::open(file.path(), Duration::ZERO).unwrap();
        assert!(matches!(error_of(file.path()), DiskError::Taken(_)));
        drop(first);
        assert!(Disk::open(file.path(), Duration::ZERO).is_ok());
    }

    #[test]
    fn a_restarted_tap_waits_for_the_one_that_is_just_ending() {
        let file = file_of(1 << 20);
        let first = Disk::open(file.path(), Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                drop(first);
            });
            assert!(Disk::open(file.path(), Duration::from_secs(10)).is_ok());
        });
    }

    #[test]
    fn the_fingerprint_changes_with_either_end_and_not_with_the_middle() {
        let mut file = file_of(8 << 20);
        let disk = Disk::open(file.path(), Duration::ZERO).unwrap();
        let before = disk.fingerprint().unwrap();
        assert_eq!(before.to_string().parse(), Ok(before));
        let mut written_at = |offset: u64| {
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.write_all(b"changed").unwrap();
            file.as_file().sync_all().unwrap();
            disk.fingerprint().unwrap()
        };
        assert_eq!(written_at(4 << 20), before);
        let first_end = written_at(1024);
        assert_ne!(first_end, before);
        assert_ne!(written_at((8 << 20) - 4096), first_end);
    }

    #[test]
    fn opening_a_disk_is_no_write() {
        let file = file_of(1 << 20);
        let earlier = std::time::UNIX_EPOCH + Duration::new(5, 123);
        file.as_file().set_modified(earlier).unwrap();
        let before = Disk::open(file.path(), Duration::ZERO).unwrap().writes();
        let disk = Disk::open(file.path(), Duration::ZERO).unwrap();
        assert_eq!(disk.writes(), before);
        assert_eq!(
            file.as_file().metadata().unwrap().modified().unwrap(),
            earlier
        );
        file.as_file().write_all(b"changed").unwrap();
        assert!(disk.writes().are_more_than(&before));
    }

    #[test]
    fn the_fingerprint_changes_with_the_start_of_a_partition() {
        let mut file = file_of(16 << 20);
        let write_at = |file: &mut tempfile::NamedTempFile, offset: u64, bytes: &[u8]| {
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.write_all(bytes).unwrap();
            file.as_file().sync_all().unwrap();
        };
        // One partition at 8 MiB, in the MBR's second entry.
        let lba = (8u32 << 20) / 512;
        write_at(&mut file, 446 + 16 + 4, &[0x83]);
        write_at(&mut file, 446 + 16 + 8, &lba.to_le_bytes());
        write_at(&mut file, 510, &[0x55, 0xaa]);
        let disk = Disk::open(file.path(), Duration::ZERO).unwrap();
        let before = disk.fingerprint().unwrap();
        write_at(&mut file, 12 << 20, b"changed");
        assert_eq!(disk.fingerprint().unwrap(), before);
        // As ext4 notes a mount.
        write_at(&mut file, (8 << 20) + 1024 + 0x2c, b"when");
        assert_ne!(disk.fingerprint().unwrap(), before);
    }
}
