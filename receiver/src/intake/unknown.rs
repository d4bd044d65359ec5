//! Unknown: ranges a failed write has left behind, until something covers them. Pure.
//!
//! Owned by the intake of a stream. A write, discard or zero that the source's disk answered with
//! an error may have been done in part: what its range holds is known to nobody. It is unknown
//! until records after it have covered all of it; the source reads it again and sends a copy at
//! once. A volume that joins is copied as a whole, so its ranges are forgotten then.
//!
//! Promises: a byte is in a range exactly if the last record that named it failed (tested against
//! a serial model); at most [`RANGES_MAX`] ranges per volume.
//!
//! Does not: know points, or whether the volume is part of one.

use super::Slot;
use crate::fold::ByteRange;
use std::collections::BTreeMap;
use wire::{RecordKind, VolumeIndex};

/// Most ranges of one volume: twice as many as a tap reads again before it copies the volume.
pub(super) const RANGES_MAX: usize = 8192;

/// The ranges of all volumes of a stream.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    /// First byte to end, disjoint, not adjacent; only volumes that have some.
    volumes: BTreeMap<VolumeIndex, BTreeMap<u64, u64>>,
}

/// What a record changed about its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Something of it is unknown from here on.
    Opened(ByteRange),
    /// All of it is known again.
    Closed,
    /// There were too many ranges; only a copy makes up for them.
    Scattered,
}

impl Unknown {
    /// Takes the next record in stamp order.
    pub(super) fn pass(&mut self, slot: &Slot) -> Option<Turn> {
        match slot.kind() {
            RecordKind::Write | RecordKind::Discard | RecordKind::Zero if slot.is_void() => {
                self.open(slot.volume(), slot.range())
            }
            RecordKind::Write | RecordKind::Discard | RecordKind::Zero | RecordKind::Copy
                if !slot.is_void() && !self.volumes.is_empty() =>
            {
                self.cover(slot.volume(), slot.range())
            }
            _ => None,
        }
    }

    /// The volume joins: all of it is copied from here on.
    pub(super) fn join(&mut self, volume: VolumeIndex) {
        self.volumes.remove(&volume);
    }

