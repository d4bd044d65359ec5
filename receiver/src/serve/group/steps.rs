//! Moving the base: through the streams in order, step by step.

use super::event::{Job, JobOutcome, Now, Output, Step};
use super::stream::{Milestone, Stream};
use super::{Group, STEP_INTERVAL};
use crate::catalog::{PointRecord, StreamState};
use crate::fold::{Change, Effect, RecordAt, STEP_DATA_BYTES_MAX};
use crate::intake::{Progress, Slot};
use crate::journal::Entry;
use crate::points::counts_as;
use std::collections::BTreeMap;
use wire::journal::StreamLost;
use wire::{Name, RecordKind, Stamp, TimeMark, VolumeSpec};

impl Group {
    /// Tells the points what has become usable, through all streams.
    pub(super) fn feed_points(&mut self) {
        loop {
            let here = self.points.incarnation();
            let Some(at) = self
                .streams
                .iter()
                .position(|stream| stream.incarnation() == here)
            else {
                let Some(next) = self.next_stream() else {
                    return;
                };
                self.open_points(next);
                continue;
            };
            self.feed_stream(at);
            let more = at + 1 < self.streams.len();
            let stream = &self.streams[at];
            if stream.intake.closed().is_none() || !stream.is_flushed() || !more {
                return;
            }
            self.end_stream(at);
            self.open_points(at + 1);
        }
    }

    /// The first stream the points have not come to.
    fn next_stream(&self) -> Option<usize> {
        let here = self.points.incarnation().counter;
        self.streams
            .iter()
            .position(|stream| stream.incarnation().counter > here)
    }

    fn open_points(&mut self, at: usize) {
        let Some(stream) = self.streams.get_mut(at) else {
            return;
        };
        let kept = self.points.point();
        self.points.open(stream.incarnation());
        let states = self.points.states_at(Stamp::ZERO);
        stream.opening = Some(Milestone {
            states,
            point: kept,
        });
    }

    fn feed_stream(&mut self, at: usize) {
        let before = self.points.point();
        let horizon = self.base.horizon;
        let Some(stream) = self.streams.get_mut(at) else {
            return;
        };
        let (known, base_here) = (stream.known, self.base.incarnation == stream.incarnation());
        let progress = stream.intake.advance();
        for step in progress {
            self.damaged &= !matches!(step, Progress::Lost { .. });
            match step {
                Progress::Lost { after, reason, .. } if base_here && after < horizon => {
                    self.lose_base(&reason);
                }
                Progress::Upto { stamp, .. } if stamp <= known => {}
                Progress::Member { stamp, .. } | Progress::Gap { stamp, .. } if stamp <= known => {}
                Progress::Unknown { stamp, .. }
                | Progress::Known { stamp, .. }
                | Progress::Scattered { stamp, .. }
                    if stamp <= known => {}
                Progress::Member { volume, .. } if !self.volumes.contains_key(&volume) => {}
                step => self.points.handle(step),
            }
        }
        let back =
            |point: Option<PointRecord>| point.map(|point| point.mark) < before.map(|b| b.mark);
        if back(self.points.point()) {
            self.covered = TimeMark(0);
        }
        self.validate_beats();
    }

    /// The base is between two points and what would take it to the next is gone.
    pub(super) fn lose_base(&mut self, reason: &str) {
        self.points.reset(reason);
        self.base.point = None;
        self.base.volumes.clear();
    }

    /// The stream is closed and all of it is known: this is how far the base goes in it.
    fn end_stream(&mut self, at: usize) {
        let limit = self.points.limit();
        let milestone = self.milestone(limit);
        if let Some(stream) = self.streams.get_mut(at)
            && stream.ending.is_none()
        {
            stream.ending = Some((limit, milestone));
        }
    }

    /// States and point at `stamp` of the incarnation the points are in.
    fn milestone(&self, stamp: Stamp) -> Milestone {
        let here = self.points.incarnation();
        let states = self.points.states_at(stamp);
        let stream = self
            .streams
            .iter()
            .find(|stream| stream.incarnation() == here);
        let kept = stream
            .and_then(|stream| stream.opening.as_ref())
            .and_then(|open| open.point);
        let kept = if self.base.incarnation == here {
            self.base.point.or(kept)
        } else {
            kept
        };
        let counts = states.values().any(|state| counts_as(*state));
        let point = match stream {
            Some(stream) if counts && stamp > Stamp::ZERO => {
                let mark = stream.intake.mark_at(stamp);
                Some(PointRecord {
                    incarnation: here,
                    stamp,
                    mark,
                })
            }
            _ if counts => kept,
            _ => None,
        };
        Milestone { states, point }
    }

