//! Pool: a volume in segments over disks of unequal size, allocated on first write. Pure.
//!
//! The map says for each segment of the volume where it lies; what it does not name reads as
//! zeroes. Free is what no segment lies in. A step plans against the map as it was committed last:
//! what it frees may be taken from the next step on, what it takes is nobody's until it is
//! committed with the applied stamp. So a step cut anywhere leaves the map whole and is planned
//! again.
//!
//! Promises: no two segments ever lie in one place; a byte of a new segment that the step does not
//! write is zeroed; disks fill in proportion to their sizes.
//!
//! Does not: write, commit, know records.

use crate::fold::{ByteRange, Content, Extent, Placed};
use std::collections::BTreeMap;

/// Size of a segment.
pub const POOL_SEGMENT_BYTES: u64 = 1 << 20;
/// Most segments of a disk: 256 TiB.
pub const POOL_DISK_SEGMENTS_MAX: u64 = 1 << 28;
/// Most segments of a volume: 16 TiB.
pub const POOL_VOLUME_SEGMENTS_MAX: u64 = 1 << 24;

/// Where a segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the disk.
    pub disk: u16,
    /// Number of the segment on it.
    pub segment: u32,
}

impl Place {
    /// As the catalog has it: zero is nowhere.
    pub fn pack(place: Option<Self>) -> u64 {
        place.map_or(0, |place| {
            1 << 63 | u64::from(place.disk) << 32 | u64::from(place.segment)
        })
    }

    /// The other way round; none if it is not such a number.
    pub fn unpack(packed: u64) -> Option<Option<Self>> {
        let place = Self {
            disk: (packed >> 32 & 0x7fff) as u16,
            segment: packed as u32,
        };
        match packed {
            0 => Some(None),
            _ => (Self::pack(Some(place)) == packed).then_some(Some(place)),
        }
    }

    fn offset_bytes(self) -> u64 {
        u64::from(self.segment) * POOL_SEGMENT_BYTES
    }
}

/// Segment of the volume, and where it lies from now on.
pub type MapChange = (u64, Option<Place>);

/// The map of a volume is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} of the pool lies where there is nothing, or where another lies")]
pub struct BadMap {
    /// The segment of the volume.
    pub segment: u64,
}

/// No disk has a free segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool is full: all {segments} segments of 1 MiB on its disks are taken")]
pub struct PoolFull {
    /// Segments of all disks.
    pub segments: u64,
}

/// What a step does to a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolPlan {
    /// What is written, by disk and offset.
    pub placed: Vec<Placed>,
    /// How the map changes once it is.
    pub changes: Vec<MapChange>,
}

/// The segments of one disk that nobody has.
#[derive(Clone, Debug)]
struct Free {
    /// A bit per segment, set when it is free.
    bits: Vec<u64>,
    segments: u64,
    free: u64,
    /// No word before this one has a free segment.
    first_word: usize,
}

/// The map of one volume.
#[derive(Clone, Debug)]
pub struct Pool {
    size_bytes: u64,
    places: Vec<u64>,
    disks: Vec<Free>,
}

impl Free {
    fn new(segments: u64) -> Self {
        let words = segments.div_ceil(64);
        let mut bits = vec![u64::MAX; words as usize];
        let rest = segments % 64;
        if let Some(last) = bits.last_mut()
            && rest > 0
        {
            *last = (1 << rest) - 1;
        }
        Self {
            bits,
            segments,
            free: segments,
            first_word: 0,
        }
    }

    /// Takes this one; false if it is not free, or not there.
    fn take(&mut self, segment: u32) -> bool {
        let (word, bit) = (segment as usize / 64, segment % 64);
        let free = self.bits.get(word).is_some_and(|word| word >> bit & 1 == 1);
        if free {
            self.bits[word] &= !(1 << bit);
            self.free -= 1;
        }
        free
    }

