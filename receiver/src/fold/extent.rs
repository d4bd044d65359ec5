//! The words of a fold: byte ranges, changes going in, extents coming out.

use std::fmt;
use wire::Stamp;

/// A run of bytes of a volume or of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub offset_bytes: u64,
    /// How many.
    pub len_bytes: u64,
}

impl ByteRange {
    /// A range by offset and length.
    pub const fn new(offset_bytes: u64, len_bytes: u64) -> Self {
        Self {
            offset_bytes,
            len_bytes,
        }
    }

    /// The range from `offset_bytes` up to, not including, `end_bytes`.
    pub fn between(offset_bytes: u64, end_bytes: u64) -> Self {
        assert!(
            offset_bytes <= end_bytes,
            "range {offset_bytes}..{end_bytes} is backwards"
        );
        Self {
            offset_bytes,
            len_bytes: end_bytes - offset_bytes,
        }
    }

    /// One past the last byte. Only for ranges already checked against a volume.
    pub fn end_bytes(self) -> u64 {
        self.offset_bytes + self.len_bytes
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.len_bytes, self.offset_bytes)
    }
}

/// Where the header of a record lies in the journal. Ordered as the journal is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordAt {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the record header in it.
    pub offset_bytes: u64,
}

impl fmt::Display for RecordAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment, self.offset_bytes)
    }
}

/// What a record does to its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A write or copy: the payload of the record there.
    Data(RecordAt),
    /// A discard or zero: the range reads as zeroes.
    Zero,
}

/// One settled record of one volume, in stamp order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Stamp of the record.
    pub stamp: Stamp,
    /// The bytes of the volume it covers.
    pub range: ByteRange,
    /// What it does to them.
    pub effect: Effect,
}

impl Change {
    /// What its bytes hold after it.
    pub(super) fn content(&self) -> Content {
        match self.effect {
            Effect::Data(at) => Content::Data(Record {
                at,
                stamp: self.stamp,
                range: self.range,
            }),
            Effect::Zero => Content::Zero,
        }
    }
}

/// A record whose payload is wanted, with all that is known about it: what is read must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where its header lies.
    pub at: RecordAt,
    /// Its stamp.
    pub stamp: Stamp,
    /// The bytes of the volume it covers; as long as its payload.
    pub range: ByteRange,
}

/// What a piece of a volume holds after the fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes a record has for it.
    Data(Record),
    /// Zeroes.
    Zero,
}

/// One piece of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its bytes of the volume.
    pub range: ByteRange,
    /// What they hold.
    pub content: Content,
}

/// A piece of a step on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Index of the disk.
    pub disk: usize,
    /// Offset on it.
    pub offset_bytes: u64,
    /// The bytes of the volume.
    pub range: ByteRange,
    /// What they hold.
    pub content: Content,
}

impl Extent {
    /// Whether a neighbour with `content` at `range` can become part of this extent.
    pub(super) fn takes(&self, range: ByteRange, content: Content) -> bool {
        self.range.end_bytes() == range.offset_bytes && self.content == content
    }
}
