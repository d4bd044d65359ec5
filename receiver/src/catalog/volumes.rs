//! Groups and volumes: what is copied, and where it goes.

use super::codec::KnownRow;
use super::error::CatalogError;
use super::pools::remove_map;
use super::records::{Bound, GroupRecord, Lane, StreamState, VolumeRecord};
use super::store::{Catalog, GROUPS, KNOWN, POOLS, STREAMS, VOLUMES, decode, store, stored};
use super::{GROUPS_MAX, codec};
use crate::points::any_counts;
use redb::{ReadableTable, ReadableTableMetadata};
use wire::limits::VOLUMES_MAX;
use wire::{Generation, Name, VolumeName};

impl Catalog {
    /// Registers a volume, and its group with generation `fresh` if it is the first of it.
    pub fn add_volume(&self, record: &VolumeRecord, fresh: Generation) -> Result<(), CatalogError> {
        for target in &record.targets {
            let len = target.path.as_os_str().len();
            if len > codec::PATH_BYTES_MAX {
                let limit = codec::PATH_BYTES_MAX;
                return Err(CatalogError::Full {
                    what: "bytes of a target path",
                    limit,
                });
            }
        }
        self.change(|write| {
            let mut volumes = write.open_table(VOLUMES)?;
            let key = record.name.to_string();
            if volumes.get(key.as_str())?.is_some() {
                return Err(CatalogError::VolumeExists(record.name.clone()));
            }
            group_admits(&volumes, record)?;
            store(&mut volumes, &key, record)?;

            let mut groups = write.open_table(GROUPS)?;
            let group = record.name.group.as_str();
            if groups.get(group)?.is_none() {
                store(&mut groups, group, &GroupRecord { generation: fresh })?;
            }
            if groups.len()? > GROUPS_MAX as u64 {
                return Err(CatalogError::Full {
                    what: "groups",
                    limit: GROUPS_MAX,
                });
            }
            Ok(())
        })
    }

    /// Forgets a volume. Its group stays, so that its generation does.
    pub fn remove_volume(&self, name: &VolumeName) -> Result<VolumeRecord, CatalogError> {
        self.change(|write| {
            let mut volumes = write.open_table(VOLUMES)?;
            let key = name.to_string();
            let record = stored(&volumes, &key)?;
            let record: VolumeRecord =
                record.ok_or_else(|| CatalogError::NoVolume(name.clone()))?;
            volumes.remove(key.as_str())?;
            write.open_table(KNOWN)?.remove(key.as_str())?;
            remove_map(&mut write.open_table(POOLS)?, name)?;
            let lane = record.lane().to_string();
            let mut streams = write.open_table(STREAMS)?;
            if let Some(mut state) = stored::<StreamState>(&streams, &lane)? {
                state.volumes.remove(&name.volume);
                state.point = state.point.filter(|_| any_counts(&state.volumes));
                store(&mut streams, &lane, &state)?;
            }
            Ok(record)
        })
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, CatalogError> {
        let mut volumes: Vec<VolumeRecord> = self.all(VOLUMES)?;
        for volume in &mut volumes {
            self.recognise(volume)?;
        }
        Ok(volumes)
    }

    /// The volumes of a group, by name.
    pub fn group_volumes(&self, group: &Name) -> Result<Vec<VolumeRecord>, CatalogError> {
        let mut volumes = self.volumes()?;
        volumes.retain(|volume| volume.name.group == *group);
        Ok(volumes)
    }

    /// The volumes of one source of a group, by name.
    pub fn lane_volumes(&self, lane: &Lane) -> Result<Vec<VolumeRecord>, CatalogError> {
        let mut volumes = self.group_volumes(&lane.group)?;
        volumes.retain(|volume| volume.source == lane.source);
        Ok(volumes)
    }

    /// One volume.
    pub fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRecord>, CatalogError> {
        let mut found: Option<VolumeRecord> = self.one(VOLUMES, &name.to_string())?;
        if let Some(volume) = &mut found {
            self.recognise(volume)?;
        }
        Ok(found)
    }

    /// Binds the volume to the disk its source has shown first; a bound one stays as it is.
    /// Returns what it is bound to now.
    pub fn bind_disk(&self, name: &VolumeName, disk: &Bound) -> Result<Bound, CatalogError> {
        self.change(|write| {
            let mut volumes = write.open_table(VOLUMES)?;
            let key = name.to_string();
            let found: Option<VolumeRecord> = stored(&volumes, &key)?;
            let mut record = found.ok_or_else(|| CatalogError::NoVolume(name.clone()))?;
            let bound = record.disk.get_or_insert_with(|| disk.clone()).clone();
            store(&mut volumes, &key, &record)?;
            Ok(bound)
        })
    }

    /// One group.
    pub fn group(&self, name: &Name) -> Result<Option<GroupRecord>, CatalogError> {
        self.one(GROUPS, name.as_str())
    }

    /// Raises the generation of a group.
    pub fn commit_generation(
        &self,
        group: &Name,
        generation: Generation,
    ) -> Result<(), CatalogError> {
        self.change(|write| {
            let mut groups = write.open_table(GROUPS)?;
            let before: Option<GroupRecord> = stored(&groups, group.as_str())?;
            assert!(
                before.is_none_or(|before| before.generation.counter <= generation.counter),
                "the generation of {group} never goes back"
            );
            store(&mut groups, group.as_str(), &GroupRecord { generation })
        })
    }

    /// Adds what the targets are recognised by, where a step has left it complete.
    fn recognise(&self, volume: &mut VolumeRecord) -> Result<(), CatalogError> {
        let state = self.stream(&volume.lane())?.unwrap_or_default();
        let row: Option<KnownRow> = self.one(KNOWN, &volume.name.to_string())?;
        let Some(KnownRow(known)) = row.filter(|_| state.horizon == state.applied) else {
            return Ok(());
        };
        for (target, known) in volume.targets.iter_mut().zip(known) {
            target.known = Some(known);
        }
        Ok(())
    }
}

/// A group has at most [`VOLUMES_MAX`] volumes.
fn group_admits(
    volumes: &super::store::OpenTable<'_>,
    record: &VolumeRecord,
) -> Result<(), CatalogError> {
    let group = &record.name.group;
    let mut count = 0;
    for row in volumes.iter()? {
        let (key, bytes) = row?;
        let other: VolumeRecord = decode(key.value(), bytes.value())?;
        if other.name.group != *group {
            continue;
        }
        count += 1;
    }
    if count >= VOLUMES_MAX {
        return Err(CatalogError::Full {
            what: "volumes of a group",
            limit: VOLUMES_MAX,
        });
    }
    Ok(())
}
