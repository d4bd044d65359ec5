//! Opening a ring from the three descriptors the tap hands over.

use super::Consumer;
use crate::handoff::ConsumerFds;
use crate::layout::{HEADER_WORDS, Header, HeaderError, PAGE_BYTES};
use crate::map::{PageMap, ReadMap};
use crate::sync::{Ordering, fence};
use crate::wake::{self, WakeFd};
use rustix::fs::{self, OFlags};
use std::array;
use std::io;
use std::os::fd::AsFd;

/// Why descriptors are not a ring.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A system call failed.
    #[error("cannot map the ring: {0}")]
    Io(#[from] io::Error),
    /// The file is not a ring.
    #[error("the file handed over is not a ring; are tap and shipper of one release?")]
    NotARing,
    /// The layout is another release's.
    #[error("ring layout {0} is not understood by this build (it knows 1); use one release")]
    UnknownVersion(u64),
    /// The file's size is not the one its header asks for.
    #[error("ring file has {found_bytes} bytes and a header that does not fit it; restart the tap")]
    BadSize {
        /// Size of the file.
        found_bytes: u64,
    },
}

impl Consumer {
    /// Maps the ring read-only and the page writable, and checks the header against the file.
    ///
    /// The page keeps what an earlier shipper wrote to it, save that nobody sleeps.
    pub fn open(fds: ConsumerFds) -> Result<Self, OpenError> {
        let found_bytes = size_of_file(&fds.ring)?;
        if found_bytes < PAGE_BYTES || size_of_file(&fds.page)? != PAGE_BYTES {
            return Err(OpenError::BadSize { found_bytes });
        }
        let map = ReadMap::new(&fds.ring, found_bytes)?;
        let words: [u64; HEADER_WORDS] = array::from_fn(|index| map.load(index));
        fence(Ordering::Acquire);
        let (header, layout) = Header::parse(words).map_err(|error| match error {
            HeaderError::NotARing => OpenError::NotARing,
            HeaderError::UnknownVersion(version) => OpenError::UnknownVersion(version),
            HeaderError::BadSize => OpenError::BadSize { found_bytes },
        })?;
        if layout.total_bytes() != found_bytes {
            return Err(OpenError::BadSize { found_bytes });
        }
        let page = PageMap::new(&fds.page)?;
        wake::cancel_sleep(&page);
        // The flag belongs to the read end, which an earlier shipper has had before.
        fs::fcntl_setfl(&fds.wake, OFlags::NONBLOCK).map_err(io::Error::from)?;
        WakeFd::new(fds.wake.as_fd().try_clone_to_owned()?).drain()?;
        Ok(Self {
            map,
            page,
            wake: fds.wake,
            header,
            layout,
        })
    }
}

fn size_of_file(fd: impl AsFd) -> io::Result<u64> {
    let stat = fs::fstat(fd)?;
    Ok(stat.st_size as u64)
}
