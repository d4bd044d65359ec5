//! The live half of the operator's verbs.

use super::begin::registered;
use super::combined::{View, combine};
use super::group::{Event, Now};
use super::hub::{ANSWER_PATIENCE, Hub};
use super::messages::Told;
use super::restore;
use crate::catalog::{Lane, PointRecord, VolumeRecord};
use crate::clock::wall_clock;
use crate::control::{
    At, Cursor, Daemon, GroupStatus, Hold, JournalPlace, JournalStatus, Page, PointRun, Status,
    iso_8601,
};
use crate::points::Cut;
use std::sync::Arc;
use std::time::Duration;
use wire::{Name, VolumeName};

/// The running receiver, as the verbs see it.
#[derive(Debug)]
pub struct Live(pub Arc<Hub>);

/// Keeps a group at rest until it is dropped.
struct Lease {
    hub: Arc<Hub>,
    group: Lane,
    id: u64,
    at: PointRecord,
}

impl Daemon for Live {
    fn status(&self) -> Status {
        let Self(hub) = self;
        let facts = hub.journal_facts();
        let groups = hub.groups().iter().map(|lanes| self.group(lanes)).collect();
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
        let lane = volume.lane();
        let Some(handle) = self.0.group(&lane) else {
            return restore::begin_fresh(&self.0, volume);
        };
        handle.open(volume).map_err(|unopened| unopened.reason)?;
        let added = Event::Added(volume.name.volume.clone(), registered(volume));
        self.0.tell(&lane, Told::Event(added));
        Ok(())
    }

    fn volume_removing(&self, volume: &VolumeName) -> Result<(), String> {
        let lane = self.lane_of(volume)?;
        if self.0.group(&lane).is_none() {
            return Ok(());
        }
        let name = &volume.volume;
        let gone = self.0.ask_or_withdraw(
            &lane,
            |answer| Told::Remove(name.clone(), answer),
            (ANSWER_PATIENCE, Event::Keep(name.clone())),
        );
        gone.unwrap_or_else(|| Err(format!("group {} does not answer; see the log", lane.group)))
    }

    fn points(&self, group: &Name) -> Result<Vec<PointRun>, String> {
        let lanes = self.0.lanes_of(group);
        let view = self.0.look_at_cut(group, |cut| View::of(cut, &[]));
        let answer = match (view, &lanes[..]) {
            (Some(view), _) => Some(view.runs()),
            (None, [lane]) => self.0.ask(lane, Told::Points),
            _ => None,
        };
        answer.ok_or_else(|| format!("group {group} does not answer; see the log"))
    }

    fn detach(&self, lane: &Lane) -> Result<(), String> {
        let at = self.0.look_at_cut(&lane.group, Cut::at).flatten();
        let Some(at) = at.filter(|_| self.0.group(lane).is_some()) else {
            return Err(format!(
                "group {} has no source {} whose points wait for others; see status",
                lane.group, lane.source
            ));
        };
        let reason = format!(
            "source {} was detached from group {} at its point of {}",
            lane.source,
            lane.group,
            iso_8601(at)
        );
        self.0.detach(lane, &reason)
    }

    fn hold(&self, volume: &VolumeName, at: At) -> Result<Box<dyn Hold>, String> {
        let id = self.0.number();
        let lane = self.lane_of(volume)?;
        let at = self.at_cut(&lane, at)?;
        let (hub, group) = (self.0.clone(), lane.clone());
        // Made before the answer is there: whatever becomes of it, the hold is released.
        let mut lease = Lease {
            hub,
            group,
            id,
            at: PointRecord::default(),
        };
        let ask = |answer| Told::Hold(id, volume.volume.clone(), at, answer);
        match self.0.ask(&lane, ask) {
            Some(held) => lease.at = held?,
            None => return Err(format!("group {} does not rest; see status", volume.group)),
        }
        Ok(Box::new(lease))
    }
}

impl Live {
    /// A group as a whole.
    fn group(&self, lanes: &[Lane]) -> GroupStatus {
        let hub = &self.0;
        let asked = |lane: &Lane| hub.ask(lane, Told::Status).unwrap_or_else(|| silent(lane));
        let mut statuses: Vec<GroupStatus> = lanes.iter().map(asked).collect();
        let sources: Vec<Name> = lanes.iter().map(|lane| lane.source.clone()).collect();
        let view = |lane: &Lane| hub.look_at_cut(&lane.group, |cut| View::of(cut, &sources));
        match lanes.first().and_then(view) {
            Some(view) => {
                let (wall, up) = (wall_clock(), Duration::ZERO);
                combine(statuses, &view, Now { wall, up })
            }
            None => statuses.pop().unwrap_or_default(),
        }
    }

    fn lane_of(&self, volume: &VolumeName) -> Result<Lane, String> {
        let record = self.0.catalog.volume(volume);
        let record = record.map_err(|error| error.to_string())?;
        let record = record.ok_or_else(|| format!("there is no volume {volume} here"))?;
        Ok(record.lane())
    }

    /// Which point of the lane belongs to a point of its group.
    fn at_cut(&self, lane: &Lane, at: At) -> Result<At, String> {
        let found = self.0.look_at_cut(&lane.group, |cut| match at {
            At::Newest => cut.at().and_then(|at| cut.upto(at)),
            At::Oldest => cut.oldest(),
            At::Mark(mark) => cut.upto(mark),
            At::Stamp(_) => None,
        });
        match (found, at) {
            (None, at) => Ok(at),
            (Some(Some(mark)), _) => Ok(At::Mark(mark)),
            (Some(None), At::Stamp(_)) => Err(format!(
                "the points of group {} are those of several sources: name a time, not a stamp",
                lane.group
            )),
            (Some(None), _) => Err(format!(
                "group {} retains no such point; `ublk-tap-receiver points {}` lists them",
                lane.group, lane.group
            )),
        }
    }
}

/// A group whose thread does not answer any more.
fn silent(lane: &Lane) -> GroupStatus {
    let reason = "its thread does not answer; see the log, then restart the receiver";
    GroupStatus {
        group: lane.group.to_string(),
        source: lane.source.to_string(),
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
