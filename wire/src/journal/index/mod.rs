//! The index of a sealed segment: all its entries but for most payloads, so that a start need not read it.
//!
//! It lies behind the segment's last group, in groups of its own, as entries of kind `index`: what
//! proves a group proves it too, and the next segment's `live` says where it begins. An entry holds
//! a part of at most [`ENTRY_BODY_BYTES_MAX`]:
//!
//! ```text
//!   0  part u32 (from 0) | parts u32
//!   8  number of the segment's first group u64
//!  16  number after its last group before the index u64
//!  24  streams u32 | rows u32
//!  32  streams of 24: stream number u64, incarnation id u128 (0: of rows that are no records)
//!      rows of 48, in the order of their entries
//!      bodies of the rows that have one, in their order
//!
//! row   0  entry kind u8 | record kind u8 | volume index u16
//!       4  offset of the entry in the segment u32
//!       8  stream u16, from 0 | flags u16 (1 = FUA, 2 = its body is only in its entry)
//!      12  length u32: of a record's range, of any other row's body
//!      16  stamp u64
//!      24  mark u64
//!      32  offset of the range on the volume u64
//!      40  checksum of the entry's body u64
//! ```
//!
//! Bodies: of settle, open, close and lost what their entries hold, unless longer than
//! [`INDEX_BODY_BYTES_MAX`]; of member, gap and bookmark records the payload; no others.

mod parse;

use super::header::EntryKind;
use super::{ENTRY_BODY_BYTES_MAX, StreamNumber};
use crate::coding::Writer;
use crate::record::RecordHeader;

/// Size of what a part starts with, in bytes.
pub const INDEX_HEADER_BYTES: usize = 32;
/// Size of a row in bytes.
pub const INDEX_ROW_BYTES: usize = 48;
/// Size of a stream in a part's table, in bytes.
pub const INDEX_STREAM_BYTES: usize = 24;
/// Largest body that a row repeats, in bytes.
pub const INDEX_BODY_BYTES_MAX: usize = 4096;
/// Most parts of an index: those of the largest segment, full of the smallest entries, fit.
pub const INDEX_PARTS_MAX: u32 = 4096;
const STREAMS_MAX: usize = 4096;
const FLAG_FUA: u16 = 1;
const FLAG_ELSEWHERE: u16 = 2;

const _: () = assert!(
    INDEX_HEADER_BYTES + STREAMS_MAX * INDEX_STREAM_BYTES + INDEX_ROW_BYTES + INDEX_BODY_BYTES_MAX
        < ENTRY_BODY_BYTES_MAX as usize
);

/// An entry of the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// The stream it is about.
    pub stream: StreamNumber,
    /// Where its header lies in the segment.
    pub offset_bytes: u32,
    /// What it is.
    pub what: Indexed,
}

/// What an index says of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Indexed {
    /// A record; the payload is that of member, gap and bookmark records.
    Record(RecordHeader, Vec<u8>),
    /// Any other, with its body.
    Body {
        /// Its kind.
        kind: EntryKind,
        /// Its body.
        body: Vec<u8>,
        /// The body's checksum.
        checksum: u64,
    },
    /// Any other, whose body is only in its entry.
    Elsewhere {
        /// Its kind.
        kind: EntryKind,
        /// Length of its body.
        body_bytes: u32,
        /// The body's checksum.
        checksum: u64,
    },
}

/// A part of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexPart {
    /// Which, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// Number of the segment's first group.
    pub groups_first: u64,
    /// Number after its last group before the index.
    pub groups_end: u64,
    /// Its rows.
    pub rows: Vec<IndexRow>,
}

/// An index being made.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    full: Vec<Draft>,
    open: Draft,
}

#[derive(Debug, Default)]
struct Draft {
    streams: Vec<(StreamNumber, u128)>,
    rows: Writer,
    count: u32,
    bodies: Vec<u8>,
}

impl IndexRow {
    /// Bytes it takes in a part, at most.
    pub fn bytes_max(body_bytes: usize) -> usize {
        INDEX_STREAM_BYTES + INDEX_ROW_BYTES + body_bytes.min(INDEX_BODY_BYTES_MAX)
    }

    fn body(&self) -> &[u8] {
        match &self.what {
            Indexed::Record(_, payload) => payload,
            Indexed::Body { body, .. } => body,
            Indexed::Elsewhere { .. } => &[],
        }
    }

    fn incarnation_id(&self) -> u128 {
        match &self.what {
            Indexed::Record(header, _) => header.incarnation_id,
            _ => 0,
        }
    }
}

