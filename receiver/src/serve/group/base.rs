//! Holds on the base, removals, and stopping: whatever waits for it to rest.

use super::Group;
use super::event::{HoldId, Output};
use crate::points::{any_counts, counts_as};
use std::collections::BTreeMap;
use wire::{Name, Stamp};

/// Who wants the base to rest.
#[derive(Debug, Default)]
pub(super) struct Holds {
    asked: BTreeMap<HoldId, Name>,
    held: BTreeMap<HoldId, Name>,
}

impl Holds {
    pub(super) fn ask(&mut self, hold: HoldId, volume: Name) {
        self.asked.insert(hold, volume);
    }

    pub(super) fn release(&mut self, hold: HoldId) {
        self.asked.remove(&hold);
        self.held.remove(&hold);
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
        if !self.rests() && stuck.is_none() {
            return;
        }
        let rests = self.rests();
        for (hold, volume) in std::mem::take(&mut self.holds.asked) {
            let state = self.base.volumes.get(&volume).copied().unwrap_or_default();
            let stamp = self.base.point.map_or(Stamp::ZERO, |point| point.stamp);
            let held = match &stuck {
                Some(text) if !rests => Err(format!(
                    "group {} rests between two points: {text}",
                    self.name
                )),
                _ if counts_as(state) => Ok(stamp),
                _ => Err(format!(
                    "volume {}/{volume} is at no complete point; let its copy finish",
                    self.name
                )),
            };
            if held.is_ok() {
                self.holds.held.insert(hold, volume);
            }
            self.out.push_back(Output::Held(hold, held));
        }
    }

    /// The volume is forgotten as soon as no step writes it.
    pub(super) fn remove(&mut self, volume: Name) {
        let announced = self.current().is_some_and(|stream| {
            stream
                .intake
                .stream()
                .volumes
                .iter()
                .any(|spec| spec.name == volume)
        });
        if announced {
            self.end_sessions(&format!("volume {}/{volume} was removed here", self.name));
        }
        self.removing.push(volume);
    }

    /// Removals that waited for the step to end.
    pub(super) fn finish_removing(&mut self) {
        for volume in std::mem::take(&mut self.removing) {
            self.volumes.remove(&volume);
            self.points.remove(&volume);
            self.base.volumes.remove(&volume);
            for stream in &mut self.streams {
                let milestones = stream.opening.iter_mut();
                let milestones = milestones.chain(stream.ending.iter_mut().map(|(_, end)| end));
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
