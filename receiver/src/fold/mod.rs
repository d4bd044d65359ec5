//! Fold: what a run of settled records leaves behind on one volume. Pure.
//!
//! Owned by the apply step. Records go in by ascending stamp, disjoint extents come out in disk
//! order: for every byte the last write, discard, zero or copy that covered it (P4). [`Plan`] then
//! lays the extents out on the target disks and says which records must be read for them.
//!
//! Promises: the result equals the records done one after the other (property-tested against a
//! serial model); nothing outside the ranges of the records is touched; memory is bounded by
//! [`STEP_CHANGES_MAX`] changes.
//!
//! Does not: read payloads, know files, decide how far a step reaches.

mod extent;
mod plan;
#[cfg(test)]
mod tests;

pub use extent::{ByteRange, Change, Content, Effect, Extent, Placed, Record, RecordAt};
pub use plan::{DiskPlan, DiskWrite, Piece, Plan, RecordRead, WRITE_BYTES_MAX, WriteKind};

use std::collections::BTreeMap;
use wire::Stamp;

/// Most payload bytes a step may leave behind: the applier holds those of two steps at most.
pub const STEP_DATA_BYTES_MAX: u64 = 64 << 20;

/// Most bytes a step may zero: where a volume lies in pieces of 1 MiB each of them is planned.
pub const STEP_ZERO_BYTES_MAX: u64 = 64 << 30;

/// Most changes a step may push before it ends; of 4 KiB each they are 256 MiB.
pub const STEP_CHANGES_MAX: usize = 65_536;

/// Why a change cannot be folded. A record like this was let in by mistake: it is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The range is empty, not of whole sectors, or ends outside the volume.
    #[error(
        "record {stamp} covers {range}, which is not whole sectors inside a volume of \
         {size_bytes} bytes; copy the volume again"
    )]
    Range {
        /// Stamp of the record.
        stamp: Stamp,
        /// Its range.
        range: ByteRange,
        /// Size of the volume.
        size_bytes: u64,
    },
}

/// The last write of every byte of one volume, over the changes pushed so far.
#[derive(Debug)]
pub struct Fold {
    size_bytes: u64,
    sector_bytes: u32,
    /// Disjoint pieces by their first byte.
    pieces: BTreeMap<u64, Covered>,
    newest: Option<Stamp>,
    changes: usize,
    /// Payload bytes that are left.
    data_bytes: u64,
}

/// One piece of the map: up to where, and what.
#[derive(Clone, Copy, Debug)]
struct Covered {
    end_bytes: u64,
    content: Content,
}

impl Covered {
    /// Payload bytes of the piece, which begins at `offset_bytes`.
    fn data_bytes(&self, offset_bytes: u64) -> u64 {
        match self.content {
            Content::Data(_) => self.end_bytes - offset_bytes,
            Content::Zero => 0,
        }
    }
}

impl Fold {
    /// An empty fold of a volume.
    pub fn new(size_bytes: u64, sector_bytes: u32) -> Self {
        assert!(sector_bytes.is_power_of_two(), "sector size {sector_bytes}");
        let pieces = BTreeMap::new();
        Self {
            size_bytes,
            sector_bytes,
            pieces,
            newest: None,
            changes: 0,
            data_bytes: 0,
        }
    }

    /// Takes the next change. Stamps strictly ascend: that is the caller's contract.
    pub fn push(&mut self, change: Change) -> Result<(), FoldError> {
        assert!(
            self.newest < Some(change.stamp),
            "{:?} then {:?}",
            self.newest,
            change.stamp
        );
        if !self.admits(change.range) {
            let Change { stamp, range, .. } = change;
            return Err(FoldError::Range {
                stamp,
                range,
                size_bytes: self.size_bytes,
            });
        }
        self.newest = Some(change.stamp);
        self.changes += 1;
        self.carve(change.range);
        let covered = Covered {
            end_bytes: change.range.end_bytes(),
            content: change.content(),
        };
        self.data_bytes += covered.data_bytes(change.range.offset_bytes);
        let before = self.pieces.insert(change.range.offset_bytes, covered);
        assert!(before.is_none(), "a carved range still holds a piece");
        Ok(())
    }

    /// The extents left, disjoint, in disk order; neighbouring zeroes are one extent.
    pub fn finish(self) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::with_capacity(self.pieces.len());
        for (offset_bytes, covered) in self.pieces {
            let range = ByteRange::between(offset_bytes, covered.end_bytes);
            let last = extents.last_mut();
            assert!(
                last.as_ref()
                    .is_none_or(|last| last.range.end_bytes() <= offset_bytes)
            );
            match last {
                Some(last) if last.takes(range, covered.content) => {
                    last.range.len_bytes += range.len_bytes;
                }
                _ => extents.push(Extent {
                    range,
                    content: covered.content,
                }),
            }
        }
        extents
    }

    /// Payload bytes that are left of the changes pushed so far.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Changes pushed so far.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// True before the first change.
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    fn admits(&self, range: ByteRange) -> bool {
        let sector_bytes = u64::from(self.sector_bytes);
        let end_bytes = range.offset_bytes.checked_add(range.len_bytes);
        range.len_bytes > 0
            && range.offset_bytes.is_multiple_of(sector_bytes)
            && range.len_bytes.is_multiple_of(sector_bytes)
            && end_bytes.is_some_and(|end_bytes| end_bytes <= self.size_bytes)
    }

    /// Takes `range` out of every piece that reaches into it.
    fn carve(&mut self, range: ByteRange) {
        let (start, end) = (range.offset_bytes, range.end_bytes());
        if let Some((_, before)) = self.pieces.range_mut(..start).next_back()
            && before.end_bytes > start
        {
            let tail = *before;
            before.end_bytes = start;
            self.data_bytes -= tail.data_bytes(start);
            self.keep_after(end, tail);
        }
        while let Some((&inside, _)) = self.pieces.range(start..end).next() {
            if let Some(tail) = self.pieces.remove(&inside) {
                self.data_bytes -= tail.data_bytes(inside);
                self.keep_after(end, tail);
            }
        }
    }

    /// Puts back what a cut piece still covers from `offset_bytes` on.
    fn keep_after(&mut self, offset_bytes: u64, tail: Covered) {
        if tail.end_bytes > offset_bytes {
            self.data_bytes += tail.data_bytes(offset_bytes);
            self.pieces.insert(offset_bytes, tail);
        }
    }
}
