//! Targets that do not take writes: what is said, and when they are tried again.
//!
//! The journal goes on without them. A step that failed is made again from the journal as a whole,
//! over targets that were opened anew: nothing of it is believed, its sync least of all (P10).

use super::Group;
use super::event::{Job, Now, Registered, Step, Unopened};
use std::time::Duration;
use wire::Name;

/// Time to the first try, and the longest between two.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How the targets of a group are.
#[derive(Debug)]
pub(super) struct Targets {
    /// Why they do not take writes.
    failed: Option<String>,
    retry_at: Duration,
    wait: Duration,
}

impl Targets {
    pub(super) fn new() -> Self {
        Self {
            failed: None,
            retry_at: Duration::ZERO,
            wait: RETRY_FIRST,
        }
    }

    /// A step has been written and synced.
    pub(super) fn took_a_step(&mut self) {
        self.wait = RETRY_FIRST;
    }
}

impl Group {
    /// What keeps the base from moving until a target is well again, in words.
    pub(super) fn behind(&self) -> Option<String> {
        let mut volumes = self.volumes.values();
        let away = |volume: &Registered| volume.refused.as_ref().is_some_and(|it| it.away);
        let away = volumes.any(away).then(|| self.refused()).flatten();
        let failed = away.or_else(|| self.targets.failed.clone())?;
        Some(format!(
            "{failed}; the journal goes on, the step is tried again every {} s at most",
            RETRY_MAX.as_secs()
        ))
    }

    /// A target failed in the middle of a step, or, without one, before it was begun.
    pub(super) fn target_failed(&mut self, now: Now, step: Option<Step>, reason: String) {
        if let Some(heading) = step.and_then(|step| step.heading) {
            // Committed or not, which the next step sees to: the targets may hold some of it.
            self.base = heading;
            self.window.forget_goal();
        }
        self.notify(format!("group {} is not applied: {reason}", self.name));
        self.targets.failed = Some(reason);
        self.retry_later(now);
    }

    /// The targets were opened anew; those that could not be are named.
    pub(super) fn reopened(&mut self, now: Now, refused: &[(Name, Unopened)]) {
        for (name, volume) in &mut self.volumes {
            let found = refused.iter().find(|(volume, _)| volume == name);
            volume.refused = found.map(|(_, reason)| reason.clone());
        }
        if !refused.is_empty() {
            self.retry_later(now);
            return;
        }
        if self.targets.failed.take().is_some() && !self.told_full {
            self.notify(String::new());
        }
    }

    /// Opening them anew, where that is wanted and it is time.
    pub(super) fn retry(&self, now: Now) -> Option<Job> {
        let wanted = self.targets.failed.is_some() || self.refused().is_some();
        (wanted && now.up >= self.targets.retry_at && !self.stopping).then_some(Job::Reopen)
    }

    fn retry_later(&mut self, now: Now) {
        self.targets.retry_at = now.up + self.targets.wait;
        self.targets.wait = (self.targets.wait * 2).min(RETRY_MAX);
    }
}