    /// What is unknown of the volume, in disk order.
    pub(super) fn ranges(&self, volume: VolumeIndex) -> impl Iterator<Item = ByteRange> + '_ {
        let ranges = self.volumes.get(&volume).into_iter().flatten();
        ranges.map(|(start, end)| ByteRange::between(*start, *end))
    }

    fn open(&mut self, volume: VolumeIndex, range: ByteRange) -> Option<Turn> {
        if range.len_bytes == 0 {
            return None;
        }
        let ranges = self.volumes.entry(volume).or_default();
        let is_first = ranges.is_empty();
        let (mut start, mut end) = (range.offset_bytes, range.end_bytes());
        while let Some((&from, &to)) = ranges.range(..=end).next_back()
            && to >= start
        {
            ranges.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        ranges.insert(start, end);
        match (is_first, ranges.len() > RANGES_MAX) {
            (_, true) => self.scattered(volume),
            (true, false) => Some(Turn::Opened(range)),
            (false, false) => None,
        }
    }

    fn cover(&mut self, volume: VolumeIndex, range: ByteRange) -> Option<Turn> {
        let ranges = self.volumes.get_mut(&volume)?;
        let (start, end) = (range.offset_bytes, range.end_bytes());
        while let Some((&from, &to)) = ranges.range(..end).next_back()
            && to > start
        {
            ranges.remove(&from);
            if to > end {
                ranges.insert(end, to);
            }
            if from < start {
                ranges.insert(from, start);
            }
        }
        if ranges.is_empty() {
            self.volumes.remove(&volume);
            return Some(Turn::Closed);
        }
        (ranges.len() > RANGES_MAX).then(|| self.scattered(volume))?
    }

    fn scattered(&mut self, volume: VolumeIndex) -> Option<Turn> {
        self.volumes.remove(&volume);
        Some(Turn::Scattered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::RecordAt;
    use proptest::prelude::*;
    use wire::{RecordHeader, Stamp, TimeMark};

    const SECTORS: usize = 24;

    fn slot(kind: RecordKind, volume: u16, sectors: std::ops::Range<u64>, void: bool) -> Slot {
        let header = RecordHeader {
            kind,
            fua: false,
            volume: VolumeIndex(volume),
            stamp: Stamp(1),
            mark: TimeMark(1),
            offset_bytes: sectors.start * 512,
            length_bytes: (sectors.end - sectors.start) as u32 * 512,
            payload_bytes: 0,
            incarnation_id: 7,
            checksum: 0,
        };
        let at = RecordAt {
            segment: 1,
            offset_bytes: 64,
        };
        let mut slot = Slot::new(&header, at);
        slot.void |= void;
        slot
    }

    fn kind() -> impl Strategy<Value = RecordKind> {
        prop_oneof![
            Just(RecordKind::Write),
            Just(RecordKind::Discard),
            Just(RecordKind::Zero),
            Just(RecordKind::Copy),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn a_byte_is_unknown_exactly_if_the_last_record_that_named_it_failed(
            steps in proptest::collection::vec(
                (kind(), 0u16..2, 0..SECTORS, 1..9usize, 0u8..8), 0..60)
        ) {
            let mut unknown = Unknown::default();
            let mut model = [[false; SECTORS]; 2];
            for (kind, volume, start, length, luck) in steps {
                let (end, void) = ((start + length).min(SECTORS), luck < 3);
                let of = &mut model[usize::from(volume)];
                let before = of.contains(&true);
                if luck == 7 {
                    unknown.join(VolumeIndex(volume));
                    of.fill(false);
                    continue;
                }
                // A copy that is void was never made: nobody wrote anything.
                if !(void && kind == RecordKind::Copy) {
                    of[start..end].fill(void);
                }
                let slot = slot(kind, volume, start as u64..end as u64, void);
                let turn = unknown.pass(&slot);
                let expected = match (before, of.contains(&true)) {
                    (false, true) => Some(Turn::Opened(slot.range())),
                    (true, false) => Some(Turn::Closed),
                    _ => None,
                };
                prop_assert_eq!(turn, expected);
                for (volume, of) in (0u16..).zip(&model) {
                    let mut found = [false; SECTORS];
                    let mut last = None;
                    for range in unknown.ranges(VolumeIndex(volume)) {
                        let sectors = range.offset_bytes / 512..range.end_bytes() / 512;
                        prop_assert!(last < Some(sectors.start), "neighbours are one range");
                        last = Some(sectors.end);
                        found[sectors.start as usize..sectors.end as usize].fill(true);
                    }
                    prop_assert_eq!(&found, of);
                }
            }
        }
    }

    #[test]
    fn ranges_have_a_bound_and_beyond_it_they_are_given_up() {
        let mut unknown = Unknown::default();
        let failed = |at: u64| slot(RecordKind::Write, 0, at * 2..at * 2 + 1, true);
        for at in 1..RANGES_MAX as u64 {
            unknown.pass(&failed(at));
        }
        let last = RANGES_MAX as u64;
        assert_eq!(unknown.pass(&failed(last)), None);
        assert_eq!(unknown.pass(&failed(last + 1)), Some(Turn::Scattered));
        assert_eq!(unknown.ranges(VolumeIndex(0)).count(), 0);
    }

    #[test]
    fn a_range_cut_into_too_many_pieces_is_given_up() {
        let mut unknown = Unknown::default();
        let all = RANGES_MAX as u64 * 2 + 3;
        unknown.pass(&slot(RecordKind::Discard, 0, 0..all, true));
        let mut written = 0;
        let turn = loop {
            written += 1;
            let at = written * 2 - 1;
            let turn = unknown.pass(&slot(RecordKind::Write, 0, at..at + 1, false));
            if turn.is_some() {
                break turn;
            }
        };
        assert_eq!(turn, Some(Turn::Scattered));
        assert_eq!(written, RANGES_MAX as u64);
    }
}
