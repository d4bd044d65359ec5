//! Worker: the thread of a group that may block. It opens targets and moves the base.
//!
//! A step is redo-safe: the horizon is committed, then the targets are written and synced, then
//! what was reached is committed (P7, P10). Before that all of it has been read and verified; while
//! the disks write one step, the next one is (P9).

use super::group::{Event, Job, JobOutcome, Step, Unopened};
use super::hub::Hub;
use super::messages::{Told, Work};
use crate::apply::{self, Applier, ApplyError, PayloadError};
use crate::catalog::{Lane, StreamState, VolumeRecord};
use crate::fold::Extent;
use crate::journal::Reader;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;
use wire::Name;

/// Without work for so long, the memory of steps is given back.
const REST_AFTER: Duration = Duration::from_secs(1);

/// What a step changes, by volume.
type Changes = Vec<(Name, Vec<Extent>)>;

struct Worker {
    hub: Arc<Hub>,
    lane: Lane,
    applier: Applier,
    reader: Reader,
    /// A step loaded before its turn, and of what it was made.
    ahead: Option<(Changes, apply::Step)>,
}

/// Starts the thread.
pub(super) fn spawn(
    hub: Arc<Hub>,
    lane: Lane,
    works: Receiver<Work>,
    tell: Sender<Told>,
) -> io::Result<JoinHandle<()>> {
    let reader = hub.reader();
    let applier = Applier::within(hub.budget.clone());
    let name = format!("apply {lane}");
    let mut worker = Worker {
        hub,
        lane,
        applier,
        reader,
        ahead: None,
    };
    std::thread::Builder::new().name(name).spawn(move || {
        let _farewell = Farewell(tell.clone());
        while let Some(work) = worker.next(&works) {
            if let Some(outcome) = worker.take(work)
                && tell.send(Told::Event(Event::Job(outcome))).is_err()
            {
                return;
            }
        }
    })
}

/// Tells the group when the thread ends by a panic: the step under way will never be done.
struct Farewell(Sender<Told>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "its worker has failed; see the log, then restart the receiver";
            let failed = JobOutcome::Failed(reason.into());
            let _ = self.0.send(Told::Event(Event::Job(failed)));
        }
    }
}

