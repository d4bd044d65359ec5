//! Waiting until everything that has completed is safe. Pure.
//!
//! A barrier takes its stamp at the first moment at which every volume is whole at the receiver:
//! before, no stamp would be recoverable. All that completed before the barrier was asked for lies
//! below it, since a completed write has its stamp (P2).

use crate::control::Settling;
use std::time::{Duration, Instant};
use wire::Stamp;

/// The barriers of a group; `T` is whom to answer.
#[derive(Debug)]
pub struct Barriers<T> {
    waiting: Vec<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    asker: T,
    wait: Settling,
    stamp: Option<Stamp>,
    /// Writes that had failed when the stamp was taken.
    faults: u64,
    asked: Instant,
    deadline: Instant,
}

/// What barriers see each turn.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Whether every volume is whole at the receiver.
    pub is_whole: bool,
    /// Whether the stream is given up.
    pub is_broken: bool,
    /// How many writes have failed, at least of those at or below `acked`.
    pub faults: u64,
    /// Whether the ranges of all of them are in the stream again, at or below `captured`.
    pub is_certain: bool,
    /// Newest stamp.
    pub captured: Stamp,
    /// Durable at the receiver, as checked.
    pub acked: Stamp,
    /// Applied, as the receiver says.
    pub applied: Stamp,
}

/// How a barrier ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything up to here is safe.
    Reached(Stamp, Duration),
    /// Not in time; the stamp if it has one.
    Late(Settling, Option<Stamp>, Duration),
}

impl<T> Barriers<T> {
    /// None.
    pub fn new() -> Self {
        Self {
            waiting: Vec::new(),
        }
    }

    /// Somebody wants to wait.
    pub fn ask(&mut self, asker: T, wait: Settling, now: Instant, within: Duration) {
        let deadline = now + within;
        self.waiting.push(Waiting {
            asker,
            wait,
            stamp: None,
            faults: 0,
            asked: now,
            deadline,
        });
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets those who wait no longer.
    pub fn retain(&mut self, still_waits: impl Fn(&T) -> bool) {
        self.waiting.retain(|waiting| still_waits(&waiting.asker));
    }

    /// Those whose wait is over.
    pub fn step(&mut self, now: Instant, view: View) -> Vec<(T, Outcome)> {
        let mut over = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match waiting.look(now, view) {
                Some(outcome) => over.push((waiting.asker, outcome)),
                None => self.waiting.push(waiting),
            }
        }
        over
    }
}

