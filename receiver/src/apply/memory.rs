//! A target disk in memory, for tests: of the applier here, of the daemon elsewhere.

use super::disk::{Disk, DiskBatch, DiskError};
use super::known::{KnownBlocks, known_ranges};
use crate::fold::DiskWrite;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the disk holds, shared with the test.
#[derive(Clone, Debug)]
pub struct MemoryImage(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    writes: usize,
    /// So many writes go well yet, then one fails.
    good_writes: Option<usize>,
}

/// A disk over a [`MemoryImage`].
#[derive(Debug)]
pub struct MemoryDisk {
    image: MemoryImage,
    batch: Option<DiskBatch>,
    failed: Option<DiskError>,
}

impl MemoryImage {
    /// A disk full of `fill`.
    pub fn new(size_bytes: u64, fill: u8) -> Self {
        let bytes = vec![fill; size_bytes as usize];
        Self(Arc::new(Mutex::new(State {
            bytes,
            writes: 0,
            good_writes: None,
        })))
    }

    /// A writer for it.
    pub fn disk(&self) -> MemoryDisk {
        MemoryDisk {
            image: self.clone(),
            batch: None,
            failed: None,
        }
    }

    /// A copy of its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// How many writes it has seen.
    pub fn writes(&self) -> usize {
        self.state().writes
    }

    /// Makes one write fail, after so many that go well.
    pub fn fail_after(&self, writes: usize) {
        self.state().good_writes = Some(writes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for MemoryDisk {
    fn start(&mut self, batch: DiskBatch) -> Result<(), DiskError> {
        assert!(self.batch.is_none(), "one batch at a time");
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        self.batch = Some(batch);
        Ok(())
    }

    fn finish(&mut self) -> Result<KnownBlocks, DiskError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let batch = self.batch.take().unwrap_or_default();
        let mut state = self.image.state();
        if let Err(source) = batch
            .writes
            .iter()
            .try_for_each(|w| state.write(w, &batch.arena))
        {
            let source = Arc::new(source);
            let failed = DiskError::Io {
                action: "write",
                path: "memory".into(),
                source,
            };
            self.failed = Some(failed.clone());
            return Err(failed);
        }
        let blocks = known_ranges(state.bytes.len() as u64)
            .map(|r| state.bytes[r.offset_bytes as usize..r.end_bytes() as usize].to_vec());
        Ok(KnownBlocks::of(&blocks))
    }
}

impl State {
    fn write(&mut self, write: &DiskWrite, arena: &[u8]) -> io::Result<()> {
        if self.good_writes == Some(0) {
            self.good_writes = None;
            return Err(io::Error::other("made to fail"));
        }
        self.good_writes = self.good_writes.map(|left| left - 1);
        self.writes += 1;
        let range = write.range.offset_bytes as usize..write.range.end_bytes() as usize;
        match write.arena() {
            Some(part) => self.bytes[range].copy_from_slice(&arena[part]),
            None => self.bytes[range].fill(0),
        }
        Ok(())
    }
}