impl Worker {
    /// The next thing to do; none when nobody is left to ask for any.
    fn next(&mut self, works: &Receiver<Work>) -> Option<Work> {
        match works.recv_timeout(REST_AFTER) {
            Ok(work) => return Some(work),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        self.ahead = None;
        self.applier.rest();
        works.recv().ok()
    }

    fn take(&mut self, work: Work) -> Option<JobOutcome> {
        if !matches!(&work, Work::Job(job) if matches!(**job, Job::Step(_))) {
            // Laid out for targets that may be others from now on.
            self.ahead = None;
        }
        match work {
            Work::Job(job) => return Some(self.job(*job)),
            Work::Add(record, answer) => {
                let added = self.open(&record);
                let _ = answer.try_send(added);
            }
            Work::Remove(volume, answer) => {
                self.applier.remove(&volume);
                if let Some(answer) = answer {
                    let _ = answer.try_send(Ok(()));
                }
            }
        }
        None
    }

    fn job(&mut self, job: Job) -> JobOutcome {
        let done = match job {
            Job::Commit(state) => self.commit(&state),
            Job::Step(step) => self.step(step),
            Job::Reopen => Err(self.reopen()),
        };
        match done {
            Ok(()) => JobOutcome::Done,
            Err(outcome @ JobOutcome::Reopened(_)) => outcome,
            Err(outcome) => {
                tracing::error!(group = %self.lane.group, ?outcome, "a step was not applied");
                outcome
            }
        }
    }

    /// Opens all targets of the group anew; not one of another disk, nor one someone else wrote to.
    fn reopen(&mut self) -> JobOutcome {
        let records = match self.hub.catalog.lane_volumes(&self.lane) {
            Ok(records) => records,
            Err(error) => return failed(error),
        };
        self.applier.forget_failure(&self.lane.group);
        let mut refused = Vec::new();
        for record in records {
            self.applier.remove(&record.name);
            if let Err(reason) = self.open(&record) {
                refused.push((record.name.volume, reason));
            }
        }
        if refused.is_empty() {
            tracing::info!(group = %self.lane.group, "the targets are open again");
        }
        JobOutcome::Reopened(refused)
    }

    /// Opens a volume's targets.
    fn open(&mut self, record: &VolumeRecord) -> Result<(), Unopened> {
        let map = self.hub.catalog.pool_map(&record.name);
        let map = map.map_err(Unopened::of)?;
        let added = self.applier.add_mapped(record, &map);
        added.map_err(|error| Unopened {
            away: error.is_away(),
            ..Unopened::of(error)
        })
    }

    /// Commits a state, and with it the cut that lets the base go there.
    fn commit(&self, state: &StreamState) -> Result<(), JobOutcome> {
        let commit = self.hub.with_cut(&self.lane.group, |catalog, cut| {
            catalog.commit_stream(&self.lane, state, cut)
        });
        commit.map_err(failed)
    }

    fn step(&mut self, step: Step) -> Result<(), JobOutcome> {
        // All records of the step are durable by now, so what is read from here on is whole.
        self.reader.refresh();
        let ahead = self.ahead.take();
        let loaded = match ahead.filter(|(changes, _)| *changes == step.changes) {
            Some((_, loaded)) => loaded,
            None => self.load(step.changes).map_err(not_loaded)?,
        };
        if let Some(heading) = &step.heading {
            self.commit(heading)?;
        }
        let writing = self.applier.start(loaded).map_err(damage)?;
        if !step.next.is_empty() && !writing.moves_segments() {
            self.load_ahead(step.next);
        }
        let applied = self.applier.finish(writing).map_err(damage)?;
        let catalog = &self.hub.catalog;
        catalog
            .commit_applied(&self.lane, &step.reached, &applied)
            .map_err(failed)?;
        self.applier.committed(&self.lane.group, &applied);
        Ok(())
    }

    fn load(&mut self, changes: Changes) -> Result<apply::Step, ApplyError> {
        self.applier
            .load(&self.lane.group, changes, &mut self.reader)
    }

    /// Loads what will be wanted next. What is wrong with it is found, and said, on its turn.
    fn load_ahead(&mut self, next: Changes) {
        let group = &self.lane.group;
        let loaded = self
            .applier
            .load_ahead(group, next.clone(), &mut self.reader);
        match loaded {
            Ok(loaded) => self.ahead = loaded.map(|loaded| (next, loaded)),
            Err(error) => {
                tracing::debug!(lane = %self.lane, %error, "the next step was not loaded ahead");
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> JobOutcome {
    JobOutcome::Failed(error.to_string())
}

/// Nothing was committed for the step: whatever is wrong, the base is where it was.
fn not_loaded(error: ApplyError) -> JobOutcome {
    match damage(error) {
        JobOutcome::Target(reason) => JobOutcome::NotBegun(reason),
        other => other,
    }
}

fn damage(error: ApplyError) -> JobOutcome {
    let reason = error.to_string();
    match error {
        ApplyError::Payload(
            PayloadError::Io { at, .. }
            | PayloadError::Bad { at, .. }
            | PayloadError::Other { at, .. },
        ) => JobOutcome::Damaged { at, reason },
        ApplyError::Disk(_)
        | ApplyError::Full { .. }
        | ApplyError::Failed { .. }
        | ApplyError::NotOpen(_) => JobOutcome::Target(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_worker_that_panics_says_so() {
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _farewell = Farewell(tell);
            std::panic::panic_any("on purpose");
        });
        assert!(thread.join().is_err());
        let said = told.try_recv();
        assert!(matches!(
            said,
            Ok(Told::Event(Event::Job(JobOutcome::Failed(_))))
        ));
    }
}
