//! Places in a stream and the lives they belong to.

use std::fmt;

/// Place of a record in a stream: contiguous, fixed by the tap when it claims the slot.
///
/// The first record of an incarnation has stamp 1; [`Stamp::ZERO`] is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

/// Time of a record at its source, in nanoseconds since the Unix epoch.
///
/// A label for people and for cuts over several sources: strictly increasing with stamps inside a
/// stream, never used to order records of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeMark(pub u64);

/// One life of a ring: a counter, persisted before use, and a random id.
///
/// The id is inside every record checksum, so nothing of two incarnations is ever joined (P8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// Raised by one for every new ring of the same group and source.
    pub counter: u64,
    /// Random, so that a restored state file cannot repeat a life unnoticed.
    pub id: u128,
}

/// Who may write a group: raised at promote; older, or equal with another lineage, is refused (P13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation {
    /// Raised by one at every promote.
    pub counter: u64,
    /// Random id of this history.
    pub lineage: u128,
}

impl Stamp {
    /// The place before the first record.
    pub const ZERO: Self = Self(0);

    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        assert!(self.0 < u64::MAX, "a stream ends long before its stamps do");
        Self(self.0 + 1)
    }

    /// The place before this one; `ZERO` stays `ZERO`.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many records lie after `earlier` up to and including this one; zero if none.
    pub fn records_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl TimeMark {
    /// This mark, lifted above `previous` if it does not already lie there.
    ///
    /// Applied in stamp order it makes marks strictly increasing whatever the clock does, and it
    /// gives the same marks again when a stream is numbered anew from the same place.
    #[must_use]
    pub fn lifted_above(self, previous: Self) -> Self {
        Self(self.0.max(previous.0.saturating_add(1)))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.counter, self.id >> 96)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.counter, self.lineage >> 96)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_strictly_increase_when_the_clock_stands_or_steps_back() {
        let mut last = TimeMark(0);
        for clock in [5, 5, 3, 9, 0] {
            let mark = TimeMark(clock).lifted_above(last);
            assert!(mark > last);
            last = mark;
        }
        assert_eq!(last, TimeMark(10));
    }
}
