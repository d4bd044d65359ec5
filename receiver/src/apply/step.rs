//! A step, loaded: every record it needs read, verified and laid out in memory.
//!
//! Nothing has been written yet when a step exists, so a damaged record stops the step as a whole
//! (P9). Memory: the live data of the step in one buffer, bounded by
//! [`crate::fold::STEP_DATA_BYTES_MAX`] and taken from the budget of all groups, and one record. The buffer of a step that is written
//! serves the next one: touching new memory costs more than filling it.

use super::budget::Share;
use super::disk::DiskBatch;
use super::payload::{PayloadError, PayloadSource};
use crate::aligned::{ALIGN_BYTES, AlignedBuffer};
use crate::fold::{DiskPlan, Plan, Record, RecordRead};
use crate::target::MapChange;
use bytes::Bytes;
use std::ops::Range;
use wire::{Name, RecordHeader};

/// One step of one group, ready to be written.
#[derive(Debug)]
pub struct Step {
    /// The group.
    pub(super) group: Name,
    /// The volumes it touches, in order.
    pub(super) volumes: Vec<Name>,
    /// One batch per disk: all disks of the first volume, then of the next.
    pub(super) batches: Vec<DiskBatch>,
    /// How the maps of pools change once it is written.
    pub(super) maps: Vec<(Name, Vec<MapChange>)>,
    /// The data of all batches.
    pub(super) arena: Bytes,
    /// What that takes of the budget.
    pub(super) share: Share,
    bytes: u64,
}

/// Memory for the data of a step, paid for.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) buffer: AlignedBuffer,
    pub(super) share: Share,
}

/// A step, laid out: how much memory it takes is known, nothing has been read.
#[derive(Debug)]
pub(super) struct Laid {
    group: Name,
    volumes: Vec<Name>,
    maps: Vec<(Name, Vec<MapChange>)>,
    disks: Vec<DiskPlan>,
    reads: Vec<RecordRead>,
    /// Where in the arena that of each disk lies.
    parts: Vec<Range<usize>>,
}

impl Arena {
    pub(super) fn new(bytes: u64, share: Share) -> Self {
        let buffer = AlignedBuffer::new(bytes as usize);
        Self { buffer, share }
    }

    /// Whether it holds so much.
    pub(super) fn holds(&self, bytes: u64) -> bool {
        self.share.bytes() >= bytes
    }
}

impl Laid {
    pub(super) fn new(
        group: Name,
        volumes: Vec<Name>,
        maps: Vec<(Name, Vec<MapChange>)>,
        plan: Plan,
    ) -> Self {
        let (disks, reads) = plan.finish();
        let parts = parts(&disks);
        Self {
            group,
            volumes,
            maps,
            disks,
            reads,
            parts,
        }
    }

    /// Memory its data takes.
    pub(super) fn arena_bytes(&self) -> usize {
        self.parts.last().map_or(0, |last| last.end)
    }

    /// Reads and verifies what it needs, into an arena that is large enough.
    pub(super) fn load(
        self,
        source: &mut dyn PayloadSource,
        arena: Arena,
    ) -> Result<Step, PayloadError> {
        let arena_bytes = self.arena_bytes();
        let Arena { mut buffer, share } = arena;
        assert!(
            buffer.resize(arena_bytes),
            "an arena too small for its step"
        );
        let bytes = self.disks.iter().map(|disk| disk.arena_bytes).sum();
        let mut payload = Vec::new();
        let mut placed_bytes = 0;
        for read in &self.reads {
            load_record(read, source, &mut payload)?;
            placed_bytes += place(read, &payload, &self.parts, buffer.as_mut());
        }
        // What a spare held before is not to reach a disk.
        assert!(placed_bytes == bytes, "an arena is filled in part");
        let arena = buffer.freeze();
        let batches = self.disks.into_iter().zip(self.parts);
        let batches = batches.map(|(disk, part)| DiskBatch {
            writes: disk.writes,
            arena: arena.slice(part),
        });
        let batches = batches.collect();
        Ok(Step {
            group: self.group,
            volumes: self.volumes,
            batches,
            maps: self.maps,
            arena,
            share,
            bytes,
        })
    }
}

impl Step {
    /// The group.
    pub fn group(&self) -> &Name {
        &self.group
    }

    /// Bytes of data it writes; zeroes do not count.
    pub fn data_bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of writes, zeroes included.
    pub fn writes(&self) -> usize {
        self.batches.iter().map(|batch| batch.writes.len()).sum()
    }
}

/// Reads one record and proves that it is the one that was folded, unchanged.
fn load_record(
    read: &RecordRead,
    source: &mut dyn PayloadSource,
    payload: &mut Vec<u8>,
) -> Result<(), PayloadError> {
    let record = read.record;
    let header = source.read(record.at, payload)?;
    header.verify(payload).map_err(|reason| PayloadError::Bad {
        at: record.at,
        reason,
    })?;
    if !is_of(&header, record) {
        let (found, wanted) = (header.stamp, record.stamp);
        return Err(PayloadError::Other {
            at: record.at,
            found,
            wanted,
        });
    }
    Ok(())
}

fn is_of(header: &RecordHeader, record: Record) -> bool {
    header.stamp == record.stamp
        && header.offset_bytes == record.range.offset_bytes
        && u64::from(header.payload_bytes) == record.range.len_bytes
}

/// Where in the one buffer the arena of each disk lies: each begins aligned.
fn parts(disks: &[DiskPlan]) -> Vec<Range<usize>> {
    let mut end: usize = 0;
    let parts = disks.iter().map(|disk| {
        let start = end.next_multiple_of(ALIGN_BYTES);
        end = start + disk.arena_bytes as usize;
        start..end
    });
    parts.collect()
}

/// Copies what is left of a record to where it is written from; returns how many bytes.
fn place(read: &RecordRead, payload: &[u8], parts: &[Range<usize>], arena: &mut [u8]) -> u64 {
    let mut placed_bytes = 0;
    for piece in &read.pieces {
        let len = piece.len_bytes as usize;
        let from = piece.skip_bytes as usize;
        let to = piece.arena_bytes as usize;
        let arena = &mut arena[parts[piece.disk].clone()];
        arena[to..to + len].copy_from_slice(&payload[from..from + len]);
        placed_bytes += piece.len_bytes;
    }
    placed_bytes
}
