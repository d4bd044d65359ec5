//! The seam to the running daemon: what the verbs need of it.

use super::message::JournalPlace;
use super::points::{At, Cursor, Page, PointRun};
use super::status::{GroupStatus, Status, VolumeStatus, iso_8601};
use crate::catalog::{
    Catalog, CatalogError, Lane, PointRecord, StreamState, VolumeRecord, VolumeState,
};
use crate::config::Settings;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wire::{Name, VolumeName};

/// The live half of the verbs. Calls block; they come from the threads of the control socket.
pub trait Daemon: Send + Sync {
    /// Where everything stands. Sources and the targets of volumes are filled in by the caller.
    fn status(&self) -> Status;

    /// The source was revoked: ends its sessions now.
    fn revoked(&self, source: &Name);

    /// The volume was registered: opens its targets. An error undoes the registration.
    fn volume_added(&self, volume: &VolumeRecord) -> Result<(), String>;

    /// The volume is about to be forgotten: stops applying it and closes its targets. An error
    /// leaves it as it is.
    fn volume_removing(&self, volume: &VolumeName) -> Result<(), String>;

    /// The retained points of a group, oldest first.
    fn points(&self, group: &Name) -> Result<Vec<PointRun>, String>;

    /// The points of the group go on without the source; its volumes stay at the newest one.
    fn detach(&self, lane: &Lane) -> Result<(), String>;

    /// Ends the running step, then applies nothing of the volume's group until the hold is
    /// dropped. Refused if the volume is not part of the point.
    fn hold(&self, volume: &VolumeName, at: At) -> Result<Box<dyn Hold>, String>;
}

/// Apply is held back for as long as this lives.
pub trait Hold: Send {
    /// The point that is held: the base, and the records of all pages on top of it.
    fn point(&self) -> PointRecord;

    /// The next of those records.
    fn page(&self, after: Option<Cursor>) -> Result<Page, String>;

    /// Where they lie; none if there are none.
    fn journal(&self) -> Option<JournalPlace>;
}

/// Stands in for the daemon while none runs: what the catalog says is all there is.
#[derive(Debug)]
pub struct Stopped {
    settings: Settings,
    catalog: Arc<Catalog>,
}

struct Still(PointRecord);

impl Hold for Still {
    fn point(&self) -> PointRecord {
        self.0
    }

    fn page(&self, _after: Option<Cursor>) -> Result<Page, String> {
        Ok(Page::default())
    }

    fn journal(&self) -> Option<JournalPlace> {
        None
    }
}

impl Stopped {
    /// No daemon over this catalog, which the caller holds open: none can start meanwhile.
    pub fn new(settings: Settings, catalog: Arc<Catalog>) -> Self {
        Self { settings, catalog }
    }

    fn groups(&self) -> Result<Vec<GroupStatus>, CatalogError> {
        let mut lanes: BTreeMap<Lane, GroupStatus> = BTreeMap::new();
        for record in self.catalog.volumes()? {
            let lane = record.lane();
            let state = self.catalog.stream(&lane)?.unwrap_or_default();
            let generation = self.catalog.group(&lane.group)?;
            let status = lanes.entry(lane).or_insert_with(|| GroupStatus {
                generation: generation.map_or(0, |group| group.generation.counter),
                ..group_status(&record, &state)
            });
            status.volumes.push(volume_status(&record, &state));
        }
        let cut = |group: &Name| self.catalog.cut(group);
        crate::serve::groups_of(lanes.into_values(), cut)
    }

    /// Where the sources of a group are together is known only while it runs.
    fn alone(&self, group: &Name) -> Result<Option<Lane>, String> {
        let volumes = self.catalog.group_volumes(group);
        let volumes = volumes.map_err(|error| error.to_string())?;
        let lanes: BTreeSet<Lane> = volumes.iter().map(VolumeRecord::lane).collect();
        if lanes.len() > 1 {
            return Err(format!(
                "the receiver is not running, and the sources of group {group} are brought to one \
                 point only while it does: start it with `serve`"
            ));
        }
        Ok(lanes.into_iter().next())
    }
}

