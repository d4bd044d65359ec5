//! The jobs of the group's worker: steps of the base, and what the catalog commits.

use super::super::World;
use super::super::source::group_name;
use super::Daemon;
use crate::disk::{StoreReader, Target, TargetFault};
use crate::planted::{Bug, is};
use crate::probes::Probe;
use receiver::apply::{ApplyError, PayloadError};
use receiver::catalog::StreamState;
use receiver::serve::group::{Event as Told, Job, JobOutcome, Step};
use wire::Stamp;

impl World {
    /// The worker does the job that waits.
    pub(in crate::world) fn work_event(&mut self) {
        let Some(daemon) = &mut self.site.daemon else {
            return;
        };
        let Some(job) = daemon.job.take() else { return };
        let outcome = match job {
            Job::Commit(state) => {
                self.commit_state(state);
                JobOutcome::Done
            }
            Job::Reopen => {
                daemon.applier.forget_failure(&group_name());
                Daemon::open_targets(&mut daemon.applier, &self.site.targets, &self.mix);
                JobOutcome::Reopened(Vec::new())
            }
            Job::Step(step) => match self.move_base(step) {
                Some(outcome) => outcome,
                None => return,
            },
        };
        self.tell_group(Told::Job(outcome));
        self.check_base();
    }

    /// One step of the base; none when the receiver died in it.
    fn move_base(&mut self, mut step: Step) -> Option<JobOutcome> {
        self.plant_in_step(&mut step);
        let cut = self.site.cut_in_step.take();
        let daemon = self.site.daemon.as_mut()?;
        if std::mem::take(&mut self.site.is_pool_full) {
            self.reached.reach(Probe::StepNotBegun);
            return Some(JobOutcome::NotBegun("the pool is full".into()));
        }
        let mut reader = StoreReader(self.site.store.clone());
        let loaded = match daemon
            .applier
            .load(&group_name(), step.changes, &mut reader)
        {
            Ok(loaded) => loaded,
            Err(error) => return Some(self.not_applied(&error)),
        };
        if let Some(heading) = step.heading.filter(|_| !is(Bug::HeadingSkipped)) {
            self.commit_state(heading);
        }
        if cut == Some(0) {
            return self.die_in_step();
        }
        if is(Bug::ReachedBeforeWritten) {
            self.commit_state(step.reached.clone());
        }
        if let Some(writes) = cut {
            let volume = self.dice.roll(self.site.targets.len() as u64) as usize;
            self.site.targets[volume].arm(writes - 1, TargetFault::PowerCut);
        }
        self.check_horizon(&step.reached);
        let applied = self.site.daemon.as_mut()?.applier.apply(loaded);
        if self.site.targets.iter().any(Target::is_off) {
            return self.die_in_step();
        }
        if cut.is_some() {
            self.site.targets.iter().for_each(Target::heal);
        }
        if let Err(error) = applied {
            return Some(self.not_applied(&error));
        }
        if cut.is_some() && self.dice.coin() {
            return self.die_in_step();
        }
        self.commit_state(step.reached);
        Some(JobOutcome::Done)
    }

    /// What is about to be written was announced.
    fn check_horizon(&mut self, reached: &StreamState) {
        self.checks += 1;
        let known = self.site.catalog.clone().unwrap_or_default();
        let is_known = known.incarnation == reached.incarnation && known.horizon == reached.horizon;
        // With a bug planted there the words are to come from what the targets hold.
        if !is_known && !is(Bug::HeadingSkipped) && !is(Bug::FoldAcrossPoint) {
            self.fail(format!(
                "P10: the base is written for {reached:?}, committed is {known:?}"
            ));
        }
    }

    fn die_in_step(&mut self) -> Option<JobOutcome> {
        self.reached.reach(Probe::CutInStep);
        self.kill_site(true);
        None
    }

    fn plant_in_step(&mut self, step: &mut Step) {
        if is(Bug::FoldLosesRange) && self.dice.roll(10) == 0 {
            let changes = step.changes.iter_mut().map(|(_, extents)| extents);
            if let Some(extents) = changes.max_by_key(|extents| extents.len()) {
                extents.pop();
            }
        }
        if is(Bug::FoldAcrossPoint) && step.reached.applied > Stamp(1) {
            let before = |state: &mut StreamState| {
                state.applied = state.applied.prev();
                state.horizon = state.horizon.prev();
            };
            let is_at_rest = step.reached.applied == step.reached.horizon;
            let known = self.site.catalog.as_ref().map(|state| state.horizon);
            if is_at_rest && known.is_none_or(|known| known < step.reached.horizon) {
                before(&mut step.reached);
                step.heading = step.heading.take().map(|mut heading| {
                    heading.horizon = heading.horizon.prev();
                    heading.applied = heading.applied.min(heading.horizon);
                    heading
                });
            }
        }
    }

    fn not_applied(&mut self, error: &ApplyError) -> JobOutcome {
        let reason = error.to_string();
        match error {
            ApplyError::Payload(
                PayloadError::Io { at, .. }
                | PayloadError::Bad { at, .. }
                | PayloadError::Other { at, .. },
            ) => {
                self.fail(format!(
                    "P9: a record that was durable cannot be read: {reason}"
                ));
                JobOutcome::Damaged { at: *at, reason }
            }
            _ => {
                self.reached.reach(Probe::TargetFailed);
                JobOutcome::Target(reason)
            }
        }
    }

    /// The catalog commits a state, durably and as a whole.
    fn commit_state(&mut self, state: StreamState) {
        self.checks += 1;
        if let Some(before) = &self.site.catalog {
            let (old, new) = (before.incarnation, state.incarnation);
            let goes_back = old.counter > new.counter
                || before.last_mark > state.last_mark
                || old == new && (before.horizon > state.horizon || before.applied > state.applied);
            if goes_back || state.applied > state.horizon {
                return self.fail(format!("the catalog goes back: {before:?} to {state:?}"));
            }
        }
        self.site.catalog = Some(state);
    }
}
