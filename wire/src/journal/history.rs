//! Bodies of entries about history that is kept: epochs, bookmarks, folded epochs.
//!
//! Part of version 1 and not written by this build yet. One that finds them in a journal refuses
//! it rather than read past them: what they hold is nowhere else.

use super::StreamNumber;
use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::{RECORD_PAYLOAD_BYTES_MAX, SECTOR_BYTES_MIN, TEXT_BYTES_MAX};
use crate::name::Name;
use crate::stamp::{Stamp, TimeMark};
use crate::volume::VolumeIndex;

/// Most streams a bookmark names.
pub const BOOKMARK_STREAMS_MAX: usize = 1024;
/// Size of what a folded entry's body starts with, in bytes.
pub const FOLDED_HEADER_BYTES: usize = 64;

/// Records of `(after, upto]` count together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Closed; while it is open none of its records counts.
    pub closed: bool,
    /// The place before its first record.
    pub after: Stamp,
    /// Its last record; of an open one the same as `after`.
    pub upto: Stamp,
    /// Why, in words.
    pub reason: String,
}

/// A named point of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The group.
    pub group: Name,
    /// Its name.
    pub name: String,
    /// Its time.
    pub mark: TimeMark,
    /// The stamp of each stream, by ascending stream.
    pub stamps: Vec<(StreamNumber, Stamp)>,
}

/// What the records of a folded epoch `(after, upto]` leave behind on one range: data, or zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The place before the epoch's first record.
    pub after: Stamp,
    /// Its last record.
    pub upto: Stamp,
    /// The time of that.
    pub mark: TimeMark,
    /// First byte of the range on the volume.
    pub offset_bytes: u64,
    /// Length of the range.
    pub length_bytes: u32,
    /// Bytes that follow: the range's, or none where it is zeroes.
    pub payload_bytes: u32,
    /// Which volume of the stream's table.
    pub volume: VolumeIndex,
    /// The last of its epoch.
    pub last: bool,
}

impl Epoch {
    /// The body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.flag(self.closed).stamp(self.after).stamp(self.upto);
        writer.reason(&self.reason);
        writer.into_bytes()
    }

    /// Reads a body; an epoch that is closed has records, an open one has no end.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let closed = reader.flag("closed")?;
        let (after, upto) = (reader.stamp()?, reader.stamp()?);
        let reason = reader.text("reason", TEXT_BYTES_MAX)?;
        reader.finish()?;
        if upto < after || (upto > after) != closed {
            return Err(DecodeError::BadValue("range of an epoch"));
        }
        Ok(Self {
            closed,
            after,
            upto,
            reason,
        })
    }
}

impl Bookmark {
    /// The body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.name(&self.group).reason(&self.name).mark(self.mark);
        writer.count(self.stamps.len());
        for (stream, stamp) in &self.stamps {
            writer.u64(stream.0).stamp(*stamp);
        }
        writer.into_bytes()
    }

    /// Reads a body; streams ascend.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let group = reader.name("group name")?;
        let name = reader.text("bookmark", TEXT_BYTES_MAX)?;
        let mark = reader.mark()?;
        let mut stamps: Vec<(StreamNumber, Stamp)> = Vec::new();
        for _ in 0..reader.count("streams of a bookmark", BOOKMARK_STREAMS_MAX)? {
            let stream = StreamNumber(reader.u64()?);
            if stamps.last().is_some_and(|(last, _)| *last >= stream) {
                return Err(DecodeError::BadValue("streams of a bookmark"));
            }
            stamps.push((stream, reader.stamp()?));
        }
        reader.finish()?;
        Ok(Self {
            group,
            name,
            mark,
            stamps,
        })
    }
}

impl Folded {
    /// What the body starts with; the payload follows.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.stamp(self.after).stamp(self.upto).mark(self.mark);
        writer.u64(self.offset_bytes).u32(self.length_bytes);
        writer.u32(self.payload_bytes).u16(self.volume.0);
        writer.flag(self.last).u8(0).u32(0).u128(0);
        let bytes = writer.into_bytes();
        assert!(bytes.len() == FOLDED_HEADER_BYTES, "64 bytes");
        bytes
    }

    /// Reads the front of a body; the rest of it is the payload.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut folded = Self {
            after: reader.stamp()?,
            upto: reader.stamp()?,
            mark: reader.mark()?,
            offset_bytes: reader.u64()?,
            length_bytes: reader.u32()?,
            payload_bytes: reader.u32()?,
            volume: VolumeIndex(reader.u16()?),
            last: false,
        };
        folded.last = reader.flag("last")?;
        let reserved = (reader.u8()?, reader.u32()?, reader.u128()?);
        reader.take(folded.payload_bytes as usize)?;
        reader.finish()?;
        let sectors = folded.length_bytes.is_multiple_of(SECTOR_BYTES_MIN)
            && folded.offset_bytes.is_multiple_of(SECTOR_BYTES_MIN.into());
        let end = folded.offset_bytes.checked_add(folded.length_bytes.into());
        let inside = end.is_some_and(|end| i64::try_from(end).is_ok());
        let data = folded.payload_bytes == folded.length_bytes
            && folded.payload_bytes <= RECORD_PAYLOAD_BYTES_MAX;
        let whole = sectors && inside && folded.length_bytes > 0;
        if reserved != (0, 0, 0)
            || folded.upto <= folded.after
            || !whole
            || !(data || folded.payload_bytes == 0)
        {
            return Err(DecodeError::BadValue("folded range"));
        }
        Ok(folded)
    }
}
