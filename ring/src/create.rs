//! Making a ring: the tmpfs file, the consumer page, the locks on memory, or one clear refusal.
//!
//! Nothing is left behind when it fails. The file is a new one each time: a dead tap's ring may
//! still be mapped by its shipper, so it is unlinked, never cut. All room is allocated and locked
//! here, so that no write of an application can fail later for want of it.

use crate::config::ConfigError;
use crate::layout::{
    ACKED_WORD, CLAIM_WORD, FREED_POSITION_WORD, FREED_STAMP_WORD, Header, Layout, PAGE_BYTES,
    SENT_WORD,
};
use crate::map::{PageMap, TapMap};
use crate::place::ClaimWord;
use crate::sync::Ordering;
use crate::wake::Waker;
use rustix::fs::{self, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Name of the ring file in the group's run directory.
pub(crate) const RING_FILE: &str = "ring";
/// What `statfs` calls a tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Why no ring was made. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The sizes are impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory is on a disk: a ring there could wait for the very device it serves.
    #[error("{dir} is not on a tmpfs; set the run directory to one (such as /run)")]
    NotTmpfs {
        /// The directory.
        dir: PathBuf,
    },
    /// The tmpfs cannot hold the ring.
    #[error("ring needs {wanted} in {dir}, which has {free} free; enlarge it or set ring_bytes")]
    NoSpace {
        /// What the ring needs.
        wanted: Bytes,
        /// What is there.
        free: Bytes,
        /// The directory.
        dir: PathBuf,
    },
    /// The memory may not be locked.
    #[error("ring needs {wanted} of locked memory, the limit is {limit}; raise RLIMIT_MEMLOCK")]
    LockLimit {
        /// What the ring needs.
        wanted: Bytes,
        /// RLIMIT_MEMLOCK of this process.
        limit: Bytes,
    },
    /// A system call failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A size, shown in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// The descriptors a ring keeps open for its shippers.
#[derive(Debug)]
pub(crate) struct RingFiles {
    pub(crate) path: PathBuf,
    pub(crate) read_only: File,
    pub(crate) page: OwnedFd,
}

/// What a new ring is made of.
#[derive(Debug)]
pub(crate) struct RingParts {
    pub(crate) map: TapMap,
    pub(crate) page: PageMap,
    pub(crate) waker: Waker,
    pub(crate) files: RingFiles,
}

/// Removes a half-made ring file.
struct Unfinished<'a> {
    dir: &'a OwnedFd,
    is_done: bool,
}

impl CreateError {
    /// Whether room was missing: memory, tmpfs or the lock limit.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::LockLimit { .. })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = u128::from(self.0) * 10 / (1 << 20);
        write!(f, "{}.{} MiB", tenths / 10, tenths % 10)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            // The reason for the failure is on its way to the caller; this one adds nothing.
            let _ = fs::unlinkat(self.dir, RING_FILE, fs::AtFlags::empty());
        }
    }
}

/// Makes ring file, page and wake pipe, and writes the header.
pub(crate) fn create(dir: &Path, header: Header) -> Result<RingParts, CreateError> {
    let geometry = header.config.geometry()?;
    let layout = Layout::new(geometry, header.config.payload_bytes);
    let path = dir.join(RING_FILE);
    let at = |what: &'static str| {
        let path = path.clone();
        move |errno: Errno| io_error(what, &path, errno.into())
    };
    let dir_fd = open_dir(dir)?;
    let file = new_file(&dir_fd).map_err(at("create"))?;
    let mut unfinished = Unfinished {
        dir: &dir_fd,
        is_done: false,
    };
    allocate(&file, &dir_fd, dir, layout.total_bytes())?;
    let read_only = open_read_only(&dir_fd, &file).map_err(|e| io_error("reopen", &path, e))?;
    let map = TapMap::new(&file, layout).map_err(|e| io_error("map", &path, e))?;
    map.lock()
        .map_err(|e| lock_error(layout.total_bytes(), e, &path))?;
    let (page, page_fd) = make_page(&path)?;
    let waker = make_waker(&path)?;
    write_start(&map, &page, header);
    unfinished.is_done = true;
    Ok(RingParts {
        map,
        page,
        waker,
        files: RingFiles {
            path,
            read_only,
            page: page_fd,
        },
    })
}

