//! A step, loaded: every record it needs read, verified and laid out in memory.
//!
//! Nothing has been written yet when a step exists, so a damaged record stops the step as a whole
//! (P9). Memory: the live data of the step, bounded by [`crate::fold::STEP_DATA_BYTES_MAX`], and
//! one record.

use super::disk::DiskBatch;
use super::payload::{PayloadError, PayloadSource};
use crate::aligned::AlignedBuffer;
use crate::fold::{Plan, Record, RecordRead};
use crate::target::MapChange;
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
    bytes: u64,
}

impl Step {
    /// Reads and verifies what the plan needs.
    pub(super) fn load(
        group: Name,
        volumes: Vec<Name>,
        plan: Plan,
        source: &mut dyn PayloadSource,
    ) -> Result<Self, PayloadError> {
        let (disks, reads) = plan.finish();
        let bytes = disks.iter().map(|disk| disk.arena_bytes).sum();
        let mut arenas: Vec<AlignedBuffer> = disks
            .iter()
            .map(|disk| AlignedBuffer::new(disk.arena_bytes as usize))
            .collect();
        let mut payload = Vec::new();
        for read in &reads {
            load_record(read, source, &mut payload)?;
            place(read, &payload, &mut arenas);
        }
        let batches = disks
            .into_iter()
            .zip(arenas)
            .map(|(disk, arena)| DiskBatch {
                writes: disk.writes,
                arena: arena.freeze(),
            })
            .collect();
        Ok(Self {
            group,
            volumes,
            batches,
            maps: Vec::new(),
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

/// Copies what is left of a record to where it is written from.
fn place(read: &RecordRead, payload: &[u8], arenas: &mut [AlignedBuffer]) {
    for piece in &read.pieces {
        let len = piece.len_bytes as usize;
        let from = piece.skip_bytes as usize;
        let to = piece.arena_bytes as usize;
        let arena = arenas[piece.disk].as_mut();
        arena[to..to + len].copy_from_slice(&payload[from..from + len]);
    }
}
