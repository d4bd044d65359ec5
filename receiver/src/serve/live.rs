//! The live half of the operator's verbs.

use super::begin::registered;
use super::group::Event;
use super::hub::Hub;
use super::messages::Told;
use super::restore;
use crate::catalog::{PointRecord, VolumeRecord};
use crate::control::{
    At, Cursor, Daemon, GroupStatus, Hold, JournalPlace, JournalStatus, Page, PointRun, Status,
};
use std::sync::Arc;
use wire::{Name, VolumeName};

/// The running receiver, as the verbs see it.
#[derive(Debug)]
pub struct Live(pub Arc<Hub>);

/// Keeps a group at rest until it is dropped.
struct Lease {
    hub: Arc<Hub>,
    group: Name,
    id: u64,
    at: PointRecord,
}

impl Daemon for Live {
    fn status(&self) -> Status {
        let Self(hub) = self;
        let facts = hub.journal_facts();
        let names = hub.handles().into_iter().map(|(name, _)| name);
        let asked = |name: Name| {
            hub.ask(&name, Told::Status)
                .unwrap_or_else(|| silent(&name))
        };
        let groups = names.map(asked).collect();
        let (bytes, bytes_max, segments) = (facts.bytes, facts.bytes_max, facts.segments);
        Status {
            running: true,
            listen: hub.listen.clone(),
            journal: JournalStatus {
                bytes,
                bytes_max,
                segments,
            },
            error: facts.failed,
            groups,
            ..Status::default()
        }
    }

    fn revoked(&self, source: &Name) {
        let reason = format!("source {source} was revoked here");
        self.0.dismiss_source(source, &reason);
    }

    fn volume_added(&self, volume: &VolumeRecord) -> Result<(), String> {
        let group = &volume.name.group;
        let Some(handle) = self.0.group(group) else {
            return restore::begin_fresh(&self.0, volume);
        };
        handle.open(volume)?;
        let added = Event::Added(volume.name.volume.clone(), registered(volume));
        self.0.tell(group, Told::Event(added));
        Ok(())
    }

    fn volume_removing(&self, volume: &VolumeName) -> Result<(), String> {
        if self.0.group(&volume.group).is_none() {
            return Ok(());
        }
        let gone = self.0.ask(&volume.group, |answer| {
            Told::Remove(volume.volume.clone(), answer)
        });
        gone.ok_or_else(|| format!("volume {volume} is still being written; try again later"))
    }

    fn points(&self, group: &Name) -> Result<Vec<PointRun>, String> {
        let answer = self.0.ask(group, Told::Points);
        answer.ok_or_else(|| format!("group {group} does not answer; see the log"))
    }

    fn hold(&self, volume: &VolumeName, at: At) -> Result<Box<dyn Hold>, String> {
        let id = self.0.number();
        let (hub, group) = (self.0.clone(), volume.group.clone());
        // Made before the answer is there: whatever becomes of it, the hold is released.
        let mut lease = Lease {
            hub,
            group,
            id,
            at: PointRecord::default(),
        };
        let ask = |answer| Told::Hold(id, volume.volume.clone(), at, answer);
        match self.0.ask(&volume.group, ask) {
            Some(held) => lease.at = held?,
            None => return Err(format!("group {} does not rest; see status", volume.group)),
        }
        Ok(Box::new(lease))
    }
}

/// A group whose thread does not answer any more.
fn silent(name: &Name) -> GroupStatus {
    let reason = "its thread does not answer; see the log, then restart the receiver";
    GroupStatus {
        group: name.to_string(),
        mode: "failed".into(),
        reason: Some(reason.into()),
        ..GroupStatus::default()
    }
}

impl Hold for Lease {
    fn point(&self) -> PointRecord {
        self.at
    }

    fn page(&self, after: Option<Cursor>) -> Result<Page, String> {
        let ask = |answer| Told::Page(self.id, after, answer);
        let page = self.hub.ask(&self.group, ask).flatten();
        page.ok_or_else(|| format!("group {} does not answer; see the log", self.group))
    }

    fn journal(&self) -> Option<JournalPlace> {
        Some(self.hub.journal_place())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.hub
            .tell(&self.group, Told::Event(Event::Release(self.id)));
    }
}
