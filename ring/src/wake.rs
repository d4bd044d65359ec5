//! Waking a shipper that sleeps, without a system call per write.
//!
//! The shipper says in its page that it sleeps, then looks at the ring once more; the tap publishes,
//! then looks at the page. A full fence on either side between the two makes it impossible that
//! both miss each other.
//!
//! The wake travels through a pipe whose write end never leaves the tap. An eventfd would be one
//! object shared with the shipper, its non-blocking flag included: a hostile shipper could clear
//! it, fill the counter and make the tap's next write block (P1).

use crate::layout::SLEEPING_WORD;
use crate::map::PageMap;
use crate::sync::{Ordering, fence};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Most bytes taken from the pipe by one drain; it holds few, since a wake clears the flag.
const DRAIN_BYTES_MAX: usize = 4096;

/// The tap's end: wakes the shipper if it sleeps.
#[derive(Debug)]
pub(crate) struct Waker {
    write: OwnedFd,
    /// Kept so that the pipe has a reader also between two shippers.
    read: OwnedFd,
}

/// The shipper's end: becomes readable when the tap has something new and the shipper sleeps.
#[derive(Debug)]
pub struct WakeFd {
    read: OwnedFd,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { write, read })
    }

    /// Wakes the consumer if its page says that it sleeps. Everything published before is seen.
    pub(crate) fn wake(&self, page: &PageMap) {
        fence(Ordering::SeqCst);
        let sleeping = page.word(SLEEPING_WORD);
        if sleeping.load(Ordering::Relaxed) != 0 && sleeping.swap(0, Ordering::AcqRel) != 0 {
            // A full pipe is a wake that was not taken yet: nothing is lost. Other errors cannot
            // be: the tap holds both ends.
            let _ = rustix::io::write(&self.write, &[1]);
        }
    }

    /// The end for the shipper.
    pub(crate) fn read_end(&self) -> &OwnedFd {
        &self.read
    }
}

impl WakeFd {
    pub(crate) fn new(read: OwnedFd) -> Self {
        Self { read }
    }

    /// Takes all wakes that have arrived; true if there was one. Never blocks.
    pub fn drain(&self) -> io::Result<bool> {
        let mut woken = false;
        let mut bytes = [0; 64];
        for _ in 0..DRAIN_BYTES_MAX / bytes.len() {
            match rustix::io::read(&self.read, &mut bytes) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(_) => woken = true,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(woken)
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl AsRawFd for WakeFd {
    fn as_raw_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }
}

/// Says in the page that the consumer sleeps; it must look at the ring again before it does.
pub(crate) fn declare_sleep(page: &PageMap) {
    page.word(SLEEPING_WORD).store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Takes the declaration back.
pub(crate) fn cancel_sleep(page: &PageMap) {
    page.word(SLEEPING_WORD).store(0, Ordering::Relaxed);
}
