//! Segment files in a directory: `NNNNNNNNNNNNNNNN.seg`, written past the page cache.
//!
//! O_DIRECT, where the filesystem has it: what a scan reads is then what the disk holds, also after
//! a sync that failed, and the cache is left to the reads of apply. Names are opened beneath the
//! directory's descriptor and never followed if they are links.

use super::error::JournalError;
use super::store::{SegmentFile, Store};
use crate::aligned::AlignedBuffer;
use rustix::fs::{self, Advice, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PAGE_BYTES: usize = 4096;
const SUFFIX: &str = ".seg";

/// A directory of segments, locked.
#[derive(Debug)]
pub struct DirStore {
    path: PathBuf,
    dir: OwnedFd,
    direct: bool,
    /// Nothing is made, written or removed.
    read_only: bool,
}

/// An open segment file.
#[derive(Debug)]
pub struct DirSegment {
    file: File,
}

impl DirStore {
    /// Opens the directory, makes it if it is not there, and locks it for this process.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        std::fs::create_dir_all(path).map_err(|source| cannot_open(path, source))?;
        let mut store = Self::lock(path, false)?;
        store.direct = store
            .can_be_direct()
            .map_err(|source| cannot_open(path, source))?;
        Ok(store)
    }

    /// Opens the directory to look at it only; locked all the same, so that nothing moves.
    pub fn open_read_only(path: &Path) -> Result<Self, JournalError> {
        Self::lock(path, true)
    }

    fn lock(path: &Path, read_only: bool) -> Result<Self, JournalError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = fs::open(path, flags, Mode::empty());
        let dir = dir.map_err(|errno| cannot_open(path, errno.into()))?;
        match fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(JournalError::InUse(path.to_owned())),
            Err(errno) => return Err(cannot_open(path, errno.into())),
        }
        Ok(Self {
            path: path.to_owned(),
            dir,
            direct: true,
            read_only,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether writes go past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Tries a direct write: some filesystems refuse it at open, some at the first write.
    fn can_be_direct(&self) -> io::Result<bool> {
        let name = "direct.probe";
        let remove = || match fs::unlinkat(&self.dir, name, fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(io::Error::from(errno)),
        };
        remove()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let probe = match self.openat(name, flags) {
            Ok(file) => file.write_all_at(AlignedBuffer::new(PAGE_BYTES).as_slice(), 0),
            Err(error) => Err(error),
        };
        remove()?;
        match probe {
            Ok(()) => Ok(true),
            Err(error) if is_unsupported(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }

    /// Past the page cache where that works; whether it does cannot be tried by writing.
    fn open_to_read(&self, segment: u64) -> io::Result<DirSegment> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = name_of(segment);
        let direct = fs::openat(&self.dir, &name, flags | OFlags::DIRECT, Mode::empty());
        let file = match direct {
            Ok(file) => File::from(file),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                File::from(fs::openat(&self.dir, &name, flags, Mode::empty())?)
            }
            Err(error) => return Err(error.into()),
        };
        forget_cached(&file);
        Ok(DirSegment { file })
    }

    fn openat(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let direct = if self.direct {
            OFlags::DIRECT
        } else {
            OFlags::empty()
        };
        let flags = flags | direct | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(File::from(fs::openat(&self.dir, name, flags, mode)?))
    }
}

impl Store for DirStore {
    type Segment = DirSegment;

    fn list(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            found.extend(segment_of(name));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn create(&mut self, segment: u64, bytes: u64) -> io::Result<DirSegment> {
        self.check_writable()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file = self.openat(&name_of(segment), flags)?;
        let mut segment_file = DirSegment { file };
        if let Err(error) = segment_file.allocate(bytes) {
            // The name must not stay: the next try makes it again.
            let _ = self.remove(segment);
            return Err(error);
        }
        Ok(segment_file)
    }

    fn open(&self, segment: u64) -> io::Result<DirSegment> {
        if self.read_only {
            return self.open_to_read(segment);
        }
        let file = self.openat(&name_of(segment), OFlags::RDWR)?;
        if !self.direct {
            forget_cached(&file);
        }
        Ok(DirSegment { file })
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.check_writable()?;
        Ok(fs::unlinkat(
            &self.dir,
            name_of(segment),
            fs::AtFlags::empty(),
        )?)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(fs::fsync(&self.dir)?)
    }
}

impl SegmentFile for DirSegment {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let found = self
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64);
            match found {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // A direct read that ends inside a page has met the end of the file.
            if !filled.is_multiple_of(PAGE_BYTES) {
                break;
            }
        }
        buffer[filled..].fill(0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        match fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP) => self.file.set_len(bytes),
            other => Ok(other?),
        }
    }
}