    fn take_first(&mut self) -> Option<u32> {
        let words = self.bits.get(self.first_word..)?;
        let found = words.iter().position(|word| *word != 0);
        self.first_word = found.map_or(self.bits.len(), |at| self.first_word + at);
        let word = self.bits.get_mut(self.first_word)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        self.free -= 1;
        Some(self.first_word as u32 * 64 + bit)
    }

    fn give_back(&mut self, segment: u32) {
        let (word, bit) = (segment as usize / 64, segment % 64);
        assert!(self.bits[word] >> bit & 1 == 0, "segment {segment} is free");
        self.bits[word] |= 1 << bit;
        self.free += 1;
        self.first_word = self.first_word.min(word);
    }
}

impl Pool {
    /// A volume of which nothing is allocated, over disks of so many segments.
    pub fn new(size_bytes: u64, disks: &[u64]) -> Self {
        let segments = size_bytes.div_ceil(POOL_SEGMENT_BYTES);
        assert!(segments <= POOL_VOLUME_SEGMENTS_MAX, "{size_bytes} bytes");
        Self {
            size_bytes,
            places: vec![0; segments as usize],
            disks: disks.iter().map(|segments| Free::new(*segments)).collect(),
        }
    }

    /// The same, with what the catalog says.
    pub fn restore(
        size_bytes: u64,
        disks: &[u64],
        map: impl IntoIterator<Item = MapChange>,
    ) -> Result<Self, BadMap> {
        let mut pool = Self::new(size_bytes, disks);
        for (segment, place) in map {
            let Some(place) = place else { continue };
            let bad = BadMap { segment };
            let entry = usize::try_from(segment).ok();
            let entry = entry.and_then(|at| pool.places.get_mut(at)).ok_or(bad)?;
            let disk = pool.disks.get_mut(usize::from(place.disk)).ok_or(bad)?;
            if *entry != 0 || !disk.take(place.segment) {
                return Err(bad);
            }
            *entry = Place::pack(Some(place));
        }
        Ok(pool)
    }

    /// Size of the volume.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Number of disks.
    pub fn disks(&self) -> usize {
        self.disks.len()
    }

    /// Segments of all disks, and how many of them are free.
    pub fn segments(&self) -> (u64, u64) {
        let all = self.disks.iter().map(|disk| disk.segments).sum();
        let free = self.disks.iter().map(|disk| disk.free).sum();
        (all, free)
    }

    /// Where a segment of the volume lies; none: it reads as zeroes.
    pub fn place(&self, segment: u64) -> Option<Place> {
        let packed = self.places.get(segment as usize).copied().unwrap_or(0);
        Place::unpack(packed).flatten()
    }

    /// Lays out a step: disjoint extents in the order of the volume.
    pub fn plan(&self, extents: &[Extent]) -> Result<PoolPlan, PoolFull> {
        let mut by_segment: BTreeMap<u64, Vec<(ByteRange, Content)>> = BTreeMap::new();
        for extent in extents {
            for range in in_segments(extent.range) {
                let segment = range.offset_bytes / POOL_SEGMENT_BYTES;
                let pieces = by_segment.entry(segment).or_default();
                pieces.push((range, extent.content));
            }
        }
        let mut plan = PoolPlan::default();
        // A copy: what is planned and not committed has not happened.
        let mut disks = self.disks.clone();
        for (segment, pieces) in by_segment {
            self.plan_segment(segment, &pieces, &mut disks, &mut plan)?;
        }
        plan.placed
            .sort_by_key(|placed| (placed.disk, placed.offset_bytes));
        Ok(plan)
    }

