//! A step, loaded: every record it needs read, verified and laid out in memory.
//!
//! Nothing has been written yet when a step exists, so a damaged record stops the step as a whole
//! (P9). Memory: the live data of the step in one buffer, bounded by
//! [`crate::fold::STEP_DATA_BYTES_MAX`], and one record. The buffer of a step that is written
//! serves the next one: touching new memory costs more than filling it.

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
    bytes: u64,
}

impl Step {
    /// Reads and verifies what the plan needs, into `spare` if that is large enough.
    pub(super) fn load(
        group: Name,
        volumes: Vec<Name>,
        plan: Plan,
        source: &mut dyn PayloadSource,
        spare: Option<AlignedBuffer>,
    ) -> Result<Self, PayloadError> {
        let (disks, reads) = plan.finish();
        let bytes = disks.iter().map(|disk| disk.arena_bytes).sum();
        let parts = parts(&disks);
        let arena_bytes = parts.last().map_or(0, |last| last.end);
        let spare = spare.and_then(|mut spare| spare.resize(arena_bytes).then_some(spare));
        let mut arena = spare.unwrap_or_else(|| AlignedBuffer::new(arena_bytes));
        let mut payload = Vec::new();
        let mut placed_bytes = 0;
        for read in &reads {
            load_record(read, source, &mut payload)?;
            placed_bytes += place(read, &payload, &parts, arena.as_mut());
        }
        // What a spare held before is not to reach a disk.
        assert!(placed_bytes == bytes, "an arena is filled in part");
        let arena = arena.freeze();
        let batches = disks.into_iter().zip(parts).map(|(disk, part)| DiskBatch {
            writes: disk.writes,
            arena: arena.slice(part),
        });
        let batches = batches.collect();
        Ok(Self {
            group,
            volumes,
            batches,
            maps: Vec::new(),
            arena,
            bytes,
        })
    }

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
