//! Bodies of the entries that are not records or settle marks.

use super::{GROUP_ALIGN_BYTES, SEGMENTS_MAX, STREAM_VOLUMES_MAX};
use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::{RING_SLOTS_MAX, TEXT_BYTES_MAX};
use crate::name::Name;
use crate::stamp::{Incarnation, Stamp};
use crate::volume::VolumeSpec;

/// Who a stream is, and what its volume numbers mean. Said again, it replaces the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOpen {
    /// The group.
    pub group: Name,
    /// The source.
    pub source: Name,
    /// The life of the ring.
    pub incarnation: Incarnation,
    /// How far a stamp may run ahead of the durable prefix.
    pub ring_slots: u32,
    /// Every volume announced so far in this incarnation.
    pub volumes: Vec<VolumeSpec>,
}

/// A newer incarnation said hello: nothing above `upto` is ever applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamClose {
    /// The contiguous settled prefix.
    pub upto: Stamp,
}

/// Stamps `(after, upto]`, or their settle marks, are gone: the source holds them no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLost {
    /// The contiguous settled prefix when that was found.
    pub after: Stamp,
    /// The last stamp lost.
    pub upto: Stamp,
    /// Why, in words.
    pub reason: String,
}

/// A segment in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSegment {
    /// Its number.
    pub segment: u64,
    /// The number after that of its last group.
    pub groups_end: u64,
    /// Where the groups of its index begin; zero for a segment without one.
    pub index_offset: u32,
}

/// The body of a `freed` entry: segment numbers, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments(pub Vec<u64>);

impl StreamOpen {
    /// The body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .name(&self.group)
            .name(&self.source)
            .incarnation(self.incarnation);
        writer.u32(self.ring_slots).count(self.volumes.len());
        for spec in &self.volumes {
            spec.encode(&mut writer);
        }
        writer.into_bytes()
    }

    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut open = Self {
            group: reader.name("group name")?,
            source: reader.name("source name")?,
            incarnation: reader.incarnation()?,
            ring_slots: reader.u32()?,
            volumes: Vec::new(),
        };
        if open.ring_slots > RING_SLOTS_MAX {
            return Err(DecodeError::BadValue("ring slots"));
        }
        for _ in 0..reader.count("volumes of a stream", STREAM_VOLUMES_MAX)? {
            open.volumes.push(VolumeSpec::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(open)
    }
}

impl StreamClose {
    /// The body.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.stamp(self.upto);
        writer.into_bytes()
    }

    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let upto = reader.stamp()?;
        reader.finish()?;
        Ok(Self { upto })
    }
}

impl StreamLost {
    /// The body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .stamp(self.after)
            .stamp(self.upto)
            .reason(&self.reason);
        writer.into_bytes()
    }

    /// Reads a body; an empty range is no loss.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let (after, upto) = (reader.stamp()?, reader.stamp()?);
        let reason = reader.text("reason", TEXT_BYTES_MAX)?;
        reader.finish()?;
        if upto <= after {
            return Err(DecodeError::BadValue("lost range"));
        }
        Ok(Self {
            after,
            upto,
            reason,
        })
    }
}

impl LiveSegment {
    /// The body of a `live` entry.
    pub fn list_to_bytes(list: &[Self]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.count(list.len());
        for live in list {
            writer.u64(live.segment).u64(live.groups_end);
            writer.u32(live.index_offset);
        }
        writer.into_bytes()
    }

    /// Reads the body of a `live` entry; numbers ascend.
    pub fn parse_list(body: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let mut reader = Reader::new(body);
        let mut list: Vec<Self> = Vec::new();
        for _ in 0..reader.count("live segments", SEGMENTS_MAX)? {
            let live = Self {
                segment: reader.u64()?,
                groups_end: reader.u64()?,
                index_offset: reader.u32()?,
            };
            let page = live.index_offset.is_multiple_of(GROUP_ALIGN_BYTES as u32);
            if !page || list.last().is_some_and(|last| last.segment >= live.segment) {
                return Err(DecodeError::BadValue("live segments"));
            }
            list.push(live);
        }
        reader.finish()?;
        Ok(list)
    }
}

impl Segments {
    /// The body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.count(self.0.len());
        for segment in &self.0 {
            writer.u64(*segment);
        }
        writer.into_bytes()
    }

    /// Reads a body; numbers ascend.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut list: Vec<u64> = Vec::new();
        for _ in 0..reader.count("freed segments", SEGMENTS_MAX)? {
            let segment = reader.u64()?;
            if list.last().is_some_and(|last| *last >= segment) {
                return Err(DecodeError::BadValue("freed segments"));
            }
            list.push(segment);
        }
        reader.finish()?;
        Ok(Self(list))
    }
}
