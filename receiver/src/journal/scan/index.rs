//! Reading the index of a sealed segment instead of the segment.
//!
//! An index counts as a whole or not at all: every group of it whole, their numbers those the next
//! segment says it ends with, its parts all there and in order. Otherwise the segment is read.

use super::group::{self, Content};
use super::readable::Unreadable;
use super::survey::Sealed;
use super::walk::{Place, Step, Walk};
use super::{Scan, Tail};
use crate::aligned::AlignedBuffer;
use crate::fold::RecordAt;
use crate::journal::entry::Entry;
use crate::journal::error::DamageKind;
use crate::journal::index::SegmentIndex;
use crate::journal::store::SegmentFile;
use bytes::Bytes;
use std::io;
use wire::journal::{
    ENTRY_BODY_BYTES_MAX, EntryHeader, EntryKind, GROUP_ALIGN_BYTES, IndexPart, IndexRow, Indexed,
    JOURNAL_HEADER_BYTES, Position, body_checksum,
};

/// What an index says of its segment.
pub(super) struct Contents {
    /// Number of the segment's first group.
    pub(super) groups_first: u64,
    /// Where the index ends.
    pub(super) end: u64,
    /// The entries, each with its offset in the segment.
    pub(super) entries: Vec<(u64, Content)>,
}

/// Reads the index of a segment that ended as `sealed` says; none if it is not what was written.
pub(super) fn read<F: SegmentFile>(
    file: &F,
    place: Place,
    sealed: Sealed,
) -> io::Result<Option<Contents>> {
    let Some(offset) = sealed.index else {
        return Ok(None);
    };
    let Some((parts, end)) = parts(file, place, offset, sealed.groups_end)? else {
        return Ok(None);
    };
    let groups_first = parts.first().map_or(0, |part| part.groups_first);
    let mut entries = Vec::with_capacity(parts.iter().map(|part| part.rows.len()).sum());
    for row in parts.into_iter().flat_map(|part| part.rows) {
        if u64::from(row.offset_bytes) >= offset {
            return Ok(None);
        }
        let Some(content) = content(file, place, &row)? else {
            return Ok(None);
        };
        entries.push((row.offset_bytes.into(), content));
    }
    Ok(Some(Contents {
        groups_first,
        end,
        entries,
    }))
}

/// All parts, in order, and where the last group of them ends.
fn parts<F: SegmentFile>(
    file: &F,
    place: Place,
    offset: u64,
    groups_end: u64,
) -> io::Result<Option<(Vec<IndexPart>, u64)>> {
    let mut walk = Walk::from(file, place, offset);
    let mut parts: Vec<IndexPart> = Vec::new();
    let mut expected = None;
    loop {
        let Step::Group {
            header,
            offset,
            content,
            ..
        } = walk.next()?
        else {
            return Ok(None);
        };
        if !content.whole || expected.is_some_and(|expected| expected != header.number) {
            return Ok(None);
        }
        for (_, entry) in content.entries {
            let Content::Index(part) = entry else {
                return Ok(None);
            };
            parts.push(part);
        }
        let first = expected.is_none();
        if first && parts.first().map(|part| part.groups_end) != Some(header.number) {
            return Ok(None);
        }
        expected = Some(header.number + 1);
        if header.number + 1 >= groups_end {
            let whole = header.number + 1 == groups_end && fit(&parts);
            return Ok(whole.then(|| (parts, offset + u64::from(header.bytes))));
        }
    }
}

/// Whether these are all parts of one index.
fn fit(parts: &[IndexPart]) -> bool {
    let groups = parts
        .first()
        .map(|part| (part.groups_first, part.groups_end));
    let count = parts.len() as u64;
    parts.iter().zip(0u64..).all(|(part, at)| {
        u64::from(part.part) == at
            && u64::from(part.parts) == count
            && Some((part.groups_first, part.groups_end)) == groups
    })
}

