//! The clients of a volume: how many, who they are, what they have done.

use crate::device::counters::{Counters, Stats};
use crate::device::wake::Waker;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Everybody who is connected.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// Nobody new is let in.
    is_shut: AtomicBool,
    /// The volume is going away.
    ends: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    guests: BTreeMap<u64, Arc<Guest>>,
    /// What those did who are gone.
    gone: Stats,
}

/// One who is connected.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) socket: UnixStream,
    pub(super) pid: i32,
    pub(super) waker: Arc<Waker>,
    pub(super) counters: Arc<Counters>,
    /// It has said what it wants.
    is_served: AtomicBool,
}

/// A place among the clients, as long as this lives.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Arc<Roster>,
    number: u64,
    pub(super) guest: Arc<Guest>,
}

/// Most clients of a volume at once.
pub(super) const GUESTS_MAX: usize = 16;

impl Roster {
    /// A place for a client, if there is one.
    pub(super) fn enter(self: &Arc<Self>, guest: Guest) -> Option<Seat> {
        let guest = Arc::new(guest);
        let mut inner = self.inner();
        if self.is_shut() || inner.guests.len() >= GUESTS_MAX {
            return None;
        }
        let number = inner.next;
        inner.next += 1;
        inner.guests.insert(number, Arc::clone(&guest));
        Some(Seat {
            roster: Arc::clone(self),
            number,
            guest,
        })
    }

    /// How many are connected.
    pub(super) fn len(&self) -> usize {
        self.inner().guests.len()
    }

    /// What all have done.
    pub(super) fn stats(&self) -> Stats {
        let inner = self.inner();
        let guests = inner.guests.values().map(|guest| &*guest.counters);
        Stats::of(guests).plus(&inner.gone)
    }

    /// The process of one who has not hung up; zero if it has no number here.
    pub(super) fn anybody(&self) -> Option<i32> {
        let inner = self.inner();
        let mut here = inner.guests.values().filter(|guest| !guest.has_hung_up());
        here.next().map(|guest| guest.pid)
    }

    /// Lets nobody new in, or everybody again.
    pub(super) fn shut(&self, is_shut: bool) {
        // With the lock: whoever is let in is seen by who looks after this.
        let _inner = self.inner();
        self.is_shut.store(is_shut, Ordering::Release);
    }

    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    /// Tells everybody that the volume is going away.
    pub(super) fn end(&self) {
        self.shut(true);
        self.ends.store(true, Ordering::Release);
        for guest in self.inner().guests.values() {
            guest.waker.wake();
            if !guest.is_served.load(Ordering::Acquire) {
                guest.hang_up();
            }
        }
    }

    /// Set once the volume is going away.
    pub(super) fn ends(&self) -> &AtomicBool {
        &self.ends
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    pub(super) fn new(socket: UnixStream, pid: i32) -> std::io::Result<Self> {
        Ok(Self {
            socket,
            pid,
            waker: Arc::new(Waker::new()?),
            counters: Arc::default(),
            is_served: AtomicBool::new(false),
        })
    }

    /// From here on requests are awaited; they are finished before the connection ends.
    pub(super) fn is_served(&self) {
        self.is_served.store(true, Ordering::Release);
    }

    /// Ends the connection.
    pub(super) fn hang_up(&self) {
        // It may have ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn has_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = Timespec::default();
        let found = poll(&mut polled, Some(&now));
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        found.is_ok() && polled[0].revents().intersects(gone)
    }
}

impl Seat {
    /// Set once the volume is going away.
    pub(super) fn ends(&self) -> &AtomicBool {
        &self.roster.ends
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.roster.inner();
        inner.guests.remove(&self.number);
        let done = Stats::of(std::iter::once(&*self.guest.counters));
        inner.gone = inner.gone.plus(&done);
    }
}