    /// Whether the base may still move.
    pub(super) fn can_move(&self) -> bool {
        let Some(stream) = self.streams.front() else {
            return false;
        };
        let blocked = self.damaged || self.failed.is_some() || self.refused().is_some();
        let elsewhere = stream.incarnation() != self.base.incarnation;
        let changes_over = elsewhere && stream.opening.is_some() && !self.holds.any();
        !blocked && (changes_over || self.step_end() > self.base.applied)
    }

    /// Why the targets of the group cannot be written.
    pub(super) fn refused(&self) -> Option<String> {
        let mut volumes = self.volumes.iter();
        volumes.find_map(|(name, volume)| {
            let refused = volume.refused.as_ref()?;
            Some(format!("volume {}/{name}: {refused}", self.name))
        })
    }

    /// How far the base may go in the stream it is in.
    pub(super) fn step_end(&self) -> Stamp {
        let Some(stream) = self.streams.front() else {
            return self.base.applied;
        };
        if stream.incarnation() != self.base.incarnation {
            return self.base.applied;
        }
        let limit = self.stream_end(stream);
        if self.holds.any() {
            limit.min(self.base.horizon)
        } else {
            limit
        }
    }

    /// How far the base may go in `stream`, which it is in.
    fn stream_end(&self, stream: &Stream) -> Stamp {
        let limit = match &stream.ending {
            Some((limit, _)) => *limit,
            None if self.points.incarnation() == stream.incarnation() => self.points.limit(),
            None => self.base.applied,
        };
        limit.max(self.base.horizon).min(stream.intake.usable())
    }

    /// Starts the next job, if there is one and none runs.
    pub(super) fn move_base(&mut self, now: Now) {
        if self.job.is_some() {
            return;
        }
        self.finish_removing();
        if self.damaged || self.failed.is_some() || self.refused().is_some() {
            return;
        }
        self.leave_streams_behind();
        let Some(stream) = self.streams.front() else {
            return;
        };
        let job = if stream.incarnation() != self.base.incarnation {
            self.change_over()
        } else if self.step_end() > self.base.applied && (now.up >= self.next_step || self.stopping)
        {
            self.next_step = now.up + STEP_INTERVAL;
            Some(Job::Step(self.plan_step()))
        } else {
            None
        };
        if let Some(job) = job {
            self.job = Some(job.clone());
            self.out.push_back(Output::Job(job));
        }
    }

    /// Streams whose end the base has reached are of no more use.
    fn leave_streams_behind(&mut self) {
        while self.streams.len() > 1
            && let Some(stream) = self.streams.front()
        {
            let (incarnation, base) = (stream.incarnation(), &self.base);
            let here = incarnation == base.incarnation;
            let ended = here && stream.ending.is_some() && base.applied >= self.stream_end(stream);
            let passed = incarnation.counter < base.incarnation.counter;
            if !ended && !passed {
                return;
            }
            self.out.push_back(Output::Retire(stream.number));
            self.streams.pop_front();
        }
    }

    /// The base rests at the end of the older stream: from now on it is in the next one.
    fn change_over(&self) -> Option<Job> {
        let stream = self.streams.front()?;
        let opening = stream.opening.clone()?;
        if self.holds.any() {
            return None;
        }
        Some(Job::Commit(StreamState {
            incarnation: stream.incarnation(),
            horizon: Stamp::ZERO,
            applied: Stamp::ZERO,
            last_mark: self.base.last_mark,
            point: opening.point,
            volumes: opening.states,
        }))
    }

    fn plan_step(&self) -> Step {
        let limit = self.step_end();
        let (changes, end) = match self.streams.front() {
            Some(stream) => self.changes(stream, limit),
            None => (BTreeMap::new(), limit),
        };
        let heading = self.heading(end);
        let horizon = heading.as_ref().unwrap_or(&self.base).clone();
        Step {
            changes: changes.into_iter().collect(),
            heading,
            reached: StreamState {
                applied: end,
                ..horizon
            },
        }
    }

    /// The state to commit before the base sets out for `end`, if it is not on its way there.
    fn heading(&self, end: Stamp) -> Option<StreamState> {
        if end <= self.base.horizon {
            return None;
        }
        let stream = self.streams.front()?;
        let (horizon, milestone) = match &stream.ending {
            Some((limit, milestone)) => (*limit, milestone.clone()),
            None => {
                let horizon = self.points.horizon_for(end);
                (horizon, self.milestone(horizon))
            }
        };
        assert!(
            horizon >= end,
            "the base sets out for {end} and not past {horizon}"
        );
        Some(StreamState {
            horizon,
            last_mark: self.base.last_mark.max(stream.intake.mark_at(horizon)),
            point: milestone.point,
            volumes: milestone.states,
            ..self.base.clone()
        })
    }