impl Indexed {
    /// What an index says of an entry that is no record.
    pub fn small(kind: EntryKind, body: Vec<u8>, checksum: u64) -> Self {
        if body.len() > INDEX_BODY_BYTES_MAX {
            let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
            return Self::Elsewhere {
                kind,
                body_bytes,
                checksum,
            };
        }
        Self::Body {
            kind,
            body,
            checksum,
        }
    }
}

impl IndexBuilder {
    /// Adds the next entry of the segment.
    pub fn add(&mut self, row: &IndexRow) {
        let more = IndexRow::bytes_max(row.body().len());
        let most = ENTRY_BODY_BYTES_MAX as usize;
        if self.open.bytes() + more > most || self.open.streams.len() == STREAMS_MAX {
            self.full.push(std::mem::take(&mut self.open));
        }
        self.open.add(row);
    }

    /// Lengths of the bodies of all its parts, if it ended here.
    pub fn part_bytes(&self) -> impl Iterator<Item = usize> + use<'_> {
        let parts = self.full.iter().chain([&self.open]);
        parts.map(Draft::bytes)
    }

    /// Bodies of all parts. The segment's groups are those from `groups_first` up to, and not
    /// including, `groups_end`.
    pub fn finish(self, groups_first: u64, groups_end: u64) -> Vec<Vec<u8>> {
        let parts = u32::try_from(self.full.len() + 1).unwrap_or(u32::MAX);
        let drafts = self.full.into_iter().chain([self.open]).zip(0..);
        let bodies = drafts.map(|(draft, part)| {
            let mut writer = Writer::new();
            writer.u32(part).u32(parts);
            writer.u64(groups_first).u64(groups_end);
            draft.put(writer)
        });
        bodies.collect()
    }
}

impl Draft {
    fn bytes(&self) -> usize {
        let rows = self.count as usize * INDEX_ROW_BYTES;
        INDEX_HEADER_BYTES + self.streams.len() * INDEX_STREAM_BYTES + rows + self.bodies.len()
    }

    fn add(&mut self, row: &IndexRow) {
        let stream = self.stream(row.stream, row.incarnation_id());
        let (entry, record, flags) = codes(&row.what);
        let zero = RecordFacts::default();
        let facts = match &row.what {
            Indexed::Record(header, _) => RecordFacts::of(header),
            _ => zero,
        };
        let (length, checksum) = match &row.what {
            Indexed::Record(header, payload) => {
                let note = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                (header.length_bytes.max(note), header.checksum)
            }
            Indexed::Body { body, checksum, .. } => {
                (u32::try_from(body.len()).unwrap_or(u32::MAX), *checksum)
            }
            Indexed::Elsewhere {
                body_bytes,
                checksum,
                ..
            } => (*body_bytes, *checksum),
        };
        self.rows.u8(entry).u8(record).u16(facts.volume);
        self.rows.u32(row.offset_bytes);
        self.rows.u16(stream).u16(flags).u32(length);
        self.rows.u64(facts.stamp).u64(facts.mark).u64(facts.offset);
        self.rows.u64(checksum);
        self.count += 1;
        self.bodies.extend_from_slice(row.body());
    }

    /// The stream's place in the table; the last ones are looked at, which is where it is.
    fn stream(&mut self, number: StreamNumber, id: u128) -> u16 {
        let known = self.streams.iter().rposition(|one| *one == (number, id));
        let at = known.unwrap_or_else(|| {
            self.streams.push((number, id));
            self.streams.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    fn put(self, mut writer: Writer) -> Vec<u8> {
        let streams = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        writer.u32(streams).u32(self.count);
        for (number, id) in &self.streams {
            writer.u64(number.0).u128(*id);
        }
        writer.put(&self.rows.into_bytes()).put(&self.bodies);
        writer.into_bytes()
    }
}

#[derive(Default)]
struct RecordFacts {
    volume: u16,
    stamp: u64,
    mark: u64,
    offset: u64,
}

impl RecordFacts {
    fn of(header: &RecordHeader) -> Self {
        Self {
            volume: header.volume.0,
            stamp: header.stamp.0,
            mark: header.mark.0,
            offset: header.offset_bytes,
        }
    }
}

/// Entry kind, record kind, flags.
fn codes(what: &Indexed) -> (u8, u8, u16) {
    match what {
        Indexed::Record(header, _) => {
            let flags = if header.fua { FLAG_FUA } else { 0 };
            (EntryKind::Record as u8, header.kind as u8, flags)
        }
        Indexed::Body { kind, .. } => (*kind as u8, 0, 0),
        Indexed::Elsewhere { kind, .. } => (*kind as u8, 0, FLAG_ELSEWHERE),
    }
}
