//! The index of the segment that is written: what its entries say, and how much room that needs.
//!
//! Kept in memory while the segment is open, written behind its last group when it is sealed. It is
//! a convenience: without one a start reads the segment. So whatever needs its room gets it.

use super::entry::Durable;
use wire::journal::{
    ENTRY_BODY_BYTES_MAX, EntryKind, GROUP_ALIGN_BYTES, GROUP_BYTES_MAX, INDEX_BODY_BYTES_MAX,
    IndexBuilder, IndexRow, Indexed, JOURNAL_HEADER_BYTES, StreamNumber, body_checksum,
    entry_bytes, group_bytes,
};

/// What a group is sure to take of the entries that wait for one, in bytes.
const GROUP_FILL_BYTES: usize =
    GROUP_BYTES_MAX as usize - JOURNAL_HEADER_BYTES - (ENTRY_BODY_BYTES_MAX as usize + 128);

/// The index of one segment.
#[derive(Debug)]
pub(super) struct SegmentIndex {
    /// None once it was given up for room.
    builder: Option<IndexBuilder>,
    /// Number of the segment's first group.
    groups_first: u64,
}

impl SegmentIndex {
    /// Of a segment whose first group will be `groups_first`.
    pub(super) fn new(groups_first: u64) -> Self {
        let builder = Some(IndexBuilder::default());
        Self {
            builder,
            groups_first,
        }
    }

    /// Of a segment that has none, whatever is written to it.
    pub(super) fn none() -> Self {
        let (builder, groups_first) = (None, 0);
        Self {
            builder,
            groups_first,
        }
    }

    /// An entry whose header lies at `offset` in the segment.
    pub(super) fn add(&mut self, stream: StreamNumber, offset: u64, durable: &Durable) {
        let Some(builder) = &mut self.builder else {
            return;
        };
        let Ok(offset_bytes) = u32::try_from(offset) else {
            self.builder = None;
            return;
        };
        builder.add(&IndexRow {
            stream,
            offset_bytes,
            what: indexed(durable),
        });
    }

    /// Bytes of the groups it is written in, with `more` bytes of rows.
    pub(super) fn bytes_with(&self, more: usize) -> u64 {
        let Some(builder) = &self.builder else {
            return 0;
        };
        let mut whole: usize = builder.part_bytes().map(entry_bytes).sum();
        if more > 0 {
            // They may need a part of their own.
            whole += entry_bytes(more) + entry_bytes(wire::journal::INDEX_HEADER_BYTES);
        }
        if whole <= GROUP_FILL_BYTES {
            return group_bytes(whole) as u64;
        }
        let groups = whole.div_ceil(GROUP_FILL_BYTES);
        let padding = groups * (JOURNAL_HEADER_BYTES + GROUP_ALIGN_BYTES);
        (whole + padding) as u64
    }

    /// Gives it up.
    pub(super) fn give_up(&mut self) {
        self.builder = None;
    }

    /// The bodies of its entries; the group after the last one before it is `groups_end`.
    pub(super) fn finish(&mut self, groups_end: u64) -> Option<Vec<Vec<u8>>> {
        let builder = self.builder.take()?;
        Some(builder.finish(self.groups_first, groups_end))
    }
}

/// Bytes an entry with a body of `body_bytes` takes in an index, at most.
pub(super) fn row_bytes(durable_body_bytes: usize) -> usize {
    IndexRow::bytes_max(durable_body_bytes.min(INDEX_BODY_BYTES_MAX))
}

fn indexed(durable: &Durable) -> Indexed {
    let (kind, body) = match durable {
        Durable::Record { header, note, .. } => return Indexed::Record(*header, note.to_vec()),
        Durable::Settle(mark) => (EntryKind::Settle, mark.to_bytes()),
        Durable::Open(open) => (EntryKind::Open, open.to_bytes()),
        Durable::Close(close) => (EntryKind::Close, close.to_bytes()),
        Durable::Lost(lost) => (EntryKind::Lost, lost.to_bytes()),
    };
    let checksum = body_checksum(&body);
    Indexed::small(kind, body, checksum)
}