fn group_status(record: &VolumeRecord, state: &StreamState) -> GroupStatus {
    let known = state.incarnation.counter > 0;
    GroupStatus {
        group: record.name.group.to_string(),
        source: record.source.to_string(),
        incarnation: known.then(|| state.incarnation.to_string()),
        applied: state.applied.0,
        recoverable_to: state.point.map(|point| iso_8601(point.mark)),
        recoverable_stamp: state.point.map_or(0, |point| point.stamp.0),
        mode: "stopped".into(),
        ..GroupStatus::default()
    }
}

fn volume_status(record: &VolumeRecord, state: &StreamState) -> VolumeStatus {
    let known = state
        .volumes
        .get(&record.name.volume)
        .copied()
        .unwrap_or_default();
    let word = match known {
        VolumeState::Absent => "absent",
        VolumeState::Copying { .. } => "copying",
        VolumeState::Ready => "ready",
        VolumeState::Left { .. } => "left",
        VolumeState::Doubt => "doubt",
    };
    VolumeStatus {
        volume: record.name.volume.to_string(),
        size_bytes: record.size_bytes,
        sector_bytes: record.sector_bytes,
        state: word.into(),
        ..VolumeStatus::default()
    }
}

impl Daemon for Stopped {
    fn status(&self) -> Status {
        let (groups, error) = match self.groups() {
            Ok(groups) => (groups, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let listen = self.settings.listen.to_string();
        Status {
            listen,
            groups,
            error,
            ..Status::default()
        }
    }

    fn revoked(&self, _source: &Name) {}

    fn volume_added(&self, _volume: &VolumeRecord) -> Result<(), String> {
        Ok(())
    }

    fn volume_removing(&self, _volume: &VolumeName) -> Result<(), String> {
        Ok(())
    }

    fn points(&self, group: &Name) -> Result<Vec<PointRun>, String> {
        let Some(lane) = self.alone(group)? else {
            return Ok(Vec::new());
        };
        let state = self
            .catalog
            .stream(&lane)
            .map_err(|error| error.to_string())?;
        let point = state.and_then(|state| state.point);
        let runs = point.map(|point| PointRun::new(point, point, 1));
        Ok(Vec::from_iter(runs))
    }

    fn detach(&self, lane: &Lane) -> Result<(), String> {
        Err(format!(
            "the receiver is not running, so nothing waits for source {}: start it with `serve`, \
             then say it again",
            lane.source
        ))
    }

    fn hold(&self, volume: &VolumeName, at: At) -> Result<Box<dyn Hold>, String> {
        let lane = self.alone(&volume.group)?;
        if at != At::Oldest && !self.settings.retain.is_zero() {
            return Err(
                "the receiver is not running, and only the oldest point lies on the targets: start \
                 it with `serve`, or ask for that with --at oldest"
                    .into(),
            );
        }
        let state = lane.map(|lane| self.catalog.stream(&lane)).transpose();
        let state = state.map_err(|error| error.to_string())?;
        let state = state.flatten().unwrap_or_default();
        let known = state
            .volumes
            .get(&volume.volume)
            .copied()
            .unwrap_or_default();
        let outside = matches!(
            known,
            VolumeState::Absent | VolumeState::Copying { first: true, .. }
        );
        let Some(point) = state.point.filter(|_| !outside) else {
            return Err(format!(
                "volume {volume} is at no complete point; let its copy finish"
            ));
        };
        if state.horizon != state.applied {
            return Err(format!(
                "the last step of group {} was cut short; run `serve` once to finish it",
                volume.group
            ));
        }
        if !at.is_met_by(point) {
            return Err(format!(
                "group {0} retains no such point; `ublk-tap-receiver points {0}` lists them",
                volume.group
            ));
        }
        Ok(Box::new(Still(point)))
    }
}
