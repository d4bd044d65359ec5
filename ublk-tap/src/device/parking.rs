//! Writes that wait for room in the ring, in their order.
//!
//! One parking per group: its volumes and queues share the ring. Only the first in line may claim,
//! so a large write is not starved by small ones; whoever leaves wakes the next. While somebody is
//! parked, new writes line up behind him. Reads and flushes never come here (P6), but they need a
//! tag of their queue: whether writes that wait leave few of those is known here too.

use super::wake::Waker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The line of one group.
#[derive(Default)]
pub struct Parking {
    /// Length of the line, for a glance without the lock.
    length: AtomicUsize,
    /// Queues most of whose tags are held by writes that wait.
    crowded_queues: AtomicUsize,
    line: Mutex<Line>,
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

#[derive(Default)]
struct Line {
    next: u64,
    parked: VecDeque<Parked>,
}

struct Parked {
    ticket: Ticket,
    since: Instant,
    waker: Arc<Waker>,
}

impl Parking {
    /// An empty line.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many writes wait.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Acquire)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since when the one that waits longest does.
    pub fn oldest_since(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        self.line().parked.front().map(|parked| parked.since)
    }

    /// The same, while a queue has few tags left for its reads.
    pub fn crowded_since(&self) -> Option<Instant> {
        let is_crowded = self.crowded_queues.load(Ordering::Acquire) > 0;
        self.oldest_since().filter(|_| is_crowded)
    }

    /// A queue became crowded, or is so no longer.
    pub(super) fn crowd(&self, is_crowded: bool) {
        let before = if is_crowded {
            self.crowded_queues.fetch_add(1, Ordering::AcqRel)
        } else {
            self.crowded_queues.fetch_sub(1, Ordering::AcqRel)
        };
        assert!(is_crowded || before > 0, "said in turn");
    }

    /// Wakes the first in line. To be called when the ring has room again, or was closed.
    pub fn kick(&self) {
        if !self.is_empty() {
            self.line().wake_first();
        }
    }

    /// Lines up; `waker` is woken when this is the first in line and there may be room.
    pub(super) fn park(&self, since: Instant, waker: &Arc<Waker>) -> Ticket {
        let mut line = self.line();
        let ticket = Ticket(line.next);
        line.next += 1;
        line.parked.push_back(Parked {
            ticket,
            since,
            waker: Arc::clone(waker),
        });
        self.length.store(line.parked.len(), Ordering::Release);
        ticket
    }

    /// Whether it is this one's turn.
    pub(super) fn is_first(&self, ticket: Ticket) -> bool {
        self.line()
            .parked
            .front()
            .is_some_and(|first| first.ticket == ticket)
    }

    /// Leaves the line from its front and wakes the next.
    pub(super) fn leave(&self, ticket: Ticket) {
        let mut line = self.line();
        let first = line.parked.pop_front();
        assert_eq!(
            first.map(|first| first.ticket),
            Some(ticket),
            "only the first leaves"
        );
        self.length.store(line.parked.len(), Ordering::Release);
        line.wake_first();
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn wake_first(&self) {
        if let Some(first) = self.parked.front() {
            first.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_in_line_may_claim_and_whoever_leaves_wakes_the_next() {
        let (parking, now) = (Parking::new(), Instant::now());
        let wakers = [(); 2].map(|()| Arc::new(Waker::new().unwrap()));
        let first = parking.park(now, &wakers[0]);
        let second = parking.park(now, &wakers[1]);
        assert!(parking.is_first(first) && !parking.is_first(second));
        assert_eq!((parking.len(), parking.oldest_since()), (2, Some(now)));
        parking.kick();
        assert!(wakers[0].drain() && !wakers[1].drain());
        parking.leave(first);
        assert!(wakers[1].drain() && parking.is_first(second));
        parking.leave(second);
        assert!(parking.is_empty() && parking.oldest_since().is_none());
    }
}