    fn plan_segment(
        &self,
        segment: u64,
        pieces: &[(ByteRange, Content)],
        disks: &mut [Free],
        plan: &mut PoolPlan,
    ) -> Result<(), PoolFull> {
        let whole = self.range_of(segment);
        let held = self.place(segment);
        let zeroed = |pieces: &[(ByteRange, Content)]| {
            let zero = pieces
                .iter()
                .filter(|(_, content)| *content == Content::Zero);
            zero.map(|(range, _)| range.len_bytes).sum::<u64>()
        };
        let all_zero =
            zeroed(pieces) == pieces.iter().map(|(range, _)| range.len_bytes).sum::<u64>();
        if all_zero && held.is_none() {
            return Ok(());
        }
        if zeroed(pieces) == whole.len_bytes {
            plan.changes.push((segment, None));
            return Ok(());
        }
        let place = match held {
            Some(place) => place,
            None => {
                let place = allocate(disks)?;
                plan.changes.push((segment, Some(place)));
                place
            }
        };
        let mut put = |range: ByteRange, content| {
            plan.placed.push(Placed {
                disk: usize::from(place.disk),
                offset_bytes: place.offset_bytes() + range.offset_bytes - whole.offset_bytes,
                range,
                content,
            });
        };
        let mut next = whole.offset_bytes;
        for (range, content) in pieces {
            if held.is_none() && range.offset_bytes > next {
                put(ByteRange::between(next, range.offset_bytes), Content::Zero);
            }
            put(*range, *content);
            next = range.end_bytes();
        }
        if held.is_none() && next < whole.end_bytes() {
            put(ByteRange::between(next, whole.end_bytes()), Content::Zero);
        }
        Ok(())
    }

    /// What was planned is written, synced and committed.
    pub fn commit(&mut self, changes: &[MapChange]) {
        for (segment, place) in changes {
            let before = self.place(*segment);
            if let Some(before) = before {
                self.disks[usize::from(before.disk)].give_back(before.segment);
            }
            if let Some(place) = place {
                let taken = self.disks[usize::from(place.disk)].take(place.segment);
                assert!(taken, "{place:?} is another segment's");
            }
            self.places[*segment as usize] = Place::pack(*place);
        }
    }

    /// The parts of a range, in its order: where they lie, if anywhere.
    pub fn parts(
        &self,
        range: ByteRange,
    ) -> impl Iterator<Item = (ByteRange, Option<(usize, u64)>)> + use<'_> {
        in_segments(range).map(|part| {
            let segment = part.offset_bytes / POOL_SEGMENT_BYTES;
            let within = part.offset_bytes % POOL_SEGMENT_BYTES;
            let place = self.place(segment);
            let place = place.map(|place| (usize::from(place.disk), place.offset_bytes() + within));
            (part, place)
        })
    }

    /// The bytes of the volume that are in a segment.
    fn range_of(&self, segment: u64) -> ByteRange {
        let start = segment * POOL_SEGMENT_BYTES;
        ByteRange::between(start, self.size_bytes.min(start + POOL_SEGMENT_BYTES))
    }
}

/// The first free segment of the disk of which most is free.
fn allocate(disks: &mut [Free]) -> Result<Place, PoolFull> {
    let segments = disks.iter().map(|disk| disk.segments).sum();
    let full = PoolFull { segments };
    let mut best: Option<usize> = None;
    for (at, disk) in disks.iter().enumerate().filter(|(_, disk)| disk.free > 0) {
        let freer = |best: &Free| {
            u128::from(disk.free) * u128::from(best.segments)
                > u128::from(best.free) * u128::from(disk.segments)
        };
        if best.is_none_or(|best| freer(&disks[best])) {
            best = Some(at);
        }
    }
    let at = best.ok_or(full)?;
    let segment = disks[at].take_first().ok_or(full)?;
    Ok(Place {
        disk: at as u16,
        segment,
    })
}

/// A range cut at the borders of segments.
fn in_segments(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let mut next = range.offset_bytes;
    std::iter::from_fn(move || {
        let border = (next / POOL_SEGMENT_BYTES + 1) * POOL_SEGMENT_BYTES;
        let part = (next < range.end_bytes())
            .then(|| ByteRange::between(next, border.min(range.end_bytes())))?;
        next = part.end_bytes();
        Some(part)
    })
}

#[cfg(test)]
mod tests;
