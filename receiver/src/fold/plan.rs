//! From extents of volumes to writes of disks, and the records to read for them. Pure.
//!
//! The data of all writes to one disk lies in one buffer, the arena of the disk, piece after
//! piece in disk order. So a record is read once, however many pieces are left of it, the journal
//! is read in its own order, and neighbouring pieces of different records become one write.

use super::{ByteRange, Content, Placed, Record};
use std::ops::Range;

/// Most bytes of one write.
pub const WRITE_BYTES_MAX: u64 = 1 << 20;

/// What one write puts on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Bytes of the arena, from this offset.
    Data {
        /// Offset in the arena of the disk.
        arena_bytes: u64,
    },
    /// Zeroes.
    Zero,
}

/// One write to one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskWrite {
    /// Where on the disk.
    pub range: ByteRange,
    /// What.
    pub kind: WriteKind,
}

impl DiskWrite {
    /// Its bytes in the arena, for data.
    pub fn arena(&self) -> Option<Range<usize>> {
        match self.kind {
            WriteKind::Data { arena_bytes } => {
                let start = arena_bytes as usize;
                Some(start..start + self.range.len_bytes as usize)
            }
            WriteKind::Zero => None,
        }
    }
}

/// All writes to one disk, in disk order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskPlan {
    /// The writes: disjoint, ascending.
    pub writes: Vec<DiskWrite>,
    /// Size of the arena.
    pub arena_bytes: u64,
}

/// A piece of a record's payload and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the disk.
    pub disk: usize,
    /// Offset in the arena of the disk.
    pub arena_bytes: u64,
    /// First byte in the payload.
    pub skip_bytes: u64,
    /// How many.
    pub len_bytes: u64,
}

/// A record to read, and its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRead {
    /// The record.
    pub record: Record,
    /// Index, in order of [`Plan::add`], of the volume it belongs to.
    pub volume: usize,
    /// What is left of it.
    pub pieces: Vec<Piece>,
}

/// What a step reads and writes.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    disks: Vec<DiskPlan>,
    reads: Vec<(usize, Record, Piece)>,
    volumes: usize,
}

impl Plan {
    /// A plan that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a volume; its disks come after those already there. Extents are in disk order.
    #[cfg(test)]
    pub fn add(&mut self, layout: &crate::target::Layout, extents: &[super::Extent]) {
        let placed = crate::target::placed(layout, extents);
        self.add_placed(layout.targets(), &placed);
    }

    /// Adds a volume over so many disks, which come after those already there. Pieces of one disk
    /// are in its order.
    pub fn add_placed(&mut self, disks: usize, placed: &[Placed]) {
        let first = self.disks.len();
        self.disks.resize_with(first + disks, DiskPlan::default);
        for piece in placed {
            let disk = first + piece.disk;
            let range = ByteRange::new(piece.offset_bytes, piece.range.len_bytes);
            match piece.content {
                Content::Zero => self.disks[disk].zero(range),
                Content::Data(record) => {
                    let skip_bytes = piece.range.offset_bytes - record.range.offset_bytes;
                    let len_bytes = range.len_bytes;
                    let arena_bytes = self.disks[disk].data(range);
                    let piece = Piece {
                        disk,
                        arena_bytes,
                        skip_bytes,
                        len_bytes,
                    };
                    self.reads.push((self.volumes, record, piece));
                }
            }
        }
        self.volumes += 1;
    }

    /// The writes per disk, and the records to read, in the order of the journal.
    pub fn finish(mut self) -> (Vec<DiskPlan>, Vec<RecordRead>) {
        self.reads.sort_by_key(|(_, record, _)| record.at);
        let mut reads: Vec<RecordRead> = Vec::new();
        for (volume, record, piece) in self.reads {
            match reads.last_mut() {
                Some(last) if last.record.at == record.at => {
                    assert_eq!(
                        last.record, record,
                        "two records at one place of the journal"
                    );
                    last.pieces.push(piece);
                }
                _ => reads.push(RecordRead {
                    record,
                    volume,
                    pieces: vec![piece],
                }),
            }
        }
        (self.disks, reads)
    }
}

impl DiskPlan {
    /// Plans data and returns its place in the arena.
    fn data(&mut self, range: ByteRange) -> u64 {
        let arena_bytes = self.arena_bytes;
        self.arena_bytes += range.len_bytes;
        let mut left = range;
        if let Some(last) = self.writes.last_mut() {
            assert!(
                last.range.end_bytes() <= range.offset_bytes,
                "extents are not in disk order"
            );
            if last.range.end_bytes() == range.offset_bytes && last.arena().is_some() {
                let room = WRITE_BYTES_MAX.saturating_sub(last.range.len_bytes);
                let taken = room.min(range.len_bytes);
                last.range.len_bytes += taken;
                left = ByteRange::between(range.offset_bytes + taken, range.end_bytes());
            }
        }
        while left.len_bytes > 0 {
            let len_bytes = left.len_bytes.min(WRITE_BYTES_MAX);
            let kind = WriteKind::Data {
                arena_bytes: arena_bytes + left.offset_bytes - range.offset_bytes,
            };
            self.writes.push(DiskWrite {
                range: ByteRange::new(left.offset_bytes, len_bytes),
                kind,
            });
            left = ByteRange::between(left.offset_bytes + len_bytes, left.end_bytes());
        }
        arena_bytes
    }

    fn zero(&mut self, range: ByteRange) {
        if let Some(last) = self.writes.last_mut() {
            assert!(
                last.range.end_bytes() <= range.offset_bytes,
                "extents are not in disk order"
            );
            if last.range.end_bytes() == range.offset_bytes && last.kind == WriteKind::Zero {
                last.range.len_bytes += range.len_bytes;
                return;
            }
        }
        self.writes.push(DiskWrite {
            range,
            kind: WriteKind::Zero,
        });
    }
}