/// Opens the directory of a ring, which must be a tmpfs.
pub(crate) fn open_dir(dir: &Path) -> Result<OwnedFd, CreateError> {
    let path = dir.join(RING_FILE);
    let at = |what: &'static str| {
        let path = path.clone();
        move |errno: Errno| io_error(what, &path, errno.into())
    };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir_fd = fs::open(dir, flags, Mode::empty()).map_err(at("open the directory of"))?;
    let stat = fs::fstatfs(&dir_fd).map_err(at("look at the filesystem of"))?;
    if stat.f_type as u64 != TMPFS_MAGIC {
        let dir = dir.to_owned();
        return Err(CreateError::NotTmpfs { dir });
    }
    Ok(dir_fd)
}

/// A new consumer page, mapped and locked.
pub(crate) fn make_page(path: &Path) -> Result<(PageMap, OwnedFd), CreateError> {
    let page_fd = new_page().map_err(|e| io_error("make the consumer page of", path, e))?;
    let page = PageMap::new(&page_fd).map_err(|e| io_error("map the page of", path, e))?;
    page.lock().map_err(|e| lock_error(PAGE_BYTES, e, path))?;
    Ok((page, page_fd))
}

pub(crate) fn make_waker(path: &Path) -> Result<Waker, CreateError> {
    Waker::new().map_err(|e| io_error("make the wake pipe of", path, e))
}

/// Lets a new shipper begin after `stamp`.
pub(crate) fn write_page(page: &PageMap, stamp: u64) {
    page.word(SENT_WORD).store(stamp, Ordering::Relaxed);
    page.word(ACKED_WORD).store(stamp, Ordering::Release);
}

fn new_file(dir: &OwnedFd) -> rustix::io::Result<File> {
    match fs::unlinkat(dir, RING_FILE, fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = fs::openat(dir, RING_FILE, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(fd))
}

fn allocate(file: &File, dir_fd: &OwnedFd, dir: &Path, bytes: u64) -> Result<(), CreateError> {
    let free_bytes = fs::fstatfs(dir_fd).map_or(0, |stat| stat.f_bavail * stat.f_bsize as u64);
    let result = retry_on_intr(|| fs::fallocate(file, FallocateFlags::empty(), 0, bytes));
    match result {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC | Errno::NOMEM | Errno::FBIG) => Err(CreateError::NoSpace {
            wanted: Bytes(bytes),
            free: Bytes(free_bytes),
            dir: dir.to_owned(),
        }),
        Err(errno) => Err(io_error("allocate", &dir.join(RING_FILE), errno.into())),
    }
}

/// A second description of the same file that can only be read: what the shipper gets.
pub(crate) fn open_read_only(dir: &OwnedFd, file: &File) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let read_only = fs::openat(dir, RING_FILE, flags, Mode::empty())?;
    let (ours, theirs) = (fs::fstat(file)?, fs::fstat(&read_only)?);
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) {
        return Err(io::Error::other("another process replaced it"));
    }
    Ok(File::from(read_only))
}

/// A page that nobody can shrink, so touching it is never a bus error. Its memory can be freed by
/// whoever maps it to write (`MADV_REMOVE`, against which there is no seal): the next touch waits for
/// a new page of zeroes, which is then found to be a violation. The filter of the shipper's system
/// calls refuses it.
fn new_page() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let page = fs::memfd_create("ublk-tap-consumer", flags)?;
    retry_on_intr(|| fs::fallocate(&page, FallocateFlags::empty(), 0, PAGE_BYTES))?;
    fs::fcntl_add_seals(&page, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(page)
}

fn write_start(map: &TapMap, page: &PageMap, header: Header) {
    let start = header.origin;
    write_page(page, start.stamp);
    map.word(FREED_STAMP_WORD)
        .store(start.stamp, Ordering::Relaxed);
    map.word(FREED_POSITION_WORD)
        .store(start.position, Ordering::Relaxed);
    let claim = ClaimWord::pack(start, false);
    map.word(CLAIM_WORD).store(claim.0, Ordering::Relaxed);
    for (index, word) in header.to_words().into_iter().enumerate().rev() {
        map.word(index).store(word, Ordering::Release);
    }
}

pub(crate) fn lock_error(bytes: u64, source: io::Error, path: &Path) -> CreateError {
    match Errno::from_io_error(&source) {
        Some(Errno::NOMEM | Errno::PERM | Errno::AGAIN) => CreateError::LockLimit {
            wanted: Bytes(bytes),
            limit: Bytes(getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX)),
        },
        _ => io_error("lock", path, source),
    }
}

pub(crate) fn io_error(what: &'static str, path: &Path, source: io::Error) -> CreateError {
    CreateError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
