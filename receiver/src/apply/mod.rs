//! Apply: moves the base forward, step by step.
//!
//! Owned by one thread of the daemon. A step is folded ([`crate::fold`]), loaded (every record
//! read and verified), then written to all target disks at once and synced on each. Blocking: call
//! it from a thread of its own, never from the runtime that serves the link.
//!
//! Promises: a record that fails its checksum is never applied, and nothing of its step is (P9);
//! a failed write or sync stays failed for its group until its targets are opened anew (P10); memory is the data of
//! one step, writes in flight are bounded per disk (P11).
//!
//! Does not: decide how far a step reaches, commit positions, free the journal.

mod disk;
mod known;
mod memory;
mod payload;
mod step;
mod uring;
mod zeroing;

#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskBatch, DiskError};
pub use known::{KNOWN_BLOCK_BYTES, KNOWN_BLOCKS, KnownBlocks, known_ranges};
pub use memory::{MemoryDisk, MemoryImage};
pub use payload::{PayloadError, PayloadSource};
pub use step::Step;
pub use uring::{IN_FLIGHT_MAX, UringDisk};

use crate::catalog::VolumeRecord;
use crate::fold::{Extent, Fold, Plan};
use crate::target::{self, Layout, MapChange, Placement, PoolFull, TargetError};
use std::collections::BTreeMap;
use wire::{Name, VolumeName};

/// Why a step was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A record cannot be read or is not what was received; nothing was written.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A target disk failed; the step may be written in part.
    #[error("{0}; see to the disk")]
    Disk(#[from] DiskError),
    /// An earlier step of the group failed.
    #[error("group {group} is no longer applied: {reason}")]
    Failed {
        /// The group.
        group: Name,
        /// What failed then.
        reason: String,
    },
    /// There is no room for what is new; nothing was written.
    #[error("volume {volume}: {full}; discard at the source, or give it a larger pool")]
    Full {
        /// The volume.
        volume: VolumeName,
        /// How large the pool is.
        full: PoolFull,
    },
    /// The volume has no open targets.
    #[error("volume {0} has no open targets")]
    NotOpen(VolumeName),
}

/// What a step left behind: to be committed beside the applied stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Per volume touched, the known blocks of its targets, in order.
    pub known: Vec<(Name, Vec<KnownBlocks>)>,
    /// How the maps of pools change.
    pub maps: Vec<(Name, Vec<MapChange>)>,
}

/// The base: all open volumes and their disks.
#[derive(Default)]
pub struct Applier {
    volumes: BTreeMap<VolumeName, OpenVolume>,
    failed: BTreeMap<Name, String>,
}

struct OpenVolume {
    placement: Placement,
    sector_bytes: u32,
    disks: Vec<Box<dyn Disk>>,
}

impl Applier {
    /// An applier without volumes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the targets of a volume, checks that they are the ones it was given, and starts one
    /// thread per target. Nothing is written.
    pub fn add(&mut self, record: &VolumeRecord) -> Result<(), TargetError> {
        self.add_mapped(record, &[])
    }

    /// The same, with the map of a pool.
    pub fn add_mapped(
        &mut self,
        record: &VolumeRecord,
        map: &[MapChange],
    ) -> Result<(), TargetError> {
        assert!(
            !self.is_open(&record.name),
            "volume {} is open already",
            record.name
        );
        let placement = record.placement(map)?;
        let mut disks: Vec<Box<dyn Disk>> = Vec::with_capacity(record.targets.len());
        for open in target::open_volume(record)? {
            let path = open.path.clone();
            let disk =
                UringDisk::spawn(open).map_err(|source| TargetError::Thread { path, source })?;
            disks.push(Box::new(disk));
        }
        self.add_placed(record.name.clone(), placement, record.sector_bytes, disks);
        Ok(())
    }

    /// Adds a volume over disks opened elsewhere.
    pub fn add_disks(
        &mut self,
        volume: VolumeName,
        layout: Layout,
        sector_bytes: u32,
        disks: Vec<Box<dyn Disk>>,
    ) {
        self.add_placed(volume, Placement::Plain(layout), sector_bytes, disks);
    }

    /// The same, however the volume lies on them.
    pub fn add_placed(
        &mut self,
        volume: VolumeName,
        placement: Placement,
        sector_bytes: u32,
        disks: Vec<Box<dyn Disk>>,
    ) {
        assert!(
            disks.len() == placement.targets(),
            "{} disks for {} targets",
            disks.len(),
            placement.targets()
        );
        let before = self.volumes.insert(
            volume,
            OpenVolume {
                placement,
                sector_bytes,
                disks,
            },
        );
        assert!(before.is_none(), "a volume is open once");
    }

