//! Worker: the thread of a group that may block. It opens targets and moves the base.
//!
//! A step is redo-safe: the horizon is committed, then the targets are written and synced, then
//! what was reached is committed (P7, P10).

use super::group::{Event, Job, JobOutcome, Step};
use super::hub::Hub;
use super::messages::{Told, Work};
use crate::apply::{Applier, ApplyError, PayloadError};
use crate::catalog::VolumeRecord;
use crate::journal::Reader;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use wire::Name;

struct Worker {
    hub: Arc<Hub>,
    group: Name,
    applier: Applier,
    reader: Reader,
}

/// Starts the thread.
pub(super) fn spawn(
    hub: Arc<Hub>,
    group: Name,
    works: Receiver<Work>,
    tell: Sender<Told>,
) -> io::Result<JoinHandle<()>> {
    let reader = hub.reader();
    let name = format!("apply {group}");
    let mut worker = Worker {
        hub,
        group,
        applier: Applier::new(),
        reader,
    };
    std::thread::Builder::new().name(name).spawn(move || {
        let _farewell = Farewell(tell.clone());
        while let Ok(work) = works.recv() {
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
    fn take(&mut self, work: Work) -> Option<JobOutcome> {
        match work {
            Work::Job(job) => return Some(self.job(*job)),
            Work::Add(record, answer) => {
                let added = self.open(&record);
                let _ = answer.try_send(added);
            }
            Work::Remove(volume, answer) => {
                self.applier.remove(&volume);
                if let Some(answer) = answer {
                    let _ = answer.try_send(());
                }
            }
        }
        None
    }

    fn job(&mut self, job: Job) -> JobOutcome {
        let done = match job {
            Job::Commit(state) => self
                .hub
                .catalog
                .commit_stream(&self.group, &state)
                .map_err(failed),
            Job::Step(step) => self.step(step),
            Job::Reopen => Err(self.reopen()),
        };
        match done {
            Ok(()) => JobOutcome::Done,
            Err(outcome @ JobOutcome::Reopened(_)) => outcome,
            Err(outcome) => {
                tracing::error!(group = %self.group, ?outcome, "a step was not applied");
                outcome
            }
        }
    }

    /// Opens all targets of the group anew; not one of another disk, nor one someone else wrote to.
    fn reopen(&mut self) -> JobOutcome {
        let records = match self.hub.catalog.group_volumes(&self.group) {
            Ok(records) => records,
            Err(error) => return failed(error),
        };
        self.applier.forget_failure(&self.group);
        let mut refused = Vec::new();
        for record in records {
            self.applier.remove(&record.name);
            if let Err(reason) = self.open(&record) {
                refused.push((record.name.volume, reason));
            }
        }
        if refused.is_empty() {
            tracing::info!(group = %self.group, "the targets are open again");
        }
        JobOutcome::Reopened(refused)
    }

    /// Opens a volume's targets.
    fn open(&mut self, record: &VolumeRecord) -> Result<(), String> {
        let map = self.hub.catalog.pool_map(&record.name);
        let map = map.map_err(|error| error.to_string())?;
        let added = self.applier.add_mapped(record, &map);
        added.map_err(|error| error.to_string())
    }

    fn step(&mut self, step: Step) -> Result<(), JobOutcome> {
        // All records of the step are durable by now, so what is read from here on is whole.
        self.reader.refresh();
        let loaded = self
            .applier
            .load(&self.group, step.changes, &mut self.reader)
            .map_err(damage)?;
        if let Some(heading) = &step.heading {
            self.hub
                .catalog
                .commit_stream(&self.group, heading)
                .map_err(failed)?;
        }
        let applied = self.applier.apply(loaded).map_err(damage)?;
        let catalog = &self.hub.catalog;
        catalog
            .commit_applied(&self.group, &step.reached, &applied)
            .map_err(failed)?;
        self.applier.committed(&self.group, &applied);
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> JobOutcome {
    JobOutcome::Failed(error.to_string())
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