/// Has what is read come from the disk: pages whose sync failed stay in the cache and look written.
fn forget_cached(file: &File) {
    // Only advice: a filesystem without a cache of its own has nothing to forget.
    if let Err(error) = fs::fadvise(file, 0, None, Advice::DontNeed) {
        tracing::debug!(%error, "the page cache of a segment stays");
    }
}

fn cannot_open(path: &Path, source: io::Error) -> JournalError {
    let (what, path) = ("open", path.to_owned());
    JournalError::Io { what, path, source }
}

pub(super) fn name_of(segment: u64) -> String {
    format!("{segment:016x}{SUFFIX}")
}

fn segment_of(name: &str) -> Option<u64> {
    let segment = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    (name_of(segment) == name).then_some(segment)
}

fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [Errno::INVAL, Errno::OPNOTSUPP].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|code| unsupported.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_this_store_would_give_are_segments() {
        assert_eq!(segment_of(&name_of(0x1f)), Some(0x1f));
        for other in [
            "1.seg",
            "000000000000001f",
            "+00000000000001f.seg",
            "00000000000000AF.seg",
        ] {
            assert_eq!(segment_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_second_store_on_the_same_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirStore::open(dir.path()).unwrap();
        assert!(matches!(
            DirStore::open(dir.path()),
            Err(JournalError::InUse(_))
        ));
        drop(first);
        assert!(DirStore::open(dir.path()).is_ok());
    }

    #[test]
    fn a_store_that_only_looks_changes_nothing_and_is_refused_while_the_journal_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let mut writing = DirStore::open(dir.path()).unwrap();
        drop(writing.create(1, 1 << 16).unwrap());
        let refused = DirStore::open_read_only(dir.path());
        assert!(matches!(refused, Err(JournalError::InUse(_))));
        drop(writing);
        let mut looking = DirStore::open_read_only(dir.path()).unwrap();
        assert!(looking.create(2, 1 << 16).is_err());
        assert!(looking.remove(1).is_err());
        assert_eq!(looking.list().unwrap(), [1]);
        let mut segment = looking.open(1).unwrap();
        let mut page = AlignedBuffer::new(PAGE_BYTES);
        segment.read_at(0, page.as_mut()).unwrap();
        assert!(segment.write_at(0, page.as_slice()).is_err());
        let absent = dir.path().join("absent");
        assert!(DirStore::open_read_only(&absent).is_err() && !absent.exists());
    }

    #[test]
    fn a_segment_that_cannot_be_preallocated_leaves_no_file_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = DirStore::open(dir.path()).unwrap();
        assert!(store.create(1, i64::MAX as u64 & !4095).is_err());
        assert!(store.list().unwrap().is_empty());
        assert!(store.create(1, 1 << 16).is_ok());
    }

    #[test]
    fn a_segment_replaced_by_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = DirStore::open(dir.path()).unwrap();
        drop(store.create(1, 1 << 16).unwrap());
        let elsewhere = dir.path().join("elsewhere");
        std::fs::rename(dir.path().join(name_of(1)), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(name_of(1))).unwrap();
        assert!(store.open(1).is_err());
        assert!(store.create(1, 1 << 16).is_err());
    }

    #[test]
    fn what_lies_past_the_end_of_a_cut_file_reads_as_zeroes() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = DirStore::open(dir.path()).unwrap();
        let mut segment = store.create(1, 1 << 16).unwrap();
        let mut page = AlignedBuffer::new(2 * PAGE_BYTES);
        page.as_mut().fill(7);
        segment.write_at(0, page.as_slice()).unwrap();
        segment.sync().unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join(name_of(1)))
            .unwrap()
            .set_len(5000)
            .unwrap();
        let mut read = AlignedBuffer::new(3 * PAGE_BYTES);
        segment.read_at(0, read.as_mut()).unwrap();
        assert!(read.as_slice()[..5000].iter().all(|byte| *byte == 7));
        assert!(read.as_slice()[5000..].iter().all(|byte| *byte == 0));
    }
}
