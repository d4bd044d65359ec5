//! Removing volumes: what the [`Departure`] decides, done, and told in words.

use super::clerk::{Entry, Job, Leaver, Left, Sealed};
use super::core::CoreEvent;
use super::departure::{Departure, Manner, Step, View};
use super::driver::{Driver, wait_of};
use super::tapped::Life;
use super::volume::Place;
use crate::control::{RemoveRequest, Removed, Reply, ReplyTo};
use crate::copier::Rereads;
use crate::failure::Failure;
use crate::state::Unclean;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Name, VolumeIndex};

/// A departure under way.
pub(super) struct Removal {
    pub(super) departure: Departure,
    pub(super) volumes: Vec<VolumeIndex>,
    asker: Option<Asker>,
    /// What is given up, as it was when it was decided.
    pub(super) stake: String,
    /// Those for whose devices nothing is cached any more, or whose cache is given up.
    pub(super) retired: BTreeSet<VolumeIndex>,
    /// How long it is waited for that nobody can mount its devices any more; once begun.
    pub(super) hold_until: Option<Instant>,
    /// Nobody can.
    is_held: bool,
    /// After this an ending tap no longer waits for its devices.
    pub(super) hard_deadline: Option<Instant>,
}

/// Who waits for the end of it.
pub(super) enum Asker {
    /// Wants volumes gone.
    Remove(ReplyTo),
    /// Wanted one added, which has failed so.
    Add(ReplyTo, Failure),
}

/// How long an ending tap waits for a disk that does not answer.
const HANG_PATIENCE: Duration = Duration::from_secs(30);

impl Driver {
    /// An operator wants volumes gone.
    pub(super) fn remove(&mut self, now: Instant, request: &RemoveRequest, reply: ReplyTo) {
        let manner = if request.abandon {
            Manner::Abandon
        } else {
            Manner::Whole
        };
        let deadline = now + wait_of(request.timeout_ms);
        let volumes = match self.targets(request.volume.as_deref()) {
            Ok(volumes) => volumes,
            Err(failure) => return reply.fail(failure),
        };
        let is_free = self.removals.is_empty();
        let is_same = |removal: &&mut Removal| {
            removal.volumes == volumes && removal.departure.manner().is_asked()
        };
        if let Some(removal) = self.removals.iter_mut().find(is_same) {
            removal.departure.ask_again(manner, deadline);
            let failure = Failure::failed("another remove took over");
            answer(removal, Err(failure));
            removal.asker = Some(Asker::Remove(reply));
            return;
        }
        if !is_free {
            let group = &self.group;
            let text = format!("volumes of {group} are being removed already; try again");
            return reply.fail(Failure::refused(text));
        }
        let removal = self.removal(manner, volumes, deadline, Some(Asker::Remove(reply)));
        self.removals.push(removal);
    }

    /// The tap is to end: with whatever can be had within the configured time.
    pub(super) fn end(&mut self, now: Instant) {
        tracing::info!("told to end");
        if std::mem::replace(&mut self.is_ending, true) {
            return;
        }
        if self.tapped.is_empty() {
            return self.end_if_unused();
        }
        // What is written down already is no longer ours to end; the rest goes with us.
        let removals = std::mem::take(&mut self.removals).into_iter();
        let (sealing, open): (Vec<_>, Vec<_>) =
            removals.partition(|removal| removal.departure.is_sealing());
        self.removals = sealing;
        let mut asker = None;
        for removal in open {
            match removal.asker {
                Some(Asker::Add(reply, failure)) => reply.fail(failure),
                remove => asker = asker.or(remove),
            }
        }
        let volumes = self.tapped.keys().copied().collect();
        let deadline = now + self.settings.stop;
        let mut removal = self.removal(Manner::Ending, volumes, deadline, asker);
        removal.hard_deadline = Some(deadline + HANG_PATIENCE);
        self.removals.push(removal);
    }

    /// Takes the removals under way one step further.
    pub(super) fn step_removals(&mut self, now: Instant) {
        for removal in std::mem::take(&mut self.removals) {
            let removal = self.step_removal(now, removal);
            self.removals.extend(removal);
        }
    }

