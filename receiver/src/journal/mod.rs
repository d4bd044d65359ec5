//! Journal: the receiver's durable store of records in order of arrival.
//!
//! Owned by one writer thread. Everything queued goes out as one append, padded to whole pages, and
//! one sync; only then is it called durable. Formats are `wire::journal` and `docs/format.md`.
//!
//! ```text
//! Entry -> [queue, bounded by its users] -> Writer (one thread) -> Store (segment files)
//!                                              |  durable, with its place
//!                                              v
//!                                           the sink given at start
//! start:   Store -> scan (indexes of sealed segments, the open one) -> Found entries, damage, tail -> Writer
//! apply:   RecordAt -> Reader -> record
//! ```
//!
//! Promises: what was called durable is there after any crash, in the order it was appended
//! (P10); the first failed write or sync is final, nothing is called durable after it; bytes that
//! are stale, torn or misplaced are never taken for an entry, and damage before the tail is
//! reported (P9); space has a bound, and a full journal refuses records but not the settle marks
//! that free it (P11, P12).
//!
//! Does not: know what a record means, order records, decide what is applied.

mod checkpoint;
mod dir;
mod entry;
mod error;
mod group;
mod index;
mod ledger;
mod reader;
mod scan;
mod segment;
mod store;
mod thread;
mod writer;

#[cfg(test)]
mod tests;

pub use dir::DirStore;
pub use entry::{Durable, Entry};
pub use error::{Damage, DamageKind, JournalError};
pub use reader::Reader;
pub use scan::{Found, Recovered, Replay, examine, is_there, recover};
pub use store::{SegmentFile, Store};
pub use thread::{Batch, Facts, Journal, Sink};
pub use writer::{Committed, Writer};

use wire::journal::{
    ENTRY_BODY_BYTES_MAX, GROUP_ALIGN_BYTES, GROUP_BYTES_MAX, SEGMENT_HEADER_BYTES, SEGMENTS_MAX,
};

/// Size of a segment where the bound on the journal allows it, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest segment that takes the largest group, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 20;
/// A journal has room for this many segments at least: one written, one ready, two in use.
pub const SEGMENTS_MIN: u64 = 4;
/// Smallest bound on a journal, in bytes.
pub const JOURNAL_BYTES_MIN: u64 = 256 << 20;
/// Largest bound on a journal, in bytes: as many segments as a list of those in use may name.
pub const JOURNAL_BYTES_MAX: u64 = SEGMENTS_MAX as u64 * SEGMENT_BYTES_DEFAULT;
/// A new journal begins with room for this many segments, where they need not be larger.
const SEGMENTS_WANTED: u64 = 8;
/// End of every segment that only `freed` entries may use, and the index, in bytes.
const FREED_RESERVE_BYTES: u64 = GROUP_ALIGN_BYTES as u64;
/// A segment in the list of those in use: its number, that after its last group, its index.
const LIVE_BYTES: usize = 20;

const _: () = assert!(SEGMENT_HEADER_BYTES + GROUP_BYTES_MAX as u64 <= SEGMENT_BYTES_MIN);
const _: () = assert!(SEGMENTS_MIN <= SEGMENTS_WANTED);
const _: () = assert!(SEGMENTS_WANTED * SEGMENT_BYTES_MIN <= JOURNAL_BYTES_MIN);
const _: () = assert!(JOURNAL_BYTES_MIN < JOURNAL_BYTES_MAX);
// The list is a u16 of a count, and one entry.
const _: () = assert!(SEGMENTS_MAX <= u16::MAX as usize);
const _: () = assert!(2 + SEGMENTS_MAX * LIVE_BYTES <= ENTRY_BODY_BYTES_MAX as usize);

/// How large a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a new journal's segments; an existing one keeps its own.
    pub segment_bytes: u64,
    /// Bound on all segments together.
    pub bytes_max: u64,
}

impl Limits {
    /// Limits for a journal of at most `bytes_max`: segments an eighth of it, within their bounds.
    pub fn for_bytes(bytes_max: u64) -> Self {
        let bytes_max = bytes_max.clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX);
        let eighth = (bytes_max / SEGMENTS_WANTED + 1).next_power_of_two() / 2;
        let segment_bytes = eighth.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_DEFAULT);
        Self {
            segment_bytes,
            bytes_max,
        }
    }

    /// How many segments fit the bound, and the list of those in use.
    fn segments_max(&self, segment_bytes: u64) -> u64 {
        let fitting = self.bytes_max / segment_bytes;
        fitting.clamp(SEGMENTS_MIN, SEGMENTS_MAX as u64)
    }
}
