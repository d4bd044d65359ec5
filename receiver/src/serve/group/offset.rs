//! Clock offset: how far a source's clock is from ours, by its heartbeats. Pure.
//!
//! A heartbeat says what its clock was when it set out. It was on its way for a time nobody knows,
//! so each makes the source look slower than it is; of the last ones the fastest counts.

use std::collections::VecDeque;
use wire::TimeMark;

/// Heartbeats that are looked at.
const BEATS_MAX: usize = 16;

/// Offset of a source's clock.
#[derive(Debug, Default)]
pub(super) struct ClockOffset {
    /// Its clock minus ours, in nanoseconds, with the way of the heartbeat subtracted.
    beats_ns: VecDeque<i128>,
}

impl ClockOffset {
    /// A heartbeat that set out at `clock` arrives at `now`.
    pub(super) fn note(&mut self, clock: TimeMark, now: TimeMark) {
        if self.beats_ns.len() >= BEATS_MAX {
            self.beats_ns.pop_front();
        }
        let ahead_ns = i128::from(clock.0) - i128::from(now.0);
        self.beats_ns.push_back(ahead_ns);
    }

    /// Its clock minus ours; none before the first heartbeat.
    pub(super) fn seconds(&self) -> Option<f64> {
        let ahead_ns = self.beats_ns.iter().max()?;
        Some(*ahead_ns as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_last_heartbeats_the_one_that_was_fastest_counts() {
        let mut offset = ClockOffset::default();
        assert_eq!(offset.seconds(), None);
        let second = 1_000_000_000;
        // Two seconds ahead, on its way for 1 to 5 s.
        for (beat, way) in [(1, 5), (2, 1), (3, 4)] {
            let sent = beat * 100 * second;
            offset.note(TimeMark(sent + 2 * second), TimeMark(sent + way * second));
        }
        assert_eq!(offset.seconds(), Some(1.0));
        for beat in 10..10 + BEATS_MAX as u64 {
            let sent = beat * 100 * second;
            offset.note(TimeMark(sent), TimeMark(sent + 3 * second));
        }
        assert_eq!(offset.seconds(), Some(-3.0), "a clock that was set");
    }
}
