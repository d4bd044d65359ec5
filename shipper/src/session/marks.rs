//! Time marks: strictly increasing with stamps, and above every heartbeat before them.
//!
//! A heartbeat promises that every record above its claim cursor has a later mark than its clock.
//! The promise is a *floor* for the marks of those records. Floors outlive a session, so that
//! records numbered again get the marks they had; they are dropped once their cursor is durable,
//! because the receiver's last mark then covers them. There is a bound on floors; at it the last
//! heartbeat is repeated, which promises nothing new.

use std::collections::VecDeque;
use wire::control::Heartbeat;
use wire::{Stamp, TimeMark};

/// Heartbeats whose promise is still needed.
pub(super) const FLOORS_MAX: usize = 256;

/// Numbers records and heartbeats of one stream.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The mark of the record numbered last.
    last: TimeMark,
    /// Ascending in both fields.
    floors: VecDeque<Heartbeat>,
    /// The heartbeat given last.
    beat: Heartbeat,
}

impl Marks {
    /// Numbering goes on behind a record with mark `last`.
    pub(super) fn restart(&mut self, last: TimeMark) {
        self.last = last;
    }

    /// The mark of the next record, which noted `noted` when it was claimed.
    pub(super) fn number(&mut self, stamp: Stamp, noted: TimeMark) -> TimeMark {
        let below = self.floors.partition_point(|beat| beat.captured < stamp);
        let floor = below.checked_sub(1).and_then(|at| self.floors.get(at));
        let floor = floor.map_or(TimeMark(0), |beat| beat.clock);
        self.last = noted.lifted_above(self.last.max(floor));
        self.last
    }

    /// A heartbeat for a clock and the claim cursor read after it.
    pub(super) fn beat(&mut self, wall: TimeMark, captured: Stamp) -> Heartbeat {
        let is_newest = |beat: &Heartbeat| beat.captured == captured;
        if !self.floors.back().is_some_and(is_newest) && self.floors.len() >= FLOORS_MAX {
            return self.beat;
        }
        let beat = Heartbeat {
            clock: wall.lifted_above(self.last.max(self.beat.clock)),
            captured: captured.max(self.beat.captured),
        };
        match self.floors.back_mut() {
            Some(newest) if newest.captured == beat.captured => *newest = beat,
            _ => self.floors.push_back(beat),
        }
        self.beat = beat;
        beat
    }

    /// The heartbeat given last; all zero, which promises nothing, when there was none.
    pub(super) fn last_beat(&self) -> Heartbeat {
        self.beat
    }

    /// Every record up to `durable` has arrived for good, with its mark.
    pub(super) fn forget_below(&mut self, durable: Stamp) {
        while self
            .floors
            .front()
            .is_some_and(|beat| beat.captured < durable)
        {
            self.floors.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(marks: &mut Marks, stamp: u64, noted: u64) -> u64 {
        marks.number(Stamp(stamp), TimeMark(noted)).0
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_still_gives_rising_marks() {
        let mut marks = Marks::default();
        let given: Vec<u64> = [100, 100, 40, 200, 0]
            .into_iter()
            .enumerate()
            .map(|(index, noted)| at(&mut marks, index as u64 + 1, noted))
            .collect();
        assert_eq!(given, [100, 101, 102, 200, 201]);
    }

    #[test]
    fn a_record_claimed_after_a_heartbeat_lies_above_it_though_its_clock_was_read_before() {
        let mut marks = Marks::default();
        at(&mut marks, 1, 100);
        let beat = marks.beat(TimeMark(500), Stamp(2));
        assert_eq!((beat.clock, beat.captured), (TimeMark(500), Stamp(2)));
        assert_eq!(at(&mut marks, 2, 120), 120, "claimed before the heartbeat");
        assert_eq!(at(&mut marks, 3, 499), 501, "claimed after it");
    }

    #[test]
    fn records_numbered_again_get_the_same_marks() {
        let mut marks = Marks::default();
        let mut first = Vec::new();
        for stamp in 1..=9 {
            first.push(at(&mut marks, stamp, 100 + stamp % 3));
            if stamp % 3 == 0 {
                marks.beat(TimeMark(100 + 10 * stamp), Stamp(stamp));
            }
        }
        marks.forget_below(Stamp(4));
        marks.restart(TimeMark(first[3]));
        for stamp in 5..=9 {
            let again = at(&mut marks, stamp, 100 + stamp % 3);
            assert_eq!(again, first[stamp as usize - 1], "record {stamp}");
        }
    }

    #[test]
    fn heartbeats_without_an_end_repeat_the_last_promise_instead_of_growing() {
        let mut marks = Marks::default();
        for beat in 1..=3 * FLOORS_MAX as u64 {
            marks.beat(TimeMark(beat * 10), Stamp(beat));
        }
        assert_eq!(marks.floors.len(), FLOORS_MAX);
        assert_eq!(marks.beat.captured, Stamp(FLOORS_MAX as u64));
        marks.forget_below(Stamp(10));
        let next = marks.beat(TimeMark(1), Stamp(9999));
        assert_eq!(next.captured, Stamp(9999));
        assert!(next.clock > TimeMark(10 * FLOORS_MAX as u64));
    }
}
