//! Index: where the durable records of a stream lie, by stamp. Positions only.

use crate::fold::{ByteRange, RecordAt};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::{RecordHeader, RecordKind, Stamp, TimeMark, VolumeIndex};

/// Most records of a group in its window and ahead of it; half a gibibyte of positions.
pub const INDEX_RECORDS_MAX: usize = 1 << 24;

/// Most records of a run. Its memory doubles up to here, then a new one begins: a long window takes
/// what its records take, and no array is ever copied whole.
const RUN_SLOTS_MAX: usize = 4096;

/// What a record takes in the journal beside its payload: headers, and half a padding.
const RECORD_OVERHEAD_BYTES: u64 = 160;

/// A durable record: what apply needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    mark: TimeMark,
    offset_bytes: u64,
    segment: u32,
    at_bytes: u32,
    length_bytes: u32,
    volume: VolumeIndex,
    kind: RecordKind,
    pub(super) void: bool,
}

const _: () = assert!(size_of::<Slot>() == 32);

impl Slot {
    /// The slot of a record that lies at `at`.
    pub(super) fn new(header: &RecordHeader, at: RecordAt) -> Self {
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let (segment, at_bytes) = (narrow(at.segment), narrow(at.offset_bytes));
        assert!(
            segment < u32::MAX && at_bytes < u32::MAX,
            "a journal of 2^32 segments"
        );
        Self {
            mark: header.mark,
            offset_bytes: header.offset_bytes,
            segment,
            at_bytes,
            length_bytes: header.length_bytes,
            volume: header.volume,
            kind: header.kind,
            void: header.kind == RecordKind::Void,
        }
    }

    /// Where the record lies in the journal.
    pub fn at(&self) -> RecordAt {
        RecordAt {
            segment: self.segment.into(),
            offset_bytes: self.at_bytes.into(),
        }
    }

    /// What it covers on its volume.
    pub fn range(&self) -> ByteRange {
        ByteRange::new(self.offset_bytes, self.length_bytes.into())
    }

    /// Its volume.
    pub fn volume(&self) -> VolumeIndex {
        self.volume
    }

    /// What it does.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// It has no effect: refused by the source's disk, given back, or lost.
    pub fn is_void(&self) -> bool {
        self.void
    }

    /// About what it takes in the journal.
    fn journal_bytes(&self) -> u64 {
        let payload = match self.kind {
            RecordKind::Write | RecordKind::Copy => u64::from(self.length_bytes),
            _ => 0,
        };
        RECORD_OVERHEAD_BYTES + payload
    }
}

/// Records by stamp: runs of contiguous ones up to the prefix, others ahead of it.
#[derive(Debug)]
pub(super) struct Index {
    runs: VecDeque<Run>,
    ahead: BTreeMap<Stamp, Slot>,
    prefix: Stamp,
    last_mark: TimeMark,
    /// Mark of what lies before the first run.
    base_mark: TimeMark,
    /// Void stamps whose records are not here.
    voids: BTreeSet<Stamp>,
    len: usize,
    /// Of those up to the prefix.
    bytes: u64,
}

#[derive(Debug)]
struct Run {
    first: Stamp,
    slots: VecDeque<Slot>,
    /// What its records take in the journal.
    bytes: u64,
    /// Lowest segment any of its records has lain in.
    segment: u32,
}

impl Run {
    fn new(first: Stamp) -> Self {
        let (slots, segment) = (VecDeque::new(), u32::MAX);
        Self {
            first,
            slots,
            bytes: 0,
            segment,
        }
    }

    /// Whether the record at `stamp` is its next.
    fn takes(&self, stamp: Stamp) -> bool {
        self.end() == stamp && self.slots.len() < RUN_SLOTS_MAX
    }

    fn push(&mut self, slot: Slot) {
        self.bytes += slot.journal_bytes();
        self.segment = self.segment.min(slot.segment);
        self.slots.push_back(slot);
    }

