//! The admissions that touch one group of chunks.
//!
//! Owned by [`super::RangeTable`], behind one lock each. An admission is listed in every shard its
//! range touches, so two that overlap meet in at least one shard, and meet in the same shards when
//! the earlier one leaves as when the later one came: blockers are counted per shard.

use super::{Range, Wake};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Admissions in flight that touch the chunks of this shard, in no particular order.
#[derive(Default)]
pub(super) struct Shard {
    entries: Vec<Entry>,
    /// How many of them had to wait when they came.
    waiters: usize,
    /// Above the id of every admission listed here so far.
    next_id: u64,
}

/// One admission as its shards list it; within a shard ids ascend in admission order.
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) range: Range,
    /// Present if the admission had to wait.
    pub(super) wait: Option<Arc<Wait>>,
}

/// An admission that had to wait, and whom to tell when it no longer must.
pub(super) struct Wait {
    /// Earlier admissions it overlaps, counted once per shard they share.
    blockers: AtomicUsize,
    wake: Arc<dyn Wake>,
    token: u64,
}

impl Shard {
    /// The lowest id a new admission may have.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// An admission of this id comes.
    pub(super) fn note_id(&mut self, id: u64) {
        assert!(id >= self.next_id, "ids ascend");
        self.next_id = id + 1;
    }

    /// Lists an admission.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.waiters += usize::from(entry.wait.is_some());
        self.entries.push(entry);
    }

    /// Takes an admission out; those that no longer wait for anything are added to `ready`.
    pub(super) fn remove(&mut self, id: u64, ready: &mut Vec<Arc<Wait>>) {
        let place = self.entries.iter().position(|entry| entry.id == id);
        let place = place.expect("a held range is listed in every shard it touches");
        let gone = self.entries.swap_remove(place);
        self.waiters -= usize::from(gone.wait.is_some());
        if self.waiters == 0 {
            return;
        }
        for later in self.entries.iter().filter(|entry| entry.id > id) {
            if let Some(wait) = &later.wait
                && later.range.overlaps(gone.range)
                && wait.unblock()
            {
                ready.push(Arc::clone(wait));
            }
        }
    }

    /// How many listed admissions a new one of `range` must wait for.
    pub(super) fn blockers(&self, range: Range) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.range.overlaps(range))
            .count()
    }

    /// The same, forgetting those who wait themselves: lets later writes overtake. For tests.
    #[cfg(test)]
    pub(super) fn blockers_without_waiters(&self, range: Range) -> usize {
        let holds = |entry: &&Entry| entry.wait.as_ref().is_none_or(|wait| wait.is_granted());
        let overlapping = self
            .entries
            .iter()
            .filter(|entry| entry.range.overlaps(range));
        overlapping.filter(holds).count()
    }

    /// How many admissions are listed.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Entry {
    /// One that need not wait.
    pub(super) fn held(id: u64, range: Range) -> Self {
        let wait = None;
        Self { id, range, wait }
    }
}

impl Wait {
    /// Makes the wait of one who is to be told `token`, once its blockers are counted.
    pub(super) fn maker(wake: &Arc<dyn Wake>, token: u64) -> impl FnOnce(usize) -> Arc<Self> {
        move |blockers| Arc::new(Self::new(blockers, Arc::clone(wake), token))
    }

    /// Waits for `blockers` earlier admissions.
    pub(super) fn new(blockers: usize, wake: Arc<dyn Wake>, token: u64) -> Self {
        assert!(blockers > 0, "who waits for nobody is held");
        Self {
            blockers: AtomicUsize::new(blockers),
            wake,
            token,
        }
    }

    /// Tells the waiter; called once, without any lock held.
    pub(super) fn tell(&self) {
        self.wake.granted(self.token);
    }

    /// One blocker less; true if it was the last.
    ///
    /// Acquire and release: what the blockers did under their range happened before what the waiter
    /// does under its own, also when the last two leave through different shards.
    fn unblock(&self) -> bool {
        let before = self.blockers.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "every blocker is counted");
        before == 1
    }

    #[cfg(test)]
    fn is_granted(&self) -> bool {
        self.blockers.load(Ordering::Acquire) == 0
    }
}