    /// Nothing is left of one that is refused.
    fn step_removal(&mut self, now: Instant, mut removal: Removal) -> Option<Removal> {
        if removal.departure.manner().is_asked() && !removal.is_held {
            match self.hold_devices(now, &mut removal) {
                Ok(true) => removal.is_held = true,
                Ok(false) => return Some(removal),
                Err(failure) => {
                    self.refuse(removal, failure);
                    return None;
                }
            }
        }
        let places = self.places(&removal.volumes);
        let view = View {
            places: &places,
            acked: self.safe,
            link_is_down: self.link.is_down(),
            is_retired: removal.volumes.iter().all(|v| removal.retired.contains(v)),
            is_stopped: self.is_stopped(&removal.volumes),
            is_rereading: self.is_rereading(&removal.volumes),
            is_in_doubt: removal.volumes.iter().any(|v| self.core.is_in_doubt(*v)),
        };
        let mut refused = None;
        match removal.departure.step(now, &view) {
            Step::Wait => {}
            Step::Refuse(why) => refused = Some(self.refusal(now, why, &removal)),
            Step::Retire => refused = self.retire_devices(&mut removal),
            Step::Stop => self.stop_devices(now, &mut removal),
            Step::Leave => self.leave(now, &removal.volumes),
            Step::TellLate(why) => {
                let failure = self.refusal(now, why, &removal);
                answer(&mut removal, Err(failure));
            }
            Step::Seal => self.seal(now, &mut removal),
        }
        let Some(failure) = refused else {
            return Some(removal);
        };
        self.refuse(removal, failure);
        None
    }

    /// The clerk has written down how the volumes were left.
    pub(super) fn sealed(&mut self, now: Instant, sealed: Sealed) {
        let Sealed {
            volumes,
            clean,
            failure,
        } = sealed;
        let is_it = |removal: &Removal| removal.volumes == volumes;
        let Some(position) = self.removals.iter().position(is_it) else {
            return;
        };
        let mut removal = self.removals.remove(position);
        let mut names = Vec::new();
        for index in &removal.volumes {
            if let Some(name) = self.members.name(*index) {
                names.push(name.clone());
            }
            self.decide(now, CoreEvent::Dropped { index: *index });
        }
        let is_clean = names.iter().all(|name| clean.contains(name));
        tracing::info!(?names, is_clean, "removed");
        let volumes = names
            .iter()
            .map(|name| format!("{}/{name}", self.group))
            .collect();
        let given_up = if is_clean {
            String::new()
        } else {
            removal.stake.clone()
        };
        let is_last = self.is_empty();
        if removal.departure.manner() == Manner::Undo {
            self.end_if_unused();
        } else {
            self.is_over |= is_last;
        }
        let removed = Removed {
            volumes,
            clean: is_clean,
            given_up,
            is_last,
        };
        let unexpected = !is_clean && removal.departure.manner() == Manner::Whole;
        let result = match failure {
            Some(failure) => Err(failure),
            None if unexpected => Err(self.broke_meanwhile(now, &removed)),
            None => Ok(removed),
        };
        answer(&mut removal, result);
    }

    pub(super) fn removal(
        &self,
        manner: Manner,
        volumes: Vec<VolumeIndex>,
        deadline: Instant,
        asker: Option<Asker>,
    ) -> Removal {
        Removal {
            departure: Departure::new(manner, self.ring.captured(), deadline),
            volumes,
            asker,
            stake: String::new(),
            retired: BTreeSet::new(),
            hold_until: None,
            is_held: false,
            hard_deadline: None,
        }
    }

    fn targets(&self, volume: Option<&str>) -> Result<Vec<VolumeIndex>, Failure> {
        let group = &self.group;
        let is_target = |name: &Name| volume.is_none_or(|volume| name.as_str() == volume);
        let found = self
            .tapped
            .iter()
            .filter(|(_, tapped)| is_target(&tapped.name));
        let volumes: Vec<VolumeIndex> = found.map(|(index, _)| *index).collect();
        let is_adding = self.adding.iter().any(|adding| is_target(&adding.volume))
            || volumes.iter().any(|index| {
                self.tapped
                    .get(index)
                    .is_some_and(|tapped| tapped.is_starting())
            });
        if is_adding {
            let text = format!("a volume of {group} is being added; try again when it is there");
            return Err(Failure::refused(text));
        }
        if volumes.is_empty() {
            let name =
                volume.map_or_else(|| group.to_string(), |volume| format!("{group}/{volume}"));
            let text = format!("{name} is not tapped; see `ublk-tap list`");
            return Err(Failure::refused(text));
        }
        Ok(volumes)
    }

