//! Waking a queue thread from outside: it sleeps in its io_uring and polls this event there.

use crate::ranges::Wake;
use rustix::event::EventfdFlags;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// The door bell of one queue thread.
#[derive(Debug)]
pub(super) struct Waker {
    event: OwnedFd,
    /// Tags whose range was granted since the queue looked last.
    granted: Mutex<Vec<u16>>,
}

impl Waker {
    /// A silent bell.
    pub(super) fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event,
            granted: Mutex::default(),
        })
    }

    /// Rings.
    pub(super) fn wake(&self) {
        // The only failure is a full counter, and then it rings already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Silences the bell; whether it rang.
    pub(super) fn drain(&self) -> bool {
        rustix::io::read(&self.event, &mut [0_u8; 8]).is_ok()
    }

    /// Moves the tags whose range was granted into `tags`.
    pub(super) fn take_granted(&self, tags: &mut Vec<u16>) {
        tags.append(&mut self.granted.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Wake for Waker {
    fn granted(&self, token: u64) {
        let tag = u16::try_from(token).expect("queues admit with a tag");
        self.granted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(tag);
        self.wake();
    }
}
