//! Moving the base: through the streams in order, step by step.

use super::committed::Committed;
use super::event::{Job, JobOutcome, Now, Output, Registered};
use super::stream::{Ending, Milestone, Stream};
use super::{Group, STEP_INTERVAL};
use crate::catalog::{PointRecord, StreamState};
use crate::fold::RecordAt;
use crate::intake::Progress;
use crate::journal::Entry;
use crate::points::History;
use wire::journal::StreamLost;
use wire::{Stamp, TimeMark};

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
        let incarnation = stream.incarnation();
        let takes = |volume: Option<&Registered>, stamp| {
            volume.is_some_and(|volume| volume.takes(incarnation, stamp))
        };
        let progress = stream.intake.advance();
        for step in progress {
            if matches!(step, Progress::Lost { .. }) {
                self.damaged = false;
                self.meeting.note_loss();
            }
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
                Progress::Member {
                    stamp, ref volume, ..
                } if !takes(self.volumes.get(volume), stamp) => {}
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
        if let Some(point) = self.base.point.take() {
            // What comes anew is marked later than what was said of it.
            self.base.last_mark = self.base.last_mark.max(point.mark);
        }
        self.base.volumes.clear();
    }

    /// The stream is closed and all of it is known: this is how far the base goes in it.
    fn end_stream(&mut self, at: usize) {
        let limit = self.points.limit();
        let milestone = self.milestone(limit);
        if let Some(stream) = self.streams.get_mut(at)
            && stream.ending.is_none()
        {
            let history = self.points.history().clone();
            stream.ending = Some(Ending {
                limit,
                milestone,
                history,
            });
        }
    }

    /// Whether the base may still move.
    pub(super) fn can_move(&self) -> bool {
        let Some(stream) = self.streams.front() else {
            return false;
        };
        let well = self.refused().is_none() && self.behind().is_none();
        let blocked = self.damaged || self.failed.is_some() || !well;
        let elsewhere = stream.incarnation() != self.base.incarnation;
        let changes_over = elsewhere && stream.opening.is_some() && !self.holds.any();
        !blocked && (changes_over || self.step_end() > self.base.applied)
    }

    /// Why the targets of the group cannot be written.
    pub(super) fn refused(&self) -> Option<String> {
        let mut volumes = self.volumes.iter();
        volumes.find_map(|(name, volume)| {
            let refused = &volume.refused.as_ref()?.reason;
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
        } else if self.follows() {
            limit
        } else {
            limit.min(self.window.goal().max(self.base.horizon))
        }
    }

    /// How far the base may go in `stream`, which it is in.
    pub(super) fn stream_end(&self, stream: &Stream) -> Stamp {
        let own = self.own_end(stream);
        let below = self.below_ceiling(stream, own);
        below.max(self.base.horizon).min(own)
    }

    /// The same, if no other source held it back.
    pub(super) fn own_end(&self, stream: &Stream) -> Stamp {
        let limit = match &stream.ending {
            Some(ending) => ending.limit,
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
        if self.damaged || self.failed.is_some() {
            return;
        }
        if self.refused().is_some() || self.behind().is_some() {
            if let Some(job) = self.retry(now) {
                self.start(job);
            }
            return;
        }
        self.leave_streams_behind();
        self.look_at_window(now);
        let Some(stream) = self.streams.front() else {
            return;
        };
        let job = if stream.incarnation() != self.base.incarnation {
            self.change_over()
        } else if self.step_end() > self.base.applied && (now.up >= self.next_step || self.stopping)
        {
            self.next_step = now.up + STEP_INTERVAL;
            match self.plan_step() {
                Ok(step) => Some(Job::Step(step)),
                // Intake lets no such record in.
                Err(error) => {
                    self.failed = Some(error.to_string());
                    None
                }
            }
        } else {
            None
        };
        if let Some(job) = job {
            self.start(job);
        }
    }

    fn start(&mut self, job: Job) {
        if let Job::Step(step) = &job {
            assert!(
                self.committed.allows(step),
                "{:?} does not allow {:?}",
                self.committed,
                step.reached
            );
        }
        self.job = Some(job.clone());
        self.out.push_back(Output::Job(job));
    }

    /// Streams whose end the base has reached are of no more use. The journal keeps the last until
    /// the base is known to be in the next: how the volumes went on in it beyond its end, which no
    /// state of the base says, is found nowhere else.
    fn leave_streams_behind(&mut self) {
        while self.streams.len() > 1
            && let Some(stream) = self.streams.front()
        {
            let (incarnation, base) = (stream.incarnation(), &self.base);
            let here = incarnation == base.incarnation;
            let ended = here && stream.ending.is_some() && base.applied >= self.own_end(stream);
            let passed = incarnation.counter < base.incarnation.counter;
            if !ended && !passed {
                return;
            }
            self.left.push(stream.number);
            self.streams.pop_front();
        }
    }

    fn retire_left(&mut self) {
        let left = self.left.drain(..);
        self.out.extend(left.map(Output::Retire));
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

    pub(super) fn job_ended(&mut self, now: Now, outcome: JobOutcome) {
        let Some(job) = self.job.take() else { return };
        match outcome {
            JobOutcome::Done => self.job_done(job),
            JobOutcome::Damaged { at, reason } => self.damaged(at, reason),
            JobOutcome::NotBegun(reason) => self.target_failed(now, None, reason),
            JobOutcome::Target(reason) => {
                let step = match job {
                    Job::Step(step) => Some(step),
                    Job::Commit(_) | Job::Reopen => None,
                };
                self.target_failed(now, step, reason);
            }
            JobOutcome::Reopened(refused) => self.reopened(now, &refused),
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
        self.window.forget_goal();
        match job {
            Job::Reopen => {}
            Job::Commit(state) => {
                self.committed = Committed::of(&state);
                self.base = state;
                self.retire_left();
            }
            Job::Step(step) => {
                self.targets.took_a_step();
                self.committed = Committed::of(&step.reached);
                self.base = step.reached;
                let (incarnation, applied) = (self.base.incarnation, self.base.applied);
                if let Some(stream) = self.streams.front_mut() {
                    assert!(
                        stream.incarnation() == incarnation,
                        "the base is in the first stream"
                    );
                    stream.intake.applied(applied);
                    if let Some(ending) = &mut stream.ending {
                        ending.history.applied(applied);
                    }
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
            stream.ending = stream.ending.is_some().then(|| Ending {
                limit,
                milestone: milestone.clone(),
                history: History::default(),
            });
        }
        self.base.horizon = applied;
    }
}
