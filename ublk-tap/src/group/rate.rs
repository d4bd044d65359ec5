//! How fast a copy goes and how long it will take. Pure.

use std::time::{Duration, Instant};

/// A rate smoothed over some seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    last: Option<(Instant, u64)>,
    bytes_per_second: Option<f64>,
}

/// Time between samples; closer ones are left out.
const SAMPLE: Duration = Duration::from_millis(500);
/// Weight of the newest sample.
const NEWEST: f64 = 0.3;

impl Rate {
    /// The counter stands at `bytes` now. A counter that went back begins anew.
    pub(super) fn sample(&mut self, now: Instant, bytes: u64) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, bytes));
            return;
        };
        if bytes < before {
            *self = Self {
                last: Some((now, bytes)),
                bytes_per_second: None,
            };
            return;
        }
        let passed = now - then;
        if passed < SAMPLE {
            return;
        }
        let current = (bytes - before) as f64 / passed.as_secs_f64();
        let smooth = |old: f64| old * (1.0 - NEWEST) + current * NEWEST;
        self.bytes_per_second = Some(self.bytes_per_second.map_or(current, smooth));
        self.last = Some((now, bytes));
    }

    /// Bytes per second; zero while unknown.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.map_or(0, |rate| rate as u64)
    }

    /// Seconds until `left_bytes` more are done; none while unknown or when nothing moves.
    pub(super) fn eta_seconds(&self, left_bytes: u64) -> Option<u64> {
        let rate = self.bytes_per_second.filter(|rate| *rate >= 1.0)?;
        Some((left_bytes as f64 / rate).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_copy_has_its_rate_and_end() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        assert_eq!((rate.bytes_per_second(), rate.eta_seconds(5)), (0, None));
        for second in 0..10 {
            rate.sample(start + Duration::from_secs(second), second * 1000);
        }
        assert_eq!(
            (rate.bytes_per_second(), rate.eta_seconds(5000)),
            (1000, Some(5))
        );
    }

    #[test]
    fn a_copy_that_starts_over_is_not_measured_against_the_old_one() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        rate.sample(start, 0);
        rate.sample(start + Duration::from_secs(1), 1000);
        rate.sample(start + Duration::from_secs(2), 0);
        assert_eq!(rate.bytes_per_second(), 0);
    }
}
