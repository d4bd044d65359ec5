//! Entries: what is appended, and what is told once it is durable.

use crate::fold::RecordAt;
use bytes::Bytes;
use wire::journal::{
    EntryKind, JOURNAL_HEADER_BYTES, StreamClose, StreamLost, StreamNumber, StreamOpen,
    body_checksum,
};
use wire::{RecordHeader, RecordKind, SettleMark, Stamp};

/// An entry to append, about one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record as it was received and verified.
    Record(StreamNumber, RecordHeader, Bytes),
    /// How far the source's disks have answered.
    Settle(StreamNumber, SettleMark),
    /// The stream exists, with these volumes.
    Open(StreamNumber, StreamOpen),
    /// The stream has ended.
    Close(StreamNumber, StreamClose),
    /// Stamps that will never come.
    Lost(StreamNumber, StreamLost),
}

/// An entry that is durable. The same from a commit and from a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durable {
    /// A record lies at `at`; of those without data the payload is given too.
    Record {
        /// Its header.
        header: RecordHeader,
        /// Where it lies.
        at: RecordAt,
        /// Payload of member, gap and bookmark records, else empty.
        note: Bytes,
    },
    /// A settle mark.
    Settle(SettleMark),
    /// The stream and its table.
    Open(StreamOpen),
    /// The stream has ended.
    Close(StreamClose),
    /// Stamps that will never come.
    Lost(StreamLost),
}

/// An entry's body, ready to be copied.
#[derive(Clone)]
pub(super) struct Body {
    pub(super) kind: EntryKind,
    pub(super) head: Head,
    pub(super) tail: Bytes,
    pub(super) checksum: u64,
}

/// First part of a body: a record's header, or all of a small one.
#[derive(Clone)]
pub(super) enum Head {
    Record([u8; wire::RECORD_HEADER_BYTES]),
    Small(Vec<u8>),
}

impl Head {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Record(bytes) => bytes,
            Self::Small(bytes) => bytes,
        }
    }
}

impl Body {
    pub(super) fn small(kind: EntryKind, bytes: Vec<u8>) -> Self {
        let checksum = body_checksum(&bytes);
        Self {
            kind,
            head: Head::Small(bytes),
            tail: Bytes::new(),
            checksum,
        }
    }

    pub(super) fn live(bytes: Vec<u8>) -> Self {
        Self::small(EntryKind::Live, bytes)
    }

    pub(super) fn freed(bytes: Vec<u8>) -> Self {
        Self::small(EntryKind::Freed, bytes)
    }

    pub(super) fn index(bytes: Vec<u8>) -> Self {
        Self::small(EntryKind::Index, bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.head.as_slice().len() + self.tail.len()
    }
}

impl Entry {
    /// The stream it is about.
    pub fn stream(&self) -> StreamNumber {
        match self {
            Self::Record(stream, ..)
            | Self::Settle(stream, _)
            | Self::Open(stream, _)
            | Self::Close(stream, _)
            | Self::Lost(stream, _) => *stream,
        }
    }

    /// Bytes it takes in a group.
    pub fn bytes(&self) -> usize {
        let body = match self {
            Self::Record(_, _, payload) => wire::RECORD_HEADER_BYTES + payload.len(),
            Self::Settle(_, mark) => 18 + 8 * mark.voids.len(),
            Self::Open(_, open) => open.to_bytes().len(),
            Self::Lost(_, lost) => 18 + lost.reason.len(),
            Self::Close(..) => 8,
        };
        wire::journal::entry_bytes(body)
    }

    /// Bytes it takes in the index of its segment, at most.
    pub(super) fn index_bytes(&self) -> usize {
        let body = match self {
            Self::Record(_, header, payload) if is_note(header.kind) => payload.len(),
            Self::Record(..) => 0,
            other => other.bytes(),
        };
        super::index::row_bytes(body)
    }

    pub(super) fn body(&self) -> Body {
        match self {
            Self::Record(_, header, payload) => Body {
                kind: EntryKind::Record,
                head: Head::Record(header.to_bytes()),
                tail: payload.clone(),
                checksum: header.checksum,
            },
            Self::Settle(_, mark) => Body::small(EntryKind::Settle, mark.to_bytes()),
            Self::Open(_, open) => Body::small(EntryKind::Open, open.to_bytes()),
            Self::Close(_, close) => Body::small(EntryKind::Close, close.to_bytes()),
            Self::Lost(_, lost) => Body::small(EntryKind::Lost, lost.to_bytes()),
        }
    }

    /// What is told when it is durable; `entry_at` is where its entry header lies.
    pub(super) fn durable(self, entry_at: RecordAt) -> (StreamNumber, Durable) {
        match self {
            Self::Record(stream, header, payload) => {
                let at = RecordAt {
                    offset_bytes: entry_at.offset_bytes + JOURNAL_HEADER_BYTES as u64,
                    ..entry_at
                };
                let note = if is_note(header.kind) {
                    payload
                } else {
                    Bytes::new()
                };
                // A copy: the payload may be a slice of a whole batch.
                let note = Bytes::copy_from_slice(&note);
                (stream, Durable::Record { header, at, note })
            }
            Self::Settle(stream, mark) => (stream, Durable::Settle(mark)),
            Self::Open(stream, open) => (stream, Durable::Open(open)),
            Self::Close(stream, close) => (stream, Durable::Close(close)),
            Self::Lost(stream, lost) => (stream, Durable::Lost(lost)),
        }
    }
}

impl Durable {
    /// The applied stamp of its stream from which on this entry is not needed.
    pub fn needed_until(&self) -> Stamp {
        match self {
            Self::Record { header, .. } => header.stamp,
            Self::Settle(mark) => mark.upto,
            Self::Lost(lost) => lost.upto,
            // Repeated at the head of every segment while the stream lives.
            Self::Open(_) | Self::Close(_) => Stamp::ZERO,
        }
    }
}

/// Whether the payload of a record of this kind is wanted in memory.
pub(super) fn is_note(kind: RecordKind) -> bool {
    matches!(
        kind,
        RecordKind::Member | RecordKind::Gap | RecordKind::Bookmark
    )
}
