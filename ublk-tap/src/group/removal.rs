//! Removing volumes: what the [`Departure`] decides, done, and told in words.

use super::clerk::{Job, Leaver, Left};
use super::core::{CoreEvent, Mode};
use super::departure::{Departure, Manner, Step, View, Why};
use super::driver::{Driver, wait_of};
use super::volume::Place;
use crate::control::{RemoveRequest, Removed, Reply, ReplyTo};
use crate::copier::Rereads;
use crate::failure::{Exit, Failure};
use crate::settings::{ByteSize, Span};
use crate::state::Unclean;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Name, VolumeIndex};

/// A departure under way.
pub(super) struct Removal {
    pub(super) departure: Departure,
    pub(super) manner: Manner,
    pub(super) volumes: Vec<VolumeIndex>,
    asker: Option<ReplyTo>,
    /// What is given up, as it was when it was decided.
    pub(super) stake: String,
    /// Those for whose devices nothing is cached any more, or whose cache is given up.
    pub(super) retired: BTreeSet<VolumeIndex>,
    /// After this an ending tap no longer waits for its devices.
    pub(super) hard_deadline: Option<Instant>,
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
        if let Some(removal) = &mut self.removal {
            if removal.volumes != volumes || removal.manner == Manner::Ending {
                let text = format!(
                    "volumes of {} are being removed already; try again",
                    self.group
                );
                return reply.fail(Failure::refused(text));
            }
            removal.departure.ask_again(manner, deadline);
            removal.manner = manner;
            if let Some(old) = removal.asker.replace(reply) {
                old.fail(Failure::failed("another remove took over"));
            }
            return;
        }
        if let Some(failure) = self.claimed(&volumes) {
            return reply.fail(failure);
        }
        self.depart(manner, volumes, deadline, Some(reply));
    }

    /// The tap is to end: with whatever can be had within the configured time.
    pub(super) fn end(&mut self, now: Instant) {
        tracing::info!("told to end");
        if self.is_ending() {
            return;
        }
        for adding in self.adding.drain(..) {
            adding.reply.fail(Failure::failed("the tap is ending"));
        }
        if self.tapped.is_empty() {
            self.is_over = true;
            return;
        }
        let asker = self.removal.take().and_then(|removal| removal.asker);
        let volumes = self.tapped.keys().copied().collect();
        let deadline = now + self.settings.stop;
        self.depart(Manner::Ending, volumes, deadline, asker);
        if let Some(removal) = &mut self.removal {
            removal.hard_deadline = Some(deadline + HANG_PATIENCE);
        }
    }

    /// Whether the tap is ending.
    fn is_ending(&self) -> bool {
        self.removal
            .as_ref()
            .is_some_and(|removal| removal.manner == Manner::Ending)
    }

    /// Takes the removal under way one step further.
    pub(super) fn step_removal(&mut self, now: Instant) {
        let Some(mut removal) = self.removal.take() else {
            return;
        };
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
        match removal.departure.step(now, &view) {
            Step::Wait => {}
            Step::Refuse(why) => {
                let failure = self.refusal(now, why, &removal);
                return self.refuse(removal, failure);
            }
            Step::Retire => {
                if let Some(failure) = self.retire_devices(&mut removal) {
                    return self.refuse(removal, failure);
                }
            }
            Step::Stop => {
                if let Some(failure) = self.stop_devices(now, &mut removal) {
                    return self.refuse(removal, failure);
                }
            }
            Step::Leave => self.leave(now, &removal.volumes),
            Step::TellLate(why) => {
                let failure = self.refusal(now, why, &removal);
                answer(&mut removal, Err(failure));
            }
            Step::Seal => self.seal(now, &mut removal),
        }
        self.removal = Some(removal);
    }

    /// The clerk has written down how the volumes were left.
    pub(super) fn sealed(&mut self, now: Instant, clean: &[Name], failure: Option<Failure>) {
        let Some(mut removal) = self.removal.take() else {
            return;
        };
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
        self.is_over |= is_last;
        let removed = Removed {
            volumes,
            clean: is_clean,
            given_up,
            is_last,
        };
        let unexpected = !is_clean && removal.manner == Manner::Whole;
        let result = match failure {
            Some(failure) => Err(failure),
            None if unexpected => Err(self.broke_meanwhile(now, &removed)),
            None => Ok(removed),
        };
        answer(&mut removal, result);
    }

    fn depart(
        &mut self,
        manner: Manner,
        volumes: Vec<VolumeIndex>,
        deadline: Instant,
        asker: Option<ReplyTo>,
    ) {
        let captured = self.ring.captured();
        let departure = Departure::new(manner, captured, deadline);
        let stake = String::new();
        self.removal = Some(Removal {
            departure,
            manner,
            volumes,
            asker,
            stake,
            retired: BTreeSet::new(),
            hard_deadline: None,
        });
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
                    .is_some_and(|tapped| tapped.asker.is_some() || tapped.is_starting())
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
            if let Some(front) = tapped.and_then(|tapped| tapped.front.as_mut()) {
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

    /// Claims the `leave` of volumes that are whole; the others have nothing to say.
    fn leave(&mut self, now: Instant, volumes: &[VolumeIndex]) {
        for index in volumes {
            match self.core.place(*index) {
                Some(Place::Ready) if self.is_certain(*index) => {
                    self.decide(now, CoreEvent::Leave { index: *index });
                }
                Some(Place::Left { .. } | Place::Leaving) | None => {}
                Some(_) => {
                    if let Some(copier) = self.tapped.get(index).and_then(|t| t.copier.as_ref()) {
                        copier.cancel();
                    }
                }
            }
        }
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
                _ if removal.manner == Manner::Abandon => Left::Unclean(Unclean::Abandoned),
                Some(Place::Outside) => Left::Unclean(Unclean::Broken),
                _ => Left::Unclean(Unclean::NotDrained),
            };
            leavers.push(Leaver {
                volume: tapped.name,
                disk: Arc::clone(&tapped.disk),
                copier: tapped.copier,
                manner,
                returns: removal.manner == Manner::Ending,
            });
        }
        self.post_job(Job::Seal(leavers));
    }

    /// What would be lost now, in seconds and bytes.
    pub(super) fn stake(&self, now: Instant) -> String {
        let (bytes, age) = self.lag(now);
        format!(
            "{} of changes, the oldest {} old",
            ByteSize(bytes),
            Span(age)
        )
    }

    fn refusal(&self, now: Instant, why: Why, removal: &Removal) -> Failure {
        let group = &self.group;
        let what = self.names(&removal.volumes);
        let stake = self.stake(now);
        let link = self.link.words();
        match why {
            Why::NotWhole => {
                let mode = self.core.mode();
                let reason = self.core.reason(now);
                let stake = match mode {
                    Mode::Broken => format!("{stake} are not at the receiver"),
                    _ => "the copy is not complete".to_owned(),
                };
                let text = format!(
                    "{what}: {stake} (mode {mode}: {reason}); wait for it, or give it up with \
                     --abandon"
                );
                Failure::refused(text)
            }
            Why::NotDrained if self.ring.acked() == self.ring.captured() => Failure::late(format!(
                "{what}: the receiver cannot confirm it (link {link}); wait for it, or remove \
                     with --abandon"
            )),
            Why::NotDrained => Failure::late(format!(
                "{what}: {stake}, are not at the receiver (link {link}); wait for it, or give \
                 them up with --abandon"
            )),
            Why::NotWritten => Failure::late(format!(
                "{what}: what is cached for it is still being written to the disk; nothing has \
                 changed, try again"
            )),
            Why::Busy => Failure::late(format!(
                "{what}: requests are still waiting for the disk; it goes on, see `ublk-tap status \
                 {group}`"
            )),
            Why::LeftBehind => Failure::late(format!(
                "{what}: the device is gone, but {stake}, are not at the receiver (link {link}); \
                 run it again to wait, or give them up with --abandon"
            )),
        }
    }

    fn broke_meanwhile(&self, now: Instant, removed: &Removed) -> Failure {
        let names = removed.volumes.join(", ");
        let why = match self.core.reason(now) {
            reason if reason.is_empty() => "the last writes failed".to_owned(),
            reason => reason,
        };
        let text = format!("{names}: removed, but not clean ({why}); the next add copies it again");
        Failure::new(Exit::Failed, text)
    }

    fn names(&self, volumes: &[VolumeIndex]) -> String {
        let name = |index| Some(format!("{}/{}", self.group, self.members.name(index)?));
        let names: Vec<String> = volumes.iter().filter_map(|index| name(*index)).collect();
        names.join(", ")
    }
}

fn answer(removal: &mut Removal, result: Result<Removed, Failure>) {
    let Some(reply) = removal.asker.take() else {
        return;
    };
    match result {
        Ok(removed) => reply.send(Reply::Removed(removed)),
        Err(failure) => reply.fail(failure),
    }
}