    /// Nothing has changed, and nothing will.
    fn refuse(&mut self, mut removal: Removal, failure: Failure) {
        for index in &removal.volumes {
            let tapped = self.tapped.get_mut(index);
            if let Some(front) = tapped.and_then(|tapped| tapped.front_mut()) {
                front.stay();
            }
        }
        answer(&mut removal, Err(failure));
    }

    fn places(&self, volumes: &[VolumeIndex]) -> Vec<Place> {
        volumes
            .iter()
            .filter_map(|index| self.core.place(*index))
            .collect()
    }

    /// Claims the `leave` of volumes that are whole; the others have nothing to say, but for one that
    /// has only just entered and must not be waited for.
    fn leave(&mut self, now: Instant, volumes: &[VolumeIndex]) {
        for index in volumes {
            match self.core.place(*index) {
                Some(Place::Ready) if self.is_certain(*index) => {
                    self.decide(now, CoreEvent::Leave { index: *index });
                }
                Some(Place::Left { .. } | Place::Leaving) | None => {}
                Some(_) if self.has_failed(*index) => {
                    self.decide(now, CoreEvent::Leave { index: *index });
                    // What it left is no state to continue from.
                    self.decide(now, CoreEvent::Dropped { index: *index });
                }
                Some(_) => {
                    if let Some(copier) = self.tapped.get(index).and_then(|t| t.copier.as_ref()) {
                        copier.cancel();
                    }
                }
            }
        }
    }

    fn has_failed(&self, index: VolumeIndex) -> bool {
        let tapped = self.tapped.get(&index);
        tapped.is_some_and(|tapped| matches!(tapped.life, Life::Failed(_)))
    }

    /// Whether a volume at the receiver is what the disk holds, wherever a write has failed.
    fn is_certain(&self, index: VolumeIndex) -> bool {
        let tapped = self.tapped.get(&index);
        let is_reread = tapped.is_none_or(|tapped| tapped.rereads() == Rereads::Done);
        is_reread && !self.core.is_in_doubt(index)
    }

    /// Whether ranges of volumes in the stream are still to be read again.
    fn is_rereading(&self, volumes: &[VolumeIndex]) -> bool {
        volumes.iter().any(|index| {
            let tapped = self.tapped.get(index);
            let is_pending = tapped.is_some_and(|tapped| tapped.rereads() == Rereads::Pending);
            is_pending && self.core.place(*index) == Some(Place::Ready)
        })
    }

    fn seal(&mut self, now: Instant, removal: &mut Removal) {
        removal.stake = self.stake(now);
        let mut leavers = Vec::new();
        for index in &removal.volumes {
            let place = self.core.place(*index);
            let is_certain = self.is_certain(*index);
            let Some(tapped) = self.tapped.remove(index) else {
                continue;
            };
            self.faults_before += tapped.faults;
            let manner = match place {
                Some(Place::Left { leave }) if self.safe >= leave && is_certain => {
                    Left::Clean(self.ring.incarnation(), leave)
                }
                _ if removal.departure.manner() == Manner::Abandon => {
                    Left::Unclean(Unclean::Abandoned)
                }
                Some(Place::Outside) => Left::Unclean(Unclean::Broken),
                _ => Left::Unclean(Unclean::NotDrained),
            };
            let entry = match tapped.life {
                Life::Failed(before) => Entry::Before(before),
                _ => Entry::Kept {
                    returns: removal.departure.manner() == Manner::Ending,
                },
            };
            leavers.push(Leaver {
                volume: tapped.name,
                disk: Arc::clone(&tapped.disk),
                copier: tapped.copier,
                manner,
                entry,
            });
        }
        self.post_job(Job::Seal {
            volumes: removal.volumes.clone(),
            leavers,
        });
    }
}

fn answer(removal: &mut Removal, result: Result<Removed, Failure>) {
    match (removal.asker.take(), result) {
        (None, _) => {}
        (Some(Asker::Add(reply, failure)), _) => reply.fail(failure),
        (Some(Asker::Remove(reply)), Ok(removed)) => reply.send(Reply::Removed(removed)),
        (Some(Asker::Remove(reply)), Err(failure)) => reply.fail(failure),
    }
}