impl<T> Default for Barriers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Waiting<T> {
    fn look(&mut self, now: Instant, view: View) -> Option<Outcome> {
        if !view.is_certain || self.faults != view.faults {
            // A write below the stamp may be one of those that failed: the records of what the
            // disk holds instead lie above it, and are to be covered too.
            self.stamp = None;
        }
        if self.stamp.is_none() && view.is_whole && view.is_certain {
            self.stamp = Some(view.captured);
            self.faults = view.faults;
        }
        let safe = match self.wait {
            Settling::Durable => view.acked,
            Settling::Applied => view.acked.min(view.applied),
        };
        // A stream given up later still ends above the stamp; a copy begun later does not count
        // before it is whole.
        let counts = view.is_whole || view.is_broken;
        let passed = now - self.asked;
        match self.stamp {
            Some(stamp) if counts && safe >= stamp => Some(Outcome::Reached(stamp, passed)),
            stamp if now >= self.deadline => Some(Outcome::Late(self.wait, stamp, passed)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(captured: u64, acked: u64, applied: u64) -> View {
        View {
            is_whole: true,
            is_broken: false,
            faults: 0,
            is_certain: true,
            captured: Stamp(captured),
            acked: Stamp(acked),
            applied: Stamp(applied),
        }
    }

    fn one(wait: Settling) -> (Barriers<u8>, Instant) {
        let now = Instant::now();
        let mut barriers = Barriers::new();
        barriers.ask(1, wait, now, Duration::from_secs(9));
        (barriers, now)
    }

    #[test]
    fn a_barrier_ends_when_what_was_captured_is_durable_not_what_came_later() {
        let (mut barriers, now) = one(Settling::Durable);
        assert!(barriers.step(now, view(10, 7, 3)).is_empty());
        assert!(barriers.step(now, view(20, 9, 3)).is_empty());
        let over = barriers.step(now, view(30, 10, 3));
        assert_eq!(over, [(1, Outcome::Reached(Stamp(10), Duration::ZERO))]);
        assert!(barriers.is_empty());
    }

    #[test]
    fn an_applied_barrier_needs_both() {
        let (mut barriers, now) = one(Settling::Applied);
        assert!(barriers.step(now, view(10, 10, 9)).is_empty());
        assert!(barriers.step(now, view(10, 9, 10)).is_empty());
        assert_eq!(barriers.step(now, view(10, 10, 10)).len(), 1);
    }

    #[test]
    fn while_a_volume_is_copied_no_stamp_is_recoverable() {
        let (mut barriers, now) = one(Settling::Durable);
        let copying = View {
            is_whole: false,
            ..view(10, 10, 10)
        };
        assert!(barriers.step(now, copying).is_empty());
        assert!(barriers.step(now, view(12, 10, 10)).is_empty());
        assert_eq!(barriers.step(now, view(12, 12, 10)).len(), 1);
    }

    #[test]
    fn a_stream_given_up_after_the_stamp_was_taken_still_reaches_it() {
        let (mut barriers, now) = one(Settling::Durable);
        assert!(barriers.step(now, view(10, 7, 3)).is_empty());
        let broken = View {
            is_whole: false,
            is_broken: true,
            ..view(15, 12, 3)
        };
        let over = barriers.step(now, broken);
        assert_eq!(over, [(1, Outcome::Reached(Stamp(10), Duration::ZERO))]);
    }

    #[test]
    fn a_write_that_failed_is_read_again_before_a_stamp_counts_and_the_stamp_covers_it() {
        let (mut barriers, now) = one(Settling::Durable);
        assert!(barriers.step(now, view(10, 7, 3)).is_empty());
        let failed = View {
            is_certain: false,
            ..view(10, 10, 10)
        };
        assert!(barriers.step(now, failed).is_empty());
        assert!(
            barriers.step(now, view(11, 10, 10)).is_empty(),
            "what was read again is at 11"
        );
        let over = barriers.step(now, view(12, 11, 10));
        assert_eq!(over, [(1, Outcome::Reached(Stamp(11), Duration::ZERO))]);
    }

    #[test]
    fn a_write_that_failed_and_was_read_again_between_two_looks_moves_the_stamp_too() {
        let (mut barriers, now) = one(Settling::Durable);
        assert!(barriers.step(now, view(10, 7, 3)).is_empty());
        let reread = View {
            faults: 1,
            ..view(11, 10, 10)
        };
        assert!(barriers.step(now, reread).is_empty());
        let durable = View {
            faults: 1,
            ..view(12, 11, 10)
        };
        let over = barriers.step(now, durable);
        assert_eq!(over, [(1, Outcome::Reached(Stamp(11), Duration::ZERO))]);
    }

    #[test]
    fn a_stream_given_up_with_ranges_unread_does_not_reach_a_stamp_before_it() {
        let (mut barriers, now) = one(Settling::Durable);
        assert!(barriers.step(now, view(10, 7, 3)).is_empty());
        let broken = View {
            is_whole: false,
            is_broken: true,
            is_certain: false,
            ..view(15, 12, 3)
        };
        assert!(barriers.step(now, broken).is_empty());
        let closed = View {
            is_certain: true,
            ..broken
        };
        assert!(barriers.step(now, closed).is_empty());
        assert_eq!(barriers.step(now, view(20, 20, 20)).len(), 1);
    }

    #[test]
    fn an_asker_whose_time_is_over_learns_how_far_it_got() {
        let (mut barriers, now) = one(Settling::Durable);
        barriers.ask(2, Settling::Applied, now, Duration::from_secs(99));
        let late = now + Duration::from_secs(9);
        let over = barriers.step(late, view(10, 7, 3));
        let passed = Duration::from_secs(9);
        let expected = Outcome::Late(Settling::Durable, Some(Stamp(10)), passed);
        assert_eq!(over, [(1, expected)]);
        assert!(!barriers.is_empty());
    }
}
