//! Holds on the base, removals, and stopping: whatever waits for it to rest.

use super::Group;
use super::event::{HoldId, Output, Registered};
use crate::catalog::PointRecord;
use crate::control::{At, Cursor, Page};
use crate::points::any_counts;
use std::collections::BTreeMap;
use wire::Name;

/// Who wants the base to rest.
#[derive(Debug, Default)]
pub(super) struct Holds {
    asked: BTreeMap<HoldId, (Name, At)>,
    held: BTreeMap<HoldId, (Name, PointRecord)>,
}

impl Holds {
    pub(super) fn ask(&mut self, hold: HoldId, volume: Name, at: At) {
        self.asked.insert(hold, (volume, at));
    }

    pub(super) fn release(&mut self, hold: HoldId) {
        self.asked.remove(&hold);
        self.held.remove(&hold);
    }

    /// Someone waits to hold the volume, or does.
    fn has(&self, volume: &Name) -> bool {
        let asked = self.asked.values().map(|(name, _)| name);
        let mut all = asked.chain(self.held.values().map(|(name, _)| name));
        all.any(|name| name == volume)
    }

    /// Someone waits for the base to rest, or holds it.
    pub(super) fn any(&self) -> bool {
        !self.asked.is_empty() || !self.held.is_empty()
    }
}

impl Group {
    /// The base is where it was headed, and nothing moves it.
    fn rests(&self) -> bool {
        self.job.is_none() && self.base.applied == self.base.horizon
    }

    pub(super) fn answer_holds(&mut self) {
        if self.holds.asked.is_empty() {
            return;
        }
        let stuck = self.failed.clone().or_else(|| self.refused());
        let stuck = stuck.or_else(|| self.behind());
        if !self.rests() && stuck.is_none() {
            return;
        }
        let rests = self.rests();
        for (hold, (volume, at)) in std::mem::take(&mut self.holds.asked) {
            let point = self.find_point(at);
            let held = match &stuck {
                Some(text) if !rests => Err(format!(
                    "group {} rests between two points: {text}",
                    self.name
                )),
                _ => point.and_then(|point| {
                    let there = self.is_in(&volume, point).then_some(point);
                    there.ok_or_else(|| {
                        format!(
                            "volume {}/{volume} is at no complete point; let its copy finish",
                            self.name
                        )
                    })
                }),
            };
            if let Ok(point) = held {
                self.holds.held.insert(hold, (volume, point));
            }
            self.out.push_back(Output::Held(hold, held));
        }
    }

    /// The next records between the base and the point that is held.
    pub fn held_page(&self, hold: HoldId, after: Option<Cursor>) -> Option<Page> {
        let (volume, point) = self.holds.held.get(&hold)?;
        Some(self.page(volume, *point, after))
    }

    /// The volume is forgotten as soon as no step writes it; not while someone reads it.
    pub(super) fn remove(&mut self, volume: Name) {
        if self.holds.has(&volume) {
            let why = "is being exported; let that end, then try again";
            let why = format!("volume {}/{volume} {why}", self.name);
            self.out.push_back(Output::Kept(volume, why));
            return;
        }
        self.end_sessions_with(&volume, "was removed here");
        self.removing.push(volume);
    }

    /// A volume was registered. A source that speaks of one before its disk has shown up does so
    /// of another that had the name: it is to say hello again.
    pub(super) fn add(&mut self, volume: Name, registered: Registered) {
        if registered.since.is_none() {
            self.end_sessions_with(&volume, "was registered here anew");
        }
        self.volumes.insert(volume, registered);
    }

    fn end_sessions_with(&mut self, volume: &Name, why: &str) {
        let announced = self.current().is_some_and(|stream| {
            let mut volumes = stream.intake.stream().volumes.iter();
            volumes.any(|spec| spec.name == *volume)
        });
        let greeting = self.greeting.as_ref();
        if announced || greeting.is_some_and(|greeting| greeting.announces(volume)) {
            self.end_sessions(&format!("volume {}/{volume} {why}", self.name));
        }
    }

    /// Whoever wanted it removed waits no longer.
    pub(super) fn keep(&mut self, volume: Name) {
        let before = self.removing.len();
        self.removing.retain(|waiting| *waiting != volume);
        if self.removing.len() < before {
            let why = "is still being written; try again later";
            let why = format!("volume {}/{volume} {why}", self.name);
            self.out.push_back(Output::Kept(volume, why));
        }
    }

    /// Removals that waited for the step to end.
    pub(super) fn finish_removing(&mut self) {
        for volume in std::mem::take(&mut self.removing) {
            self.volumes.remove(&volume);
            self.points.remove(&volume);
            self.base.volumes.remove(&volume);
            for stream in &mut self.streams {
                if let Some(ending) = &mut stream.ending {
                    ending.history.remove(&volume);
                }
                let ends = stream.ending.iter_mut().map(|end| &mut end.milestone);
                let milestones = stream.opening.iter_mut().chain(ends);
                for milestone in milestones {
                    milestone.states.remove(&volume);
                    milestone.point = milestone.point.filter(|_| any_counts(&milestone.states));
                }
            }
            self.base.point = self.base.point.filter(|_| any_counts(&self.base.volumes));
            self.out.push_back(Output::Removed(volume));
        }
    }

    pub(super) fn stop(&mut self) {
        self.end_sessions("the receiver is stopping");
        self.stopping = true;
    }

    /// Once stopping, says when the base has come to rest.
    pub(super) fn finish_stopping(&mut self) {
        let flushed = self.journal_failed.is_some()
            || self.streams.iter().all(super::stream::Stream::is_flushed);
        if self.stopping && self.job.is_none() && flushed && !self.can_move() {
            self.out.push_back(Output::Stopped);
        }
    }
}
