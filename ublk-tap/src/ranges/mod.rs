//! Which byte ranges of a volume are being changed right now (P3).
//!
//! Of two writes, discards, zeroes or copies in flight that overlap, the later one starts after the
//! earlier one ended. Everything that changes the disk or reads it into the stream is admitted here
//! first and keeps its range until the disk has answered. One table per volume, shared by its queue
//! threads and its copier.
//!
//! Contract of fairness: an admission waits for every earlier one it overlaps, held or waiting, and
//! for nothing else. So nobody is overtaken inside a range, nobody starves, and since waits only
//! point backwards in admission order there is no deadlock between admissions. A holder must not
//! wait for an admission it made later.
//!
//! This module does not know disks, queues or the ring.

mod blocking;
mod shard;
mod table;
#[cfg(test)]
mod tests;

pub use blocking::HeldRange;
pub use table::RangeTable;

/// Bytes `start..end` of a volume; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    start_bytes: u64,
    end_bytes: u64,
}

/// A place in the table: the right to change a range, once admitted.
///
/// Whoever has one gives it back with [`RangeTable::release`]; dropping it blocks the range for the
/// life of the table.
#[must_use = "a range that is never released blocks all later writes to it"]
#[derive(Debug, PartialEq, Eq)]
pub struct Hold {
    id: u64,
    range: Range,
}

/// Answer to an admission.
#[must_use]
#[derive(Debug)]
pub enum Admission {
    /// The range is held: go on.
    Held(Hold),
    /// Others are before: the waiter is told when the range is held.
    Waiting(Hold),
}

/// Told that a waiting range is now held; called on the thread that released the last blocker.
pub trait Wake: Send + Sync {
    /// `token` is what the admission was made with.
    fn granted(&self, token: u64);
}

impl Range {
    /// The bytes from `start_bytes` up to but without `end_bytes`.
    pub fn new(start_bytes: u64, end_bytes: u64) -> Self {
        assert!(start_bytes < end_bytes, "a range is never empty");
        Self {
            start_bytes,
            end_bytes,
        }
    }

    /// The `length_bytes` bytes from `start_bytes`.
    pub fn of_length(start_bytes: u64, length_bytes: u64) -> Self {
        assert!(
            length_bytes <= u64::MAX - start_bytes,
            "a range ends inside the address space"
        );
        Self::new(start_bytes, start_bytes + length_bytes)
    }

    /// First byte.
    pub fn start_bytes(self) -> u64 {
        self.start_bytes
    }

    /// First byte after the range.
    pub fn end_bytes(self) -> u64 {
        self.end_bytes
    }

    /// Number of bytes.
    pub fn length_bytes(self) -> u64 {
        self.end_bytes - self.start_bytes
    }

    /// Whether the two have a byte in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.start_bytes < other.end_bytes && other.start_bytes < self.end_bytes
    }
}

impl Hold {
    /// The range this is the right to.
    pub fn range(&self) -> Range {
        self.range
    }
}
