//! Waiting longer after every failure, and forgetting after a quiet time. Pure.

use std::time::{Duration, Instant};

/// When something that failed may be tried again.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    step: Duration,
    step_max: Duration,
    last: Option<Instant>,
    until: Option<Instant>,
}

/// First wait.
const STEP_MIN: Duration = Duration::from_secs(1);
/// Longest wait.
const STEP_MAX: Duration = Duration::from_secs(300);
/// A failure after this quiet time is the first one again.
const FORGET_AFTER: Duration = Duration::from_secs(600);

impl Backoff {
    /// Nothing has failed yet.
    pub(crate) fn new() -> Self {
        Self::up_to(STEP_MAX)
    }

    /// Nothing has failed yet; no wait is longer than `step_max`.
    pub(crate) fn up_to(step_max: Duration) -> Self {
        Self {
            step: STEP_MIN,
            step_max,
            last: None,
            until: None,
        }
    }

    /// It failed now.
    pub(crate) fn failed(&mut self, now: Instant) {
        let is_fresh = self.last.is_none_or(|last| now - last > FORGET_AFTER);
        self.step = if is_fresh {
            STEP_MIN
        } else {
            (self.step * 2).min(self.step_max)
        };
        self.last = Some(now);
        self.until = Some(now + self.step);
    }

    /// Whether it may be tried.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// How long until it may be tried.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_a_quiet_time_is_forgiven() {
        let (mut backoff, mut now) = (Backoff::new(), Instant::now());
        assert!(backoff.is_over(now));
        let mut waits = Vec::new();
        for _ in 0..10 {
            backoff.failed(now);
            assert!(!backoff.is_over(now));
            waits.push(backoff.left(now).as_secs());
            now += backoff.left(now);
            assert!(backoff.is_over(now));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        backoff.failed(now + Duration::from_secs(601));
        assert_eq!(backoff.left(now + Duration::from_secs(601)), STEP_MIN);
    }
}
