//! Apply: moves the base forward, step by step.
//!
//! Owned by one thread of the daemon. A step is folded ([`crate::fold`]), loaded (every record
//! read and verified), then written to all target disks at once and synced on each. While one step
//! is written the next may be loaded. Blocking: call it from a thread of its own, never from the
//! runtime that serves the link.
//!
//! Promises: a record that fails its checksum is never applied, and nothing of its step is (P9);
//! a failed write or sync stays failed for its group until its targets are opened anew (P10); memory is the data of
//! two steps, writes in flight are bounded per disk (P11).
//!
//! Does not: decide how far a step reaches, commit positions, free the journal.

mod budget;
mod disk;
mod known;
mod memory;
mod payload;
mod step;
mod uring;
mod zeroing;

#[cfg(test)]
mod tests;

pub use budget::{Budget, STEPS_BYTES_DEFAULT, STEPS_BYTES_MIN};
pub use disk::{Disk, DiskBatch, DiskError};
pub use known::{KNOWN_BLOCK_BYTES, KNOWN_BLOCKS, KnownBlocks, known_ranges};
pub use memory::{MemoryDisk, MemoryImage};
pub use payload::{PayloadError, PayloadSource};
pub use step::Step;
pub use uring::{IN_FLIGHT_MAX, UringDisk};

use crate::aligned::AlignedBuffer;
use crate::catalog::VolumeRecord;
use crate::fold::{Extent, Fold, Plan};
use crate::target::{self, Layout, MapChange, Placement, PoolFull, TargetError};
use budget::Share;
use bytes::Bytes;
use std::collections::BTreeMap;
use step::{Arena, Laid};
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

/// A step that is being written.
#[derive(Debug)]
#[must_use = "its disks are busy until it is finished"]
pub struct Writing {
    group: Name,
    volumes: Vec<Name>,
    maps: Vec<(Name, Vec<MapChange>)>,
    arena: Bytes,
    share: Share,
    started: Result<(), DiskError>,
}

impl Writing {
    /// Whether it changes where volumes lie: what follows it can be laid out when it is committed.
    pub fn moves_segments(&self) -> bool {
        !self.maps.is_empty()
    }
}

/// The base: all open volumes and their disks.
#[derive(Default)]
pub struct Applier {
    volumes: BTreeMap<VolumeName, OpenVolume>,
    failed: BTreeMap<Name, String>,
    /// Memory of the last step written, for the next one loaded.
    spare: Option<Arena>,
    /// Where memory comes from.
    budget: Budget,
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

    /// One that shares its memory with others.
    pub fn within(budget: Budget) -> Self {
        Self {
            budget,
            ..Self::default()
        }
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

    /// Reads and verifies all a step of one group needs. Each volume is named at most once. Waits
    /// for the memory it takes.
    pub fn load(
        &mut self,
        group: &Name,
        changes: Vec<(Name, Vec<Extent>)>,
        source: &mut dyn PayloadSource,
    ) -> Result<Step, ApplyError> {
        let laid = self.lay_out(group, changes)?;
        let (budget, spare) = (self.budget.clone(), self.spare.take());
        let bytes = laid.arena_bytes() as u64;
        let spare = spare.filter(|spare| spare.holds(bytes));
        let arena = spare.unwrap_or_else(|| Arena::new(bytes, budget.take(bytes)));
        Ok(laid.load(source, arena)?)
    }

    /// The same, ahead of its turn: none if there is no memory for it now.
    pub fn load_ahead(
        &mut self,
        group: &Name,
        changes: Vec<(Name, Vec<Extent>)>,
        source: &mut dyn PayloadSource,
    ) -> Result<Option<Step>, ApplyError> {
        let laid = self.lay_out(group, changes)?;
        let bytes = laid.arena_bytes() as u64;
        let Some(share) = self.budget.try_take(bytes) else {
            return Ok(None);
        };
        Ok(Some(laid.load(source, Arena::new(bytes, share))?))
    }

    fn lay_out(
        &mut self,
        group: &Name,
        changes: Vec<(Name, Vec<Extent>)>,
    ) -> Result<Laid, ApplyError> {
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
        Ok(Laid::new(group.clone(), volumes, maps, plan))
    }

    /// Writes a step to all its disks at once and syncs each.
    ///
    /// The horizon must be durable before, the applied stamp is committed after. An error is
    /// final for the group: no later step of it is written.
    pub fn apply(&mut self, step: Step) -> Result<Applied, ApplyError> {
        let writing = self.start(step)?;
        self.finish(writing)
    }

    /// The first half of [`Self::apply`]: the disks begin to write; does not wait for them.
    pub fn start(&mut self, step: Step) -> Result<Writing, ApplyError> {
        self.check(&step.group)?;
        for volume in &step.volumes {
            let open = self.volume(&step.group, volume).map(|_| ());
            open.map_err(|error| self.fail(&step.group, error))?;
        }
        let mut batches = step.batches.into_iter();
        let mut started = Ok(());
        for volume in &step.volumes {
            for disk in self.disks(&step.group, volume) {
                let batch = batches.next().unwrap_or_default();
                let begun = disk.start(batch);
                started = started.and(begun);
            }
        }
        assert!(batches.next().is_none(), "a batch without a disk");
        Ok(Writing {
            group: step.group,
            volumes: step.volumes,
            maps: step.maps,
            arena: step.arena,
            share: step.share,
            started,
        })
    }

    /// The second half: waits until every disk has written and synced the step.
    pub fn finish(&mut self, writing: Writing) -> Result<Applied, ApplyError> {
        let mut outcome = writing.started;
        // Every disk is waited for, also after an error: none may still write when this returns.
        let mut known = Vec::with_capacity(writing.volumes.len());
        for volume in writing.volumes {
            let mut blocks = Vec::new();
            for disk in self.disks(&writing.group, &volume) {
                match disk.finish() {
                    Ok(found) => blocks.push(found),
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
            known.push((volume, blocks));
        }
        let thawed = AlignedBuffer::thaw(writing.arena);
        self.spare = thawed.map(|buffer| Arena {
            buffer,
            share: writing.share,
        });
        outcome.map_err(|error| self.fail(&writing.group, error.into()))?;
        let maps = writing.maps;
        Ok(Applied { known, maps })
    }

    /// Gives back the memory kept for the next step.
    pub fn rest(&mut self) {
        self.spare = None;
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

    fn fail(&mut self, group: &Name, error: ApplyError) -> ApplyError {
        self.failed.insert(group.clone(), error.to_string());
        error
    }

    fn volume(&self, group: &Name, volume: &Name) -> Result<&OpenVolume, ApplyError> {
        let name = VolumeName {
            group: group.clone(),
            volume: volume.clone(),
        };
        self.volumes.get(&name).ok_or(ApplyError::NotOpen(name))
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