    /// Closes a volume; false if it was not open.
    pub fn remove(&mut self, volume: &VolumeName) -> bool {
        self.volumes.remove(volume).is_some()
    }

    /// Whether the targets of the volume are open.
    pub fn is_open(&self, volume: &VolumeName) -> bool {
        self.volumes.contains_key(volume)
    }

    /// An empty fold of an open volume.
    pub fn fold(&self, volume: &VolumeName) -> Option<Fold> {
        let open = self.volumes.get(volume)?;
        Some(Fold::new(open.placement.size_bytes(), open.sector_bytes))
    }

    /// The targets of the group are opened anew: what failed before says nothing about them.
    pub fn forget_failure(&mut self, group: &Name) {
        self.failed.remove(group);
    }

    /// Why the group is no longer applied, if so.
    pub fn failure(&self, group: &Name) -> Option<&str> {
        self.failed.get(group).map(String::as_str)
    }

    /// Reads and verifies all a step of one group needs. Each volume is named at most once.
    pub fn load(
        &self,
        group: &Name,
        changes: Vec<(Name, Vec<Extent>)>,
        source: &mut dyn PayloadSource,
    ) -> Result<Step, ApplyError> {
        self.check(group)?;
        let mut plan = Plan::new();
        let mut volumes = Vec::with_capacity(changes.len());
        let mut maps = Vec::new();
        for (volume, extents) in changes {
            assert!(
                !volumes.contains(&volume),
                "volume {volume} is twice in a step"
            );
            let open = self.volume(group, &volume)?;
            let laid = open.placement.plan(&extents);
            let laid = laid.map_err(|full| ApplyError::Full {
                volume: VolumeName {
                    group: group.clone(),
                    volume: volume.clone(),
                },
                full,
            })?;
            plan.add_placed(open.placement.targets(), &laid.placed);
            if !laid.changes.is_empty() {
                maps.push((volume.clone(), laid.changes));
            }
            volumes.push(volume);
        }
        let mut step = Step::load(group.clone(), volumes, plan, source)?;
        step.maps = maps;
        Ok(step)
    }

    /// Writes a step to all its disks at once and syncs each.
    ///
    /// The horizon must be durable before, the applied stamp is committed after. An error is
    /// final for the group: no later step of it is written.
    pub fn apply(&mut self, step: Step) -> Result<Applied, ApplyError> {
        self.check(&step.group)?;
        let group = step.group.clone();
        self.write(step).inspect_err(|error| {
            self.failed.insert(group, error.to_string());
        })
    }

    /// What a step left behind is committed: segments it took are theirs, those it freed nobody's.
    pub fn committed(&mut self, group: &Name, applied: &Applied) {
        for (volume, changes) in &applied.maps {
            let name = VolumeName {
                group: group.clone(),
                volume: volume.clone(),
            };
            if let Some(open) = self.volumes.get_mut(&name) {
                open.placement.commit(changes);
            }
        }
    }

    fn check(&self, group: &Name) -> Result<(), ApplyError> {
        match self.failed.get(group) {
            Some(reason) => Err(ApplyError::Failed {
                group: group.clone(),
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    fn volume(&self, group: &Name, volume: &Name) -> Result<&OpenVolume, ApplyError> {
        let name = VolumeName {
            group: group.clone(),
            volume: volume.clone(),
        };
        self.volumes.get(&name).ok_or(ApplyError::NotOpen(name))
    }

    fn write(&mut self, step: Step) -> Result<Applied, ApplyError> {
        for volume in &step.volumes {
            self.volume(&step.group, volume)?;
        }
        let mut batches = step.batches.into_iter();
        let mut outcome = Ok(());
        for volume in &step.volumes {
            for disk in self.disks(&step.group, volume) {
                let batch = batches.next().unwrap_or_default();
                let started = disk.start(batch);
                outcome = outcome.and(started);
            }
        }
        assert!(batches.next().is_none(), "a batch without a disk");
        // Every disk is waited for, also after an error: none may still write when this returns.
        let mut known = Vec::with_capacity(step.volumes.len());
        for volume in &step.volumes {
            let mut blocks = Vec::new();
            for disk in self.disks(&step.group, volume) {
                match disk.finish() {
                    Ok(found) => blocks.push(found),
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
            known.push((volume.clone(), blocks));
        }
        outcome?;
        let maps = step.maps;
        Ok(Applied { known, maps })
    }

    fn disks(&mut self, group: &Name, volume: &Name) -> &mut [Box<dyn Disk>] {
        let name = VolumeName {
            group: group.clone(),
            volume: volume.clone(),
        };
        self.volumes
            .get_mut(&name)
            .map_or(&mut [], |open| open.disks.as_mut_slice())
    }
}
