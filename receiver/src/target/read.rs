//! Reading a volume back through its layout.

use super::error::TargetError;
use super::identity::TargetIdentity;
use super::open::{OpenTarget, open_readable};
use super::placement::Placement;
use super::pool::MapChange;
use crate::aligned::AlignedBuffer;
use crate::catalog::VolumeRecord;
use crate::fold::ByteRange;
use std::os::unix::fs::FileExt;

/// A volume, open for reading. Takes no lock: who reads a base that is being written sees it so.
#[derive(Debug)]
pub struct VolumeReader {
    placement: Placement,
    targets: Vec<OpenTarget>,
    buffer: AlignedBuffer,
}

impl VolumeReader {
    /// Opens the targets of a volume, if they are the ones it was given.
    pub fn open(record: &VolumeRecord) -> Result<Self, TargetError> {
        Self::open_mapped(record, &[])
    }

    /// The same, with the map of a pool.
    pub fn open_mapped(record: &VolumeRecord, map: &[MapChange]) -> Result<Self, TargetError> {
        let placement = record.placement(map)?;
        let mut targets = Vec::with_capacity(record.targets.len());
        for target in &record.targets {
            let open = open_readable(&target.path, record.sector_bytes)?;
            let found = TargetIdentity::of(&open.file);
            let found = found.map_err(|error| TargetError::io("read", &open.path, error))?;
            if !found
                .as_ref()
                .is_some_and(|found| target.identity.is(found))
            {
                let detail = format!("expected {}", target.identity);
                let (path, volume) = (open.path, record.name.clone());
                return Err(TargetError::Other {
                    path,
                    volume,
                    detail,
                });
            }
            targets.push(open);
        }
        Ok(Self {
            placement,
            targets,
            buffer: AlignedBuffer::new(super::STRIPE_BYTES as usize),
        })
    }

    /// Size of the volume.
    pub fn size_bytes(&self) -> u64 {
        self.placement.size_bytes()
    }

    /// Reads the bytes of a range of whole sectors, at most a stripe long.
    pub fn read(&mut self, range: ByteRange) -> Result<&[u8], TargetError> {
        let len = range.len_bytes as usize;
        assert!(len <= self.buffer.len(), "{range} is longer than a stripe");
        for (part, place) in self.placement.parts(range) {
            let start = (part.offset_bytes - range.offset_bytes) as usize;
            let buffer = &mut self.buffer.as_mut()[start..start + part.len_bytes as usize];
            let Some((target, offset_bytes)) = place else {
                buffer.fill(0);
                continue;
            };
            let target = &self.targets[target];
            target
                .file
                .read_exact_at(buffer, offset_bytes)
                .map_err(|error| TargetError::io("read", &target.path, error))?;
        }
        Ok(&self.buffer.as_slice()[..len])
    }
}
