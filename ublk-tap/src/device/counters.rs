//! What a queue has done, for status; and which ranges the disk refused, for the copier.

use crate::ranges::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Totals of one queue. Only its thread writes them, so plain loads and stores do.
#[derive(Debug, Default)]
#[repr(align(128))] // no other queue's totals on the same cache line
pub(super) struct Counters {
    started: AtomicU64,
    completed: AtomicU64,
    parked: AtomicU64,
    captured_requests: AtomicU64,
    captured_bytes: AtomicU64,
    uncaptured_bytes: AtomicU64,
    memory_copied_bytes: AtomicU64,
    failed: AtomicU64,
}

/// Totals of a device since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests of the application not yet completed.
    pub in_flight: u64,
    /// Of those, writes that wait for room in the ring.
    pub parked: u64,
    /// Requests completed, of all kinds.
    pub completed: u64,
    /// Changes that got a record.
    pub captured_requests: u64,
    /// Bytes of the volume they changed.
    pub captured_bytes: u64,
    /// Bytes of the volume changed while the stream was given up.
    pub uncaptured_bytes: u64,
    /// Bytes moved in memory for what was written, each time they were.
    pub memory_copied_bytes: u64,
    /// Requests that ended in an error.
    pub failed: u64,
}

impl Counters {
    pub(super) fn started(&self) {
        add(&self.started, 1);
    }

    pub(super) fn completed(&self) {
        add(&self.completed, 1);
    }

    /// `change` writes more (or less) wait for room.
    pub(super) fn parked(&self, change: i64) {
        let now = self
            .parked
            .load(Ordering::Relaxed)
            .wrapping_add_signed(change);
        self.parked.store(now, Ordering::Relaxed);
    }

    pub(super) fn captured(&self, bytes: u64) {
        add(&self.captured_requests, 1);
        add(&self.captured_bytes, bytes);
    }

    pub(super) fn uncaptured(&self, bytes: u64) {
        add(&self.uncaptured_bytes, bytes);
    }

    /// Bytes of a write were moved in memory.
    pub(super) fn memory_copied(&self, bytes: u64) {
        add(&self.memory_copied_bytes, bytes);
    }

    /// One failed; how many have so far.
    pub(super) fn failed(&self) -> u64 {
        add(&self.failed, 1);
        self.failed.load(Ordering::Relaxed)
    }
}

impl Stats {
    /// The sum over the queues of a device.
    pub(super) fn of<'c>(queues: impl Iterator<Item = &'c Counters>) -> Self {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        queues.fold(Self::default(), |sum, queue| {
            let completed = load(&queue.completed);
            Self {
                in_flight: sum.in_flight + load(&queue.started).saturating_sub(completed),
                parked: sum.parked + load(&queue.parked),
                completed: sum.completed + completed,
                captured_requests: sum.captured_requests + load(&queue.captured_requests),
                captured_bytes: sum.captured_bytes + load(&queue.captured_bytes),
                uncaptured_bytes: sum.uncaptured_bytes + load(&queue.uncaptured_bytes),
                memory_copied_bytes: sum.memory_copied_bytes + load(&queue.memory_copied_bytes),
                failed: sum.failed + load(&queue.failed),
            }
        })
    }
}

impl Stats {
    /// The sum of both.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            in_flight: self.in_flight + other.in_flight,
            parked: self.parked + other.parked,
            completed: self.completed + other.completed,
            captured_requests: self.captured_requests + other.captured_requests,
            captured_bytes: self.captured_bytes + other.captured_bytes,
            uncaptured_bytes: self.uncaptured_bytes + other.uncaptured_bytes,
            memory_copied_bytes: self.memory_copied_bytes + other.memory_copied_bytes,
            failed: self.failed + other.failed,
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}

/// A change the disk refused: what the range holds now is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub range: Range,
    /// What the disk said.
    pub errno: i32,
}

/// Faults since somebody asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultList {
    /// In the order they happened.
    pub faults: Vec<Fault>,
    /// There were more than fit: treat the whole volume as unknown.
    pub overflowed: bool,
}

/// Faults of a device, until the daemon takes them.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<FaultList>);

/// Most faults remembered one by one.
const FAULTS_MAX: usize = 1024;

impl Faults {
    pub(super) fn add(&self, range: Range, errno: i32) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.faults.len() < FAULTS_MAX {
            list.faults.push(Fault { range, errno });
        } else {
            list.overflowed = true;
        }
    }

    pub(super) fn take(&self) -> FaultList {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing can be added meanwhile.
    #[cfg(test)]
    pub(super) fn hold(&self) -> std::sync::MutexGuard<'_, FaultList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
