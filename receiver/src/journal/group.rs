//! A group being assembled: one aligned buffer, entries laid one after the other.

use super::entry::Body;
use crate::aligned::AlignedBuffer;
use wire::journal::{
    EntryHeader, GROUP_BYTES_MAX, GroupChecksum, GroupHeader, JOURNAL_HEADER_BYTES, JournalId,
    Position, StreamNumber, entry_bytes, group_bytes,
};

/// Where a group goes and what it is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupPlace {
    pub(super) journal: JournalId,
    pub(super) position: Position,
    pub(super) number: u64,
}

/// The buffer all groups are assembled in.
pub(super) struct GroupBuffer {
    buffer: AlignedBuffer,
    place: GroupPlace,
    used: usize,
    entries: u32,
    checksum: GroupChecksum,
}

impl GroupBuffer {
    pub(super) fn new(journal: JournalId) -> Self {
        Self {
            buffer: AlignedBuffer::new(GROUP_BYTES_MAX as usize),
            place: GroupPlace {
                journal,
                position: Position(0),
                number: 0,
            },
            used: 0,
            entries: 0,
            checksum: GroupChecksum::new(),
        }
    }

    /// Starts an empty group.
    pub(super) fn begin(&mut self, place: GroupPlace) {
        self.place = place;
        self.used = JOURNAL_HEADER_BYTES;
        self.entries = 0;
        self.checksum = GroupChecksum::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes the group would take with `more` bytes of entries.
    pub(super) fn bytes_with(&self, more: usize) -> usize {
        group_bytes(self.used - JOURNAL_HEADER_BYTES + more)
    }

    /// Adds an entry that fits; returns the offset of its header in the group.
    pub(super) fn push(&mut self, stream: StreamNumber, body: &Body) -> u64 {
        let whole = entry_bytes(body.len());
        let start = self.used;
        assert!(
            start + whole <= self.buffer.len(),
            "an entry was let in that does not fit"
        );
        let header = EntryHeader {
            journal: self.place.journal,
            position: Position(self.place.position.0 + start as u64),
            group: self.place.number,
            kind: body.kind,
            stream,
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            body_checksum: body.checksum,
        };
        let header = header.to_bytes();
        self.checksum.add(&header);
        let (head, end) = (body.head.as_slice(), start + whole);
        let out = &mut self.buffer.as_mut()[start..end];
        let (to_header, to_body) = out.split_at_mut(JOURNAL_HEADER_BYTES);
        to_header.copy_from_slice(&header);
        let (to_head, rest) = to_body.split_at_mut(head.len());
        to_head.copy_from_slice(head);
        let (to_tail, padding) = rest.split_at_mut(body.tail.len());
        to_tail.copy_from_slice(&body.tail);
        padding.fill(0);
        self.used = end;
        self.entries += 1;
        start as u64
    }

    /// Ends the group: its bytes, ready to be written.
    pub(super) fn seal(&mut self) -> &[u8] {
        assert!(!self.is_empty(), "a group has entries");
        let bytes = self.bytes_with(0);
        let header = GroupHeader {
            journal: self.place.journal,
            position: self.place.position,
            number: self.place.number,
            entries: self.entries,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            entries_checksum: self.checksum.finish(),
        };
        let used = self.used;
        let out = &mut self.buffer.as_mut()[..bytes];
        out[..JOURNAL_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        out[used..].fill(0);
        out
    }
}