    /// What the records after the applied one do, up to `limit` or a full step.
    fn changes(&self, stream: &Stream, limit: Stamp) -> (BTreeMap<Name, Vec<Change>>, Stamp) {
        let mut changes: BTreeMap<Name, Vec<Change>> = BTreeMap::new();
        let (mut bytes, mut count) = (0, 0);
        for (stamp, slot) in stream.intake.records(self.base.applied, limit) {
            let Some(effect) = effect_of(slot) else {
                continue;
            };
            let Some(spec) = stream.intake.volume(slot.volume()) else {
                continue;
            };
            if !self.is_registered(spec) {
                continue;
            }
            let range = slot.range();
            if matches!(effect, Effect::Data(_)) {
                bytes += range.len_bytes;
            }
            if count >= self.step_changes_max || bytes > STEP_DATA_BYTES_MAX {
                return (changes, stamp.prev());
            }
            count += 1;
            changes.entry(spec.name.clone()).or_default().push(Change {
                stamp,
                range,
                effect,
            });
        }
        (changes, limit)
    }

    /// Whether records of this volume are for the targets registered now. A volume that was removed
    /// and registered again with another geometry has its name only.
    fn is_registered(&self, spec: &VolumeSpec) -> bool {
        let registered = self.volumes.get(&spec.name);
        registered.is_some_and(|volume| {
            (volume.size_bytes, volume.sector_bytes) == (spec.size_bytes, spec.sector_bytes)
        })
    }

    pub(super) fn job_ended(&mut self, outcome: JobOutcome) {
        let Some(job) = self.job.take() else { return };
        match outcome {
            JobOutcome::Done => self.job_done(job),
            JobOutcome::Damaged { at, reason } => self.damaged(at, reason),
            JobOutcome::Failed(reason) => {
                self.notify(format!(
                    "group {} is no longer applied: {reason}",
                    self.name
                ));
                self.failed = Some(reason);
            }
        }
    }

    fn job_done(&mut self, job: Job) {
        self.ack_due = true;
        match job {
            Job::Commit(state) => self.base = state,
            Job::Step(step) => {
                self.base = step.reached;
                let (incarnation, applied) = (self.base.incarnation, self.base.applied);
                if let Some(stream) = self.streams.front_mut() {
                    assert!(
                        stream.incarnation() == incarnation,
                        "the base is in the first stream"
                    );
                    stream.intake.applied(applied);
                    self.out.push_back(Output::Applied(stream.number, applied));
                }
                if self.points.incarnation() == incarnation {
                    self.points.applied(applied);
                }
            }
        }
    }

    /// A record of the step cannot be read: it is lost, and what follows needs a copy.
    fn damaged(&mut self, at: RecordAt, reason: String) {
        let Some(stream) = self.streams.front() else {
            return;
        };
        let Some(stamp) = stream.intake.stamp_at(at) else {
            self.failed = Some(reason);
            return;
        };
        if stream.ending.is_some() {
            self.give_up_rest(reason);
            return;
        }
        self.damaged = true;
        let (number, after, upto) = (stream.number, stamp.prev(), stamp);
        let lost = StreamLost {
            after,
            upto,
            reason,
        };
        self.append(number, vec![Entry::Lost(number, lost)]);
    }

    /// The rest of a closed stream cannot be applied: the base ends where it is.
    fn give_up_rest(&mut self, reason: String) {
        let whole = self.base.applied == self.base.horizon;
        if whole {
            self.points
                .doubt_base(self.base.point, &self.base.volumes, &reason);
        } else {
            self.lose_base(&reason);
        }
        let states = self.points.states_at(Stamp::ZERO);
        let milestone = Milestone {
            states,
            point: self.points.point(),
        };
        let (here, applied) = (self.base.incarnation, self.base.applied);
        for stream in &mut self.streams {
            let limit = if stream.incarnation() == here {
                applied
            } else {
                Stamp::ZERO
            };
            stream.opening = stream.opening.is_some().then(|| milestone.clone());
            stream.ending = stream.ending.is_some().then(|| (limit, milestone.clone()));
        }
        self.base.horizon = applied;
    }
}

/// What a record does to its volume; nothing if it is void or no data.
fn effect_of(slot: &Slot) -> Option<Effect> {
    if slot.is_void() {
        return None;
    }
    match slot.kind() {
        RecordKind::Write | RecordKind::Copy => Some(Effect::Data(slot.at())),
        RecordKind::Discard | RecordKind::Zero => Some(Effect::Zero),
        RecordKind::Bookmark | RecordKind::Member | RecordKind::Gap | RecordKind::Void => None,
    }
}
