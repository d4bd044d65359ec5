//! Budget: the memory all groups of a receiver may hold for steps, together (P11).
//!
//! Who loads a step takes its bytes first and waits for them, in order of arrival; who loads ahead
//! of its turn takes them only where nobody waits. Nobody waits while it holds any, so nobody waits
//! for itself, and a step always ends by giving back.

use crate::fold::STEP_DATA_BYTES_MAX;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What all steps may hold where nothing else is said, in bytes.
pub const STEPS_BYTES_DEFAULT: u64 = 512 << 20;
/// Least that all steps may hold, in bytes: one that is written and the next one.
pub const STEPS_BYTES_MIN: u64 = 2 * STEP_DATA_BYTES_MAX;

/// The memory, shared by clones.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: u64,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held_bytes: u64,
    /// Who waits, oldest first.
    waiting: VecDeque<u64>,
    next: u64,
}

/// Memory of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of `bytes_max`, but of [`STEPS_BYTES_MIN`] at least.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Shared {
            bytes_max: bytes_max.max(STEPS_BYTES_MIN),
            state: Mutex::default(),
            freed: Condvar::new(),
        }))
    }

    /// Bytes held now.
    pub fn held_bytes(&self) -> u64 {
        self.state().held_bytes
    }

    /// Waits for `bytes`.
    pub(super) fn take(&self, bytes: u64) -> Share {
        assert!(bytes <= self.0.bytes_max, "a step larger than its bound");
        let mut state = self.state();
        let turn = state.next;
        state.next += 1;
        state.waiting.push_back(turn);
        while state.waiting.front() != Some(&turn) || !self.fits(&state, bytes) {
            let woken = self.0.freed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.pop_front();
        state.held_bytes += bytes;
        drop(state);
        // The next one may fit as well.
        self.0.freed.notify_all();
        let budget = self.clone();
        Share { budget, bytes }
    }

    /// `bytes`, if there are so many and nobody waits.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Share> {
        let mut state = self.state();
        if !state.waiting.is_empty() || !self.fits(&state, bytes) {
            return None;
        }
        state.held_bytes += bytes;
        let budget = self.clone();
        Some(Share { budget, bytes })
    }

    fn fits(&self, state: &State, bytes: u64) -> bool {
        state.held_bytes + bytes <= self.0.bytes_max
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(STEPS_BYTES_DEFAULT)
    }
}

impl Share {
    /// How much it is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        assert!(state.held_bytes >= self.bytes, "given back twice");
        state.held_bytes -= self.bytes;
        drop(state);
        self.budget.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::{Duration, Instant};

    const MIB: u64 = 1 << 20;

    fn until(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(30), "it never came");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_wants_much_is_not_passed_by_those_who_want_little() {
        let budget = Budget::new(128 * MIB);
        let held = budget.take(100 * MIB);
        let waits = budget.clone();
        let large = thread::spawn(move || waits.take(64 * MIB));
        until(|| !budget.state().waiting.is_empty());
        assert!(budget.try_take(MIB).is_none(), "somebody waits");
        let waits = budget.clone();
        let small = thread::spawn(move || drop(waits.take(MIB)));
        until(|| budget.state().waiting.len() == 2);
        drop(held);
        let large = large.join().unwrap();
        small.join().unwrap();
        assert_eq!(budget.held_bytes(), 64 * MIB);
        assert!(budget.try_take(64 * MIB).is_some());
        assert!(budget.try_take(64 * MIB + 1).is_none());
        drop(large);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn a_budget_too_small_for_one_step_and_the_next_is_that_large_all_the_same() {
        let budget = Budget::new(0);
        let both = [STEP_DATA_BYTES_MAX; 2].map(|bytes| budget.take(bytes));
        assert!(budget.try_take(1).is_none());
        drop(both);
    }
}
