//! Reading one group back: every entry proves itself.

use crate::fold::RecordAt;
use crate::journal::entry::{Durable, Entry, is_note};
use crate::recovery::{self, Entry as Verdict, EntryBody, EntryHead};
use bytes::Bytes;
use wire::journal::{
    Bookmark, ENTRY_ALIGN_BYTES, EntryHeader, EntryKind, Epoch, Folded, GroupChecksum, GroupHeader,
    IndexPart, JOURNAL_HEADER_BYTES, LiveSegment, Position, Segments, StreamClose, StreamLost,
    StreamNumber, StreamOpen, body_checksum, entry_bytes,
};
use wire::{RECORD_HEADER_BYTES, RecordError, RecordHeader, SettleMark};

/// What was found in a group.
pub(super) struct GroupContent {
    /// Every entry is sound and none is missing.
    pub(super) whole: bool,
    /// The sound entries, each with its offset in the segment.
    pub(super) entries: Vec<(u64, Content)>,
    /// Offsets in the group at which an entry should be and is not.
    pub(super) bad: Vec<u64>,
}

/// A sound entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// About a stream.
    Stream(StreamNumber, Durable),
    /// Segments in use when its segment began.
    Live(Vec<LiveSegment>),
    /// Segments no longer in use.
    Freed(Segments),
    /// A part of an index; of no use to a start that reads its segment.
    Index(IndexPart),
    /// A record as it was written, by a version this build does not understand.
    Newer(RecordError),
    /// Sound, and of a kind that this build does not make use of.
    Unused(EntryKind),
}

/// Reads the entries of the group whose bytes, header included, are `bytes`.
///
/// Past an entry whose header is damaged the next one is found by trying every place one can be.
pub(super) fn read(header: &GroupHeader, segment: u64, offset: u64, bytes: &[u8]) -> GroupContent {
    let mut content = GroupContent {
        whole: false,
        entries: Vec::new(),
        bad: Vec::new(),
    };
    let mut checksum = GroupChecksum::new();
    let (mut found, mut searching) = (0, false);
    let mut at = JOURNAL_HEADER_BYTES;
    while found < header.entries && at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((entry, raw)) = entry_header(header, at, rest) else {
            let verdict = recovery::entry(EntryHead::Broken, EntryBody::Broken);
            assert!(verdict == Verdict::Lost, "the next one is looked for");
            if !searching {
                content.bad.push(at as u64);
            }
            searching = true;
            at += ENTRY_ALIGN_BYTES;
            continue;
        };
        searching = false;
        found += 1;
        checksum.add(raw);
        let here = RecordAt {
            segment,
            offset_bytes: offset + at as u64,
        };
        let found = body(&entry, here, rest);
        match (
            recovery::entry(EntryHead::Valid, of_body(found.as_ref())),
            found,
        ) {
            (Verdict::Used | Verdict::Refused, Some(found)) => {
                content.entries.push((offset + at as u64, found));
            }
            _ => content.bad.push(at as u64),
        }
        at += entry_bytes(entry.body_bytes as usize);
    }
    let complete = found == header.entries && checksum.finish() == header.entries_checksum;
    content.whole = complete && content.bad.is_empty();
    content
}

fn of_body(found: Option<&Content>) -> EntryBody {
    match found {
        None => EntryBody::Broken,
        Some(Content::Newer(_) | Content::Unused(_)) => EntryBody::Unused,
        Some(_) => EntryBody::Sound,
    }
}

fn entry_header<'a>(
    group: &GroupHeader,
    at: usize,
    rest: &'a [u8],
) -> Option<(EntryHeader, &'a [u8; JOURNAL_HEADER_BYTES])> {
    let raw = rest.first_chunk::<JOURNAL_HEADER_BYTES>()?;
    let entry = EntryHeader::parse(raw).ok()?;
    let ours = entry.journal == group.journal
        && entry.group == group.number
        && entry.position == Position(group.position.0 + at as u64);
    let fits = entry_bytes(entry.body_bytes as usize) <= rest.len();
    (ours && fits).then_some((entry, raw))
}

fn body(entry: &EntryHeader, at: RecordAt, rest: &[u8]) -> Option<Content> {
    let end = JOURNAL_HEADER_BYTES + entry.body_bytes as usize;
    let body = rest.get(JOURNAL_HEADER_BYTES..end)?;
    if entry.kind == EntryKind::Record {
        return record(entry, at, body);
    }
    if body_checksum(body) != entry.body_checksum {
        return None;
    }
    small(entry.kind, entry.stream, body)
}

/// What a body says that is no record's.
pub(super) fn small(kind: EntryKind, stream: StreamNumber, body: &[u8]) -> Option<Content> {
    Some(match kind {
        EntryKind::Record => return None,
        EntryKind::Live => Content::Live(LiveSegment::parse_list(body).ok()?),
        EntryKind::Freed => Content::Freed(Segments::parse(body).ok()?),
        EntryKind::Settle => {
            Content::Stream(stream, Durable::Settle(SettleMark::parse(body).ok()?))
        }
        EntryKind::Open => Content::Stream(stream, Durable::Open(StreamOpen::parse(body).ok()?)),
        EntryKind::Close => Content::Stream(stream, Durable::Close(StreamClose::parse(body).ok()?)),
        EntryKind::Lost => Content::Stream(stream, Durable::Lost(StreamLost::parse(body).ok()?)),
        EntryKind::Index => Content::Index(IndexPart::parse(body).ok()?),
        EntryKind::Epoch => Epoch::parse(body).ok().map(|_| Content::Unused(kind))?,
        EntryKind::Bookmark => Bookmark::parse(body).ok().map(|_| Content::Unused(kind))?,
        EntryKind::Folded => Folded::parse(body).ok().map(|_| Content::Unused(kind))?,
    })
}

fn record(entry: &EntryHeader, at: RecordAt, body: &[u8]) -> Option<Content> {
    let payload = body.get(RECORD_HEADER_BYTES..)?;
    let header = match RecordHeader::parse(body) {
        Ok(header) => header,
        Err(error @ RecordError::UnknownVersion(_)) if is_as_written(entry, body) => {
            return Some(Content::Newer(error));
        }
        Err(_) => return None,
    };
    if header.checksum != entry.body_checksum || header.verify(payload).is_err() {
        return None;
    }
    let note = if is_note(header.kind) { payload } else { &[] };
    let note = Bytes::copy_from_slice(note);
    let (stream, durable) = Entry::Record(entry.stream, header, note).durable(at);
    Some(Content::Stream(stream, durable))
}

/// Whether the record's checksum, which covers all of it but itself, is what its entry says: then
/// a version that is not understood here is no flipped bit.
fn is_as_written(entry: &EntryHeader, body: &[u8]) -> bool {
    let covered = RECORD_HEADER_BYTES - size_of::<u64>();
    let parts = body.get(..covered).zip(body.get(RECORD_HEADER_BYTES..));
    parts.is_some_and(|(header, payload)| {
        body_checksum(&[header, payload].concat()) == entry.body_checksum
    })
}