    fn pop(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.bytes -= slot.journal_bytes();
        self.first = self.first.next();
        Some(slot)
    }

    /// The stamp after its last.
    fn end(&self) -> Stamp {
        Stamp(self.first.0 + self.slots.len() as u64)
    }

    fn position(&self, stamp: Stamp) -> Option<usize> {
        let at = usize::try_from(stamp.0.checked_sub(self.first.0)?).ok()?;
        (at < self.slots.len()).then_some(at)
    }
}

impl Index {
    pub(super) fn new(base: Stamp, mark: TimeMark) -> Self {
        Self {
            runs: VecDeque::new(),
            ahead: BTreeMap::new(),
            prefix: base,
            last_mark: mark,
            base_mark: mark,
            voids: BTreeSet::new(),
            len: 0,
            bytes: 0,
        }
    }

    pub(super) fn prefix(&self) -> Stamp {
        self.prefix
    }

    pub(super) fn last_mark(&self) -> TimeMark {
        self.last_mark
    }

    /// Records ahead of the prefix.
    pub(super) fn ahead(&self) -> u64 {
        self.ahead.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a record; false if it is there, or is in the base.
    pub(super) fn insert(&mut self, stamp: Stamp, mut slot: Slot) -> bool {
        if stamp <= self.prefix || self.ahead.contains_key(&stamp) {
            return false;
        }
        slot.void |= self.voids.remove(&stamp);
        self.len += 1;
        if stamp == self.prefix.next() {
            self.append(stamp, slot);
            self.absorb();
        } else {
            self.ahead.insert(stamp, slot);
        }
        true
    }

    fn absorb(&mut self) {
        while let Some(slot) = self.ahead.remove(&self.prefix.next()) {
            self.append(self.prefix.next(), slot);
        }
    }

    fn append(&mut self, stamp: Stamp, mut slot: Slot) {
        assert!(stamp == self.prefix.next(), "the prefix grows by one");
        slot.mark = slot.mark.lifted_above(self.last_mark);
        (self.prefix, self.last_mark) = (stamp, slot.mark);
        self.bytes += slot.journal_bytes();
        match self.runs.back_mut() {
            Some(run) if run.takes(stamp) => run.push(slot),
            _ => {
                let mut run = Run::new(stamp);
                run.push(slot);
                self.runs.push_back(run);
            }
        }
    }

    /// These have no effect; `after` is where the settle mark that says so begins.
    pub(super) fn void(&mut self, after: Stamp, voids: &[Stamp]) {
        for stamp in voids {
            assert!(*stamp > after, "void stamps lie inside their settle mark");
            if let Some(slot) = self.slot_mut(*stamp) {
                slot.void = true;
            } else if *stamp > self.prefix {
                self.voids.insert(*stamp);
            }
        }
    }

    /// Nothing in `(after, upto]` counts any more; the prefix reaches at least `upto`.
    pub(super) fn lose(&mut self, after: Stamp, upto: Stamp) {
        for run in &mut self.runs {
            let first = run.first.0;
            for (at, slot) in run.slots.iter_mut().enumerate() {
                let stamp = Stamp(first + at as u64);
                slot.void |= stamp > after && stamp <= upto;
            }
        }
        if upto > self.prefix {
            let kept = self.ahead.split_off(&upto.next());
            self.len -= self.ahead.len();
            self.ahead = kept;
            self.voids = self.voids.split_off(&upto.next());
            self.prefix = upto;
            self.absorb();
        }
    }

    /// Forgets everything up to `applied`.
    pub(super) fn forget(&mut self, applied: Stamp) {
        while let Some(run) = self.runs.front_mut() {
            while run.first <= applied
                && let Some(slot) = run.pop()
            {
                self.base_mark = slot.mark;
                self.bytes -= slot.journal_bytes();
                self.len -= 1;
            }
            if !run.slots.is_empty() {
                break;
            }
            self.runs.pop_front();
        }
    }

    /// Records in `(after, upto]`, in order.
    pub(super) fn range(
        &self,
        after: Stamp,
        upto: Stamp,
    ) -> impl Iterator<Item = (Stamp, &Slot)> + use<'_> {
        let begin = self.runs.partition_point(|run| run.end() <= after.next());
        let runs = self.runs.range(begin..);
        let runs = runs.take_while(move |run| run.first <= upto);
        runs.flat_map(move |run| {
            let from = usize::try_from(after.next().records_since(run.first)).unwrap_or(usize::MAX);
            let count = usize::try_from(upto.next().records_since(run.first)).unwrap_or(usize::MAX);
            let to = count.min(run.slots.len());
            let slots = run.slots.range(from.min(to)..to).enumerate();
            slots.map(move |(at, slot)| (Stamp(run.first.0 + (from + at) as u64), slot))
        })
    }

