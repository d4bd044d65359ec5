//! The three headers of the journal. Each is 64 bytes and ends in a checksum over the rest.
//!
//! ```text
//! segment   0  "UTJSEG1\0"                group   0  "UTJG" | entries u32
//!           8  version u32 | zero u32             8  group number u64
//!          16  journal id u128                   16  journal id u128
//!          32  segment number u64                32  position u64
//!          40  segment bytes u64                 40  group bytes u32 | zero u32
//!          48  zero u64                          48  xxh3-64 over all entry headers
//!          56  xxh3-64 over 0..56                56  xxh3-64 over 0..56
//!
//! entry     0  kind u8 | zero u8 | zero u16 | body bytes u32
//!           8  stream number u64
//!          16  journal id u128
//!          32  position u64
//!          40  group number u64
//!          48  checksum of the body: the record's own, else xxh3-64 over the body
//!          56  xxh3-64 over 0..56
//! ```

use super::{
    ENTRY_BODY_BYTES_MAX, GROUP_ALIGN_BYTES, GROUP_BYTES_MAX, JOURNAL_HEADER_BYTES,
    JOURNAL_VERSION, JournalId, Position, StreamNumber,
};
use crate::coding::{DecodeError, Reader, Writer};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const SEGMENT_MAGIC: &[u8; 8] = b"UTJSEG1\0";
const GROUP_MAGIC: &[u8; 4] = b"UTJG";
const CHECKED_BYTES: usize = JOURNAL_HEADER_BYTES - size_of::<u64>();

/// What a segment file starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The journal it belongs to.
    pub journal: JournalId,
    /// Its number; never used twice.
    pub segment: u64,
    /// Size of the file in bytes, the same for all segments of a journal.
    pub bytes: u64,
}

/// What a group starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The journal it belongs to.
    pub journal: JournalId,
    /// Where this header lies.
    pub position: Position,
    /// One more than that of the group before, also over segments.
    pub number: u64,
    /// Entries in the group.
    pub entries: u32,
    /// Bytes of the group, this header and the padding included.
    pub bytes: u32,
    /// Checksum over the headers of all its entries, hence over their bodies' checksums too.
    pub entries_checksum: u64,
}

/// What an entry starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// The journal it belongs to.
    pub journal: JournalId,
    /// Where this header lies.
    pub position: Position,
    /// The group it was written with.
    pub group: u64,
    /// What the body is.
    pub kind: EntryKind,
    /// The stream it is about; zero for those about the journal.
    pub stream: StreamNumber,
    /// Length of the body.
    pub body_bytes: u32,
    /// Checksum of the body.
    pub body_checksum: u64,
}

/// Sums up the entry headers of a group, in order.
#[derive(Default)]
pub struct GroupChecksum(Xxh3);

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A record as it was received: header and payload.
    Record = 1,
    /// A [`crate::SettleMark`].
    Settle = 2,
    /// A stream and its volumes: when it opens, when its table grows, and again in each segment.
    Open = 3,
    /// A stream has ended.
    Close = 4,
    /// Stamps that will never come.
    Lost = 5,
    /// The segments that are in use; the first entry of every segment.
    Live = 6,
    /// Segments that are no longer in use.
    Freed = 7,
    /// A part of the index of its segment.
    Index = 8,
    /// An epoch opens or closes.
    Epoch = 9,
    /// A named point.
    Bookmark = 10,
    /// A range of a folded epoch.
    Folded = 11,
}

/// Checksum of the body of an entry that is not a record; a record brings its own.
pub fn body_checksum(body: &[u8]) -> u64 {
    xxh3_64(body)
}

impl GroupChecksum {
    /// Of a group without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next entry header.
    pub fn add(&mut self, header: &[u8; JOURNAL_HEADER_BYTES]) {
        self.0.update(header);
    }

    /// The checksum over all added.
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}

impl EntryKind {
    /// The kind with this code on disk.
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        Ok(match code {
            1 => Self::Record,
            2 => Self::Settle,
            3 => Self::Open,
            4 => Self::Close,
            5 => Self::Lost,
            6 => Self::Live,
            7 => Self::Freed,
            8 => Self::Index,
            9 => Self::Epoch,
            10 => Self::Bookmark,
            11 => Self::Folded,
            _ => return Err(DecodeError::BadValue("journal entry kind")),
        })
    }

    /// What it is called.
    pub fn words(self) -> &'static str {
        match self {
            Self::Record => "a record",
            Self::Settle => "a settle mark",
            Self::Open => "the opening of a stream",
            Self::Close => "the end of a stream",
            Self::Lost => "a loss",
            Self::Live => "a list of segments in use",
            Self::Freed => "a list of freed segments",
            Self::Index => "an index",
            Self::Epoch => "an epoch",
            Self::Bookmark => "a bookmark",
            Self::Folded => "a folded epoch",
        }
    }
}

