//! A target disk below the applier: forgets what was not synced, refuses writes, or loses power at
//! the n-th of them.

use super::sectors::Sectors;
use crate::planted::{Bug, is};
use receiver::apply::{Disk, DiskBatch, DiskError, KNOWN_BLOCKS, KnownBlocks};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a target holds, and what will happen to it. Clones share it.
#[derive(Clone)]
pub struct Target(Arc<Mutex<State>>);

struct State {
    sectors: Sectors,
    /// So many writes go well yet, then this happens.
    fault: Option<(u64, TargetFault)>,
    is_off: bool,
}

/// What may happen at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// It is refused.
    Refused,
    /// The power goes.
    PowerCut,
}

/// The writing end.
pub struct TargetDisk {
    target: Target,
    batch: Option<DiskBatch>,
    failed: Option<DiskError>,
}

impl Target {
    /// A target that holds this.
    pub fn new(sectors: Sectors) -> Self {
        Self(Arc::new(Mutex::new(State {
            sectors,
            fault: None,
            is_off: false,
        })))
    }

    /// A writer of it.
    pub fn disk(&self) -> TargetDisk {
        TargetDisk {
            target: self.clone(),
            batch: None,
            failed: None,
        }
    }

    /// After so many more writes, `fault` happens.
    pub fn arm(&self, writes: u64, fault: TargetFault) {
        self.state().fault = Some((writes, fault));
    }

    /// Nothing happens to it any more.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Whether the power went.
    pub fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// The power is back; `cut` says whether what was not synced may be lost.
    pub fn restart(&self, cut: Option<&mut crate::dice::Dice>) {
        let mut state = self.state();
        state.is_off = false;
        if let Some(dice) = cut {
            state.sectors.power_cut(dice);
        }
    }

    /// A copy of what it holds.
    pub fn contents(&self) -> Vec<u64> {
        self.state().sectors.contents().to_vec()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, batch: &DiskBatch) -> io::Result<()> {
        for write in &batch.writes {
            match &mut self.fault {
                Some((0, TargetFault::PowerCut)) => {
                    self.is_off = true;
                    return Err(io::Error::other("power cut"));
                }
                Some((0, TargetFault::Refused)) => {
                    self.fault = None;
                    return Err(io::Error::other("refused"));
                }
                Some((left, _)) => *left -= 1,
                None => {}
            }
            let offset = write.range.offset_bytes;
            match write.arena() {
                Some(part) => self.sectors.write(offset, &batch.arena[part], false),
                None => {
                    let zeroes = vec![0; write.range.len_bytes as usize];
                    self.sectors.write(offset, &zeroes, false);
                }
            }
        }
        if !is(Bug::TargetSyncSkipped) {
            self.sectors.sync();
        }
        Ok(())
    }
}

impl Disk for TargetDisk {
    fn start(&mut self, batch: DiskBatch) -> Result<(), DiskError> {
        self.batch = Some(batch);
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn finish(&mut self) -> Result<KnownBlocks, DiskError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let batch = self.batch.take().unwrap_or_default();
        let written = self.target.state().write(&batch);
        written.map_err(|source| {
            let failed = DiskError::Io {
                action: "write",
                path: "simulated".into(),
                source: Arc::new(source),
            };
            self.failed = Some(failed.clone());
            failed
        })?;
        Ok(KnownBlocks([0; KNOWN_BLOCKS]))
    }
}