    /// Time of the record at `stamp`, or of the last one before it.
    pub(super) fn mark_at(&self, stamp: Stamp) -> TimeMark {
        let slot = self.run(stamp).and_then(|run| {
            let at = run.position(stamp).unwrap_or(run.slots.len() - 1);
            run.slots.get(at)
        });
        slot.map_or(self.base_mark, |slot| slot.mark)
    }

    pub(super) fn is_void(&self, stamp: Stamp) -> bool {
        let slot = self
            .run(stamp)
            .and_then(|run| run.slots.get(run.position(stamp)?));
        slot.is_none_or(|slot| slot.void)
    }

    /// About what the records up to the prefix take in the journal.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same, of those up to `upto` only.
    pub(super) fn bytes_upto(&self, upto: Stamp) -> u64 {
        let whole = self.runs.partition_point(|run| run.end() <= upto.next());
        let bytes: u64 = self.runs.range(..whole).map(|run| run.bytes).sum();
        let part = self.runs.get(whole).filter(|run| run.first <= upto);
        let slots = part.map_or(0, |run| upto.next().records_since(run.first) as usize);
        let part = part.into_iter().flat_map(|run| run.slots.range(..slots));
        bytes + part.map(Slot::journal_bytes).sum::<u64>()
    }

    /// The last record that is not younger than `mark`.
    pub(super) fn last_before(&self, mark: TimeMark) -> Option<Stamp> {
        let old = |slot: &Slot| slot.mark <= mark;
        let runs = self
            .runs
            .partition_point(|run| run.slots.front().is_some_and(old));
        let run = self.runs.get(runs.checked_sub(1)?)?;
        let count = run.slots.partition_point(old) as u64;
        Some(Stamp(run.first.0 + count).prev())
    }

    /// The last record up to the prefix that lies in `segment` or an older one.
    pub(super) fn last_in(&self, segment: u64) -> Option<Stamp> {
        let old = |lies: u32| u64::from(lies) <= segment;
        let runs = self.runs.iter().rev().filter(|run| old(run.segment));
        let mut found = runs.filter_map(|run| {
            let at = run.slots.iter().rposition(|slot| old(slot.segment))?;
            Some(Stamp(run.first.0 + at as u64))
        });
        found.next()
    }

    /// The run that holds `stamp`, or the last before it.
    fn run(&self, stamp: Stamp) -> Option<&Run> {
        let after = self.runs.partition_point(|run| run.first <= stamp);
        self.runs.get(after.checked_sub(1)?)
    }

    fn slot_mut(&mut self, stamp: Stamp) -> Option<&mut Slot> {
        if stamp > self.prefix {
            return self.ahead.get_mut(&stamp);
        }
        let after = self.runs.partition_point(|run| run.first <= stamp);
        let run = self.runs.get_mut(after.checked_sub(1)?)?;
        let at = run.position(stamp)?;
        run.slots.get_mut(at)
    }
}