impl SegmentHeader {
    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; JOURNAL_HEADER_BYTES] {
        let mut writer = Writer::new();
        writer.put(SEGMENT_MAGIC).u32(JOURNAL_VERSION).u32(0);
        writer
            .u128(self.journal.0)
            .u64(self.segment)
            .u64(self.bytes)
            .u64(0);
        sealed(writer)
    }

    /// Reads a header; what cannot be one is an error.
    pub fn parse(bytes: &[u8; JOURNAL_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = opened(bytes, "segment header checksum")?;
        if reader.take(SEGMENT_MAGIC.len())? != SEGMENT_MAGIC {
            return Err(DecodeError::BadValue("segment magic"));
        }
        let version = reader.u32()?;
        if version != JOURNAL_VERSION {
            return Err(DecodeError::UnknownVersion(
                u16::try_from(version).unwrap_or(u16::MAX),
            ));
        }
        zero(reader.u32()?.into())?;
        let journal = JournalId(reader.u128()?);
        let (segment, size, rest) = (reader.u64()?, reader.u64()?, reader.u64()?);
        zero(rest)?;
        Ok(Self {
            journal,
            segment,
            bytes: size,
        })
    }
}

impl GroupHeader {
    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; JOURNAL_HEADER_BYTES] {
        let mut writer = Writer::new();
        writer.put(GROUP_MAGIC).u32(self.entries).u64(self.number);
        writer
            .u128(self.journal.0)
            .u64(self.position.0)
            .u32(self.bytes)
            .u32(0);
        writer.u64(self.entries_checksum);
        sealed(writer)
    }

    /// Reads a header; lengths are bounded before anyone allocates by them.
    pub fn parse(bytes: &[u8; JOURNAL_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = opened(bytes, "group header checksum")?;
        if reader.take(GROUP_MAGIC.len())? != GROUP_MAGIC {
            return Err(DecodeError::BadValue("group magic"));
        }
        let (entries, number) = (reader.u32()?, reader.u64()?);
        let (journal, position) = (JournalId(reader.u128()?), Position(reader.u64()?));
        let (length, rest) = (reader.u32()?, reader.u32()?);
        zero(rest.into())?;
        let entries_checksum = reader.u64()?;
        let whole = length > 0 && length.is_multiple_of(GROUP_ALIGN_BYTES as u32);
        let room = u64::from(entries) * JOURNAL_HEADER_BYTES as u64;
        if !whole || length > GROUP_BYTES_MAX || entries == 0 || room >= u64::from(length) {
            return Err(DecodeError::BadValue("group length"));
        }
        Ok(Self {
            journal,
            position,
            number,
            entries,
            bytes: length,
            entries_checksum,
        })
    }
}

impl EntryHeader {
    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; JOURNAL_HEADER_BYTES] {
        let mut writer = Writer::new();
        writer
            .u8(self.kind as u8)
            .u8(0)
            .u16(0)
            .u32(self.body_bytes)
            .u64(self.stream.0);
        writer
            .u128(self.journal.0)
            .u64(self.position.0)
            .u64(self.group);
        writer.u64(self.body_checksum);
        sealed(writer)
    }

    /// Reads a header; the body's length is bounded before anyone allocates by it.
    pub fn parse(bytes: &[u8; JOURNAL_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = opened(bytes, "entry header checksum")?;
        let code = reader.u8()?;
        zero(reader.u8()?.into())?;
        zero(reader.u16()?.into())?;
        let kind = EntryKind::from_code(code)?;
        let body_bytes = reader.u32()?;
        if body_bytes > ENTRY_BODY_BYTES_MAX {
            return Err(DecodeError::OverLimit {
                what: "entry body",
                found: body_bytes.into(),
                limit: ENTRY_BODY_BYTES_MAX.into(),
            });
        }
        Ok(Self {
            kind,
            body_bytes,
            stream: StreamNumber(reader.u64()?),
            journal: JournalId(reader.u128()?),
            position: Position(reader.u64()?),
            group: reader.u64()?,
            body_checksum: reader.u64()?,
        })
    }
}

fn sealed(mut writer: Writer) -> [u8; JOURNAL_HEADER_BYTES] {
    let body = std::mem::take(&mut writer).into_bytes();
    assert!(body.len() == CHECKED_BYTES, "a journal header is 64 bytes");
    let mut out = [0; JOURNAL_HEADER_BYTES];
    out[..CHECKED_BYTES].copy_from_slice(&body);
    out[CHECKED_BYTES..].copy_from_slice(&xxh3_64(&body).to_le_bytes());
    out
}

fn opened<'a>(
    bytes: &'a [u8; JOURNAL_HEADER_BYTES],
    what: &'static str,
) -> Result<Reader<'a>, DecodeError> {
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or(DecodeError::Short)?;
    if u64::from_le_bytes(*sum) != xxh3_64(body) {
        return Err(DecodeError::BadValue(what));
    }
    Ok(Reader::new(body))
}

fn zero(value: u64) -> Result<(), DecodeError> {
    if value != 0 {
        return Err(DecodeError::BadValue("reserved field"));
    }
    Ok(())
}
