//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
const DOUBLINGS_MAX: u32 = 6;

/// Doubling waits with jitter; the jitter comes from a seed, so that a run can be repeated.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            random: seed,
        }
    }

    /// The wait after one more failure.
    pub(super) fn next_wait(&mut self) -> Duration {
        let wait = FIRST_WAIT * (1 << self.failures.min(DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        self.jittered(wait.min(WAIT_MAX))
    }

    /// `wait`, shortened by up to a quarter.
    pub(super) fn jittered(&mut self, wait: Duration) -> Duration {
        wait - wait * (self.draw() % 256) / 1024
    }

    /// Waits are short again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A step of splitmix64.
    fn draw(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ_between_seeds() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..40).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        let (one, other) = (waits(1), waits(2));
        assert_ne!(one, other);
        assert!(one[0] <= FIRST_WAIT && one[0] >= FIRST_WAIT * 3 / 4);
        for wait in &one[7..] {
            assert!(*wait <= WAIT_MAX && *wait >= WAIT_MAX * 3 / 4, "{wait:?}");
        }
    }
}