fn content<F: SegmentFile>(file: &F, place: Place, row: &IndexRow) -> io::Result<Option<Content>> {
    Ok(match &row.what {
        Indexed::Record(header, note) => {
            let at = RecordAt {
                segment: place.segment,
                offset_bytes: row.offset_bytes.into(),
            };
            let entry = Entry::Record(row.stream, *header, Bytes::copy_from_slice(note));
            let (stream, durable) = entry.durable(at);
            Some(Content::Stream(stream, durable))
        }
        Indexed::Body { kind, body, .. } => group::small(*kind, row.stream, body),
        Indexed::Elsewhere {
            kind,
            body_bytes,
            checksum,
        } => {
            let body = elsewhere(file, place, row, (*kind, *body_bytes, *checksum))?;
            body.and_then(|body| group::small(*kind, row.stream, &body))
        }
    })
}

/// The body of an entry that is too long for the index.
fn elsewhere<F: SegmentFile>(
    file: &F,
    place: Place,
    row: &IndexRow,
    (kind, body_bytes, checksum): (EntryKind, u32, u64),
) -> io::Result<Option<Vec<u8>>> {
    if body_bytes > ENTRY_BODY_BYTES_MAX {
        return Ok(None);
    }
    let offset = u64::from(row.offset_bytes);
    let page = offset - offset % GROUP_ALIGN_BYTES as u64;
    let skip = (offset - page) as usize;
    let whole = JOURNAL_HEADER_BYTES + body_bytes as usize;
    let mut buffer = AlignedBuffer::new((skip + whole).next_multiple_of(GROUP_ALIGN_BYTES));
    Unreadable::default().read(file, page, buffer.as_mut())?;
    let entry = &buffer.as_slice()[skip..skip + whole];
    let (raw, body) = entry.split_at(JOURNAL_HEADER_BYTES);
    let header = raw.first_chunk().map(EntryHeader::parse);
    let Some(Ok(header)) = header else {
        return Ok(None);
    };
    let position = Position(place.segment * place.segment_bytes + offset);
    let here = header.journal == place.journal && header.position == position;
    let said = (header.kind, header.body_bytes, header.body_checksum);
    let same = said == (kind, body_bytes, checksum) && header.stream == row.stream;
    let sound = here && same && body_checksum(body) == checksum;
    Ok(sound.then(|| body.to_vec()))
}

impl Scan<'_> {
    /// Takes a sealed segment from its index.
    pub(super) fn take_index(&mut self, segment: u64, sealed: Sealed, index: Contents) {
        self.settle_torn(index.groups_first);
        self.next_group = sealed.groups_end;
        let begin = sealed.index.unwrap_or(0);
        self.recovered.ledger.note_index(segment, begin);
        self.recovered.ledger.note_group(segment, sealed.groups_end);
        self.recovered.tail = Some(Tail {
            segment,
            offset: index.end,
            group: 0,
            given_up: false,
        });
        self.recovered.index = SegmentIndex::none();
        self.indexed = None;
        self.deliver(segment, index.entries);
    }

    /// The first group of a segment that is read: its index is made anew.
    pub(super) fn begin_index(&mut self, segment: u64, group: u64) {
        if self.indexed != Some(segment) {
            self.indexed = Some(segment);
            self.recovered.index = SegmentIndex::new(group);
        }
    }

    /// Whether the index of the segment says the same of the entry at `offset`, which was read.
    pub(super) fn compare(&mut self, segment: u64, offset: u64, entry: &Content) {
        let Some(rows) = &mut self.index_says else {
            return;
        };
        // Rows of entries that are damaged: those have been told.
        while rows.front().is_some_and(|(row, _)| *row < offset) {
            rows.pop_front();
        }
        let said = rows.pop_front();
        if !said.is_some_and(|(row, said)| row == offset && said == *entry) {
            self.damage(segment, offset, DamageKind::Index);
            self.index_says = None;
        }
    }
}
