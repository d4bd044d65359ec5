//! The table: shards by chunk, locked in ascending order.
//!
//! A chunk is 1 MiB of the volume; chunks are spread over 64 shards, each with its own lock, so a
//! write normally takes one uncontended lock and scans the few admissions of one shard. A range
//! over more chunks takes the locks of all its shards at once, lowest first, which fixes one order
//! of admission for every pair that overlaps.

use super::shard::{Entry, Shard, Wait};
use super::{Admission, Hold, Range, Wake};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Number of shards; one bit each in a [`ShardSet`].
const SHARDS: usize = 64;
/// Bytes of a chunk, as a shift.
const CHUNK_SHIFT: u32 = 20;

/// Ranges of one volume held and waited for.
pub struct RangeTable {
    shards: Box<[Mutex<Shard>]>,
    #[cfg(test)]
    pub(super) fault: Fault,
}

/// Ways to be wrong that the tests must notice.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    ForgetsWaiters,
    SeesFirstChunkOnly,
    SeesNothing,
}

/// The shards a range touches, one bit each.
#[derive(Clone, Copy)]
struct ShardSet(u64);

impl RangeTable {
    /// A table in which nothing is held.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            #[cfg(test)]
            fault: Fault::None,
        }
    }

    /// One that keeps nobody apart.
    #[cfg(test)]
    pub(crate) fn blind() -> Self {
        Self {
            fault: Fault::SeesNothing,
            ..Self::new()
        }
    }

    /// Asks for `range`. If it must wait, `wake` is told `token` when the range is held; that can
    /// happen on another thread before this call returns.
    pub fn admit(&self, range: Range, wake: &Arc<dyn Wake>, token: u64) -> Admission {
        let set = self.shards_of(range);
        let mut shards = Guards::lock(self, set);
        let id = shards.take_id();
        let hold = Hold { id, range };
        if let Guards::One(shard) = &mut shards
            && self.blockers(shard, range) == 0
        {
            shard.insert(Entry::held(id, range));
            return Admission::Held(hold);
        }
        self.admit_slowly(&mut shards, hold, Wait::maker(wake, token))
    }

    /// The same for a range of several shards, or one that must wait.
    #[cold]
    fn admit_slowly(
        &self,
        shards: &mut Guards<'_>,
        hold: Hold,
        wait_for: impl FnOnce(usize) -> Arc<Wait>,
    ) -> Admission {
        let Hold { id, range } = hold;
        let blockers = shards
            .iter_mut()
            .map(|shard| self.blockers(shard, range))
            .sum();
        let wait = (blockers > 0).then(|| wait_for(blockers));
        for shard in shards.iter_mut() {
            shard.insert(Entry {
                id,
                range,
                wait: wait.clone(),
            });
        }
        if wait.is_some() {
            Admission::Waiting(hold)
        } else {
            Admission::Held(hold)
        }
    }

    /// Gives a held range back and tells those who waited for it alone.
    pub fn release(&self, hold: Hold) {
        let mut ready = Vec::new();
        for index in self.shards_of(hold.range) {
            self.lock(index).remove(hold.id, &mut ready);
        }
        if !ready.is_empty() {
            ready.iter().for_each(|wait: &Arc<Wait>| wait.tell());
        }
    }

    /// Whether nothing is held or waited for.
    pub fn is_idle(&self) -> bool {
        (0..SHARDS).all(|index| self.lock(index).len() == 0)
    }

    fn shards_of(&self, range: Range) -> ShardSet {
        #[cfg(test)]
        if self.fault == Fault::SeesFirstChunkOnly {
            return ShardSet::of(Range::of_length(range.start_bytes(), 1));
        }
        ShardSet::of(range)
    }

    fn blockers(&self, shard: &Shard, range: Range) -> usize {
        #[cfg(test)]
        match self.fault {
            Fault::SeesNothing => return 0,
            Fault::ForgetsWaiters => return shard.blockers_without_waiters(range),
            Fault::None | Fault::SeesFirstChunkOnly => {}
        }
        shard.blockers(range)
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        // A panic between two statements of a shard aborts the process with its queue threads, so a
        // poisoned lock is never met by a survivor that could act on half a change.
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for RangeTable {
    fn default() -> Self {
        Self::new()
    }
}

impl ShardSet {
    fn of(range: Range) -> Self {
        let first = range.start_bytes() >> CHUNK_SHIFT;
        let last = (range.end_bytes() - 1) >> CHUNK_SHIFT;
        let bit = |chunk: u64| 1_u64 << (chunk % SHARDS as u64);
        if last == first {
            return Self(bit(first));
        }
        if last - first >= SHARDS as u64 {
            return Self(u64::MAX);
        }
        Self((first..=last).fold(0, |set, chunk| set | bit(chunk)))
    }
}

impl Iterator for ShardSet {
    type Item = usize;

    /// Shard numbers, ascending.
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let index = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(index)
    }
}

/// The locked shards of one range: one without allocation, as nearly always, or several.
enum Guards<'t> {
    One(MutexGuard<'t, Shard>),
    Several(Vec<MutexGuard<'t, Shard>>),
}

impl<'t> Guards<'t> {
    fn lock(table: &'t RangeTable, mut set: ShardSet) -> Self {
        if set.0.is_power_of_two() {
            let index = set.next().expect("a range touches a shard");
            return Self::One(table.lock(index));
        }
        Self::Several(set.map(|index| table.lock(index)).collect())
    }

    /// An id above those of all admissions these shards have seen.
    fn take_id(&mut self) -> u64 {
        if let Self::One(shard) = self {
            let id = shard.next_id();
            shard.note_id(id);
            return id;
        }
        let id = self.iter_mut().map(|shard| shard.next_id()).max();
        let id = id.expect("a range touches a shard");
        self.iter_mut().for_each(|shard| shard.note_id(id));
        id
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        let guards = match self {
            Self::One(guard) => std::slice::from_mut(guard),
            Self::Several(guards) => guards.as_mut_slice(),
        };
        guards.iter_mut().map(|guard| &mut **guard)
    }
}
