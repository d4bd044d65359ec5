//! On-disk formats of the receiver's journal: segments, groups, entries. Pure.
//!
//! Owned by the receiver's journal; `docs/format.md` draws the same bytes and says why. A journal
//! is a row of segment files of equal size. A segment is one header page, then groups. A group is
//! what one append wrote and one sync made durable: it counts as a whole or not at all.
//!
//! ```text
//! segment   | header page | group | group | ... | index group | unused |
//! group     | group header | entry | entry | ... | zeroes to a multiple of 4096 |
//! entry     | entry header | body | zeroes to a multiple of 64 |
//! ```
//!
//! Every header carries the journal's id and its own absolute position inside its checksum, so
//! bytes that are stale, torn, or at the wrong place are never taken for an entry. All fields are
//! little-endian. Parsing is total; nothing here allocates by a length that is not bounded.

mod body;
mod header;
mod history;
mod index;
#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod tests;

pub use body::{LiveSegment, Segments, StreamClose, StreamLost, StreamOpen};
pub use header::{
    EntryHeader, EntryKind, GroupChecksum, GroupHeader, SegmentHeader, body_checksum,
};
pub use history::{BOOKMARK_STREAMS_MAX, Bookmark, Epoch, FOLDED_HEADER_BYTES, Folded};
pub use index::{
    INDEX_BODY_BYTES_MAX, INDEX_HEADER_BYTES, INDEX_PARTS_MAX, INDEX_ROW_BYTES, INDEX_STREAM_BYTES,
    IndexBuilder, IndexPart, IndexRow, Indexed,
};

use crate::limits::RECORD_PAYLOAD_BYTES_MAX;
use crate::record::RECORD_HEADER_BYTES;

/// Version of all formats in this module.
pub const JOURNAL_VERSION: u32 = 1;
/// Size of the page a segment starts with, in bytes.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Groups start at and fill multiples of this, so a synced sector is never written again.
pub const GROUP_ALIGN_BYTES: usize = 4096;
/// Entries start at multiples of this inside their group.
pub const ENTRY_ALIGN_BYTES: usize = 64;
/// Size of a segment, group or entry header in bytes.
pub const JOURNAL_HEADER_BYTES: usize = 64;
/// Largest body of an entry, in bytes: a record with the largest payload.
pub const ENTRY_BODY_BYTES_MAX: u32 = RECORD_HEADER_BYTES as u32 + RECORD_PAYLOAD_BYTES_MAX;
/// Largest group, in bytes.
pub const GROUP_BYTES_MAX: u32 = 8 << 20;
/// Most volumes a stream's table may name over its life.
pub const STREAM_VOLUMES_MAX: usize = 256;
/// Most segments a journal may have.
pub const SEGMENTS_MAX: usize = 16_384;

const _: () = assert!(JOURNAL_HEADER_BYTES == ENTRY_ALIGN_BYTES);
const _: () = assert!(GROUP_ALIGN_BYTES.is_multiple_of(ENTRY_ALIGN_BYTES));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(GROUP_ALIGN_BYTES as u64));
const _: () = assert!(GROUP_BYTES_MAX.is_multiple_of(GROUP_ALIGN_BYTES as u32));
const _: () = assert!(ENTRY_BODY_BYTES_MAX + (2 * JOURNAL_HEADER_BYTES as u32) < GROUP_BYTES_MAX);

/// Which journal: random, made with it, inside every header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JournalId(pub u128);

/// A byte of the journal: segment number times segment size, plus the offset in the segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Number of a stream in its journal; never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamNumber(pub u64);

/// Bytes an entry with a body of `body_bytes` takes inside a group.
pub fn entry_bytes(body_bytes: usize) -> usize {
    (JOURNAL_HEADER_BYTES + body_bytes).next_multiple_of(ENTRY_ALIGN_BYTES)
}

/// Bytes a group takes whose entries take `entries_bytes` together.
pub fn group_bytes(entries_bytes: usize) -> usize {
    (JOURNAL_HEADER_BYTES + entries_bytes).next_multiple_of(GROUP_ALIGN_BYTES)
}
