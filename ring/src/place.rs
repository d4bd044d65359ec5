//! Where the next record goes: the claim word, room and padding.
//!
//! Pure: no atomics, no memory. A [`ClaimWord`] packs the low 31 bits of the last claimed stamp and
//! the low 32 bits of the payload position into one word with the closed flag, so that one
//! compare-and-swap takes a slot, its payload and the open state together. Full 64-bit values come
//! back from a freed [`Cursor`], which is never further behind than the ring is large.
//!
//! Positions count 512-byte units and only grow; the place in the area is the position modulo the
//! area. A payload never wraps: when it does not fit before the end of the area the rest is padding
//! and belongs to the record. Payloads of a page or more start on a page.

/// Bytes of one payload unit.
pub(crate) const UNIT_BYTES: u64 = 512;
/// Units of one page: what larger payloads are aligned to.
const PAGE_UNITS: u64 = 8;
/// Smallest payload area in units; with it the largest record, half an area, always fits in the end.
pub(crate) const AREA_UNITS_MIN: u64 = 2 * PAGE_UNITS;
/// Largest payload area in units: positions of one area must differ in 32 bits.
pub(crate) const AREA_UNITS_MAX: u64 = 1 << 31;
/// Most slots: stamps of one ring must differ in 31 bits.
pub(crate) const SLOTS_MAX: u64 = 1 << 30;

const CLOSED: u64 = 1 << 63;
const STAMP_MASK: u64 = (1 << 31) - 1;
const POSITION_MASK: u64 = (1 << 32) - 1;
const STAMP_SHIFT: u32 = 32;

const _: () = assert!(CLOSED & (STAMP_MASK << STAMP_SHIFT) == 0);
const _: () = assert!((STAMP_MASK << STAMP_SHIFT) & POSITION_MASK == 0);
const _: () = assert!(SLOTS_MAX <= STAMP_MASK);
const _: () = assert!(AREA_UNITS_MAX <= POSITION_MASK);

/// The sizes of a ring; both are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    slots: u64,
    area_units: u64,
}

/// A place between two records: all stamps up to `stamp` lie before it, and so does all payload
/// before `position`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) stamp: u64,
    pub(crate) position: u64,
}

/// The word producers compare and swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimWord(pub(crate) u64);

/// Where one record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Its stamp.
    pub(crate) stamp: u64,
    /// First unit of its payload, behind any padding.
    pub(crate) start: u64,
    /// First unit after its payload; the next record starts from here.
    pub(crate) end: u64,
}

/// The ring has no free slot or no room for the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Geometry {
    pub(crate) fn new(slots: u64, area_units: u64) -> Self {
        assert!(slots.is_power_of_two() && slots <= SLOTS_MAX);
        assert!(area_units.is_power_of_two());
        assert!((AREA_UNITS_MIN..=AREA_UNITS_MAX).contains(&area_units));
        Self { slots, area_units }
    }

    #[inline]
    pub(crate) fn slots(self) -> u64 {
        self.slots
    }

    #[inline]
    pub(crate) fn area_units(self) -> u64 {
        self.area_units
    }

    /// Largest payload that always finds room in an empty ring, whatever the padding before it.
    #[inline]
    pub(crate) fn payload_units_max(self) -> u64 {
        self.area_units / 2
    }

    /// The descriptor slot of a stamp.
    #[inline]
    pub(crate) fn slot_of(self, stamp: u64) -> usize {
        (stamp & (self.slots - 1)) as usize
    }

    /// Byte offset of a position inside the payload area.
    #[inline]
    pub(crate) fn byte_of(self, position: u64) -> usize {
        ((position & (self.area_units - 1)) * UNIT_BYTES) as usize
    }

    /// Where a payload of `units` goes when `claimed` is the newest place and `freed` the oldest.
    ///
    /// `freed` may be older than the truth: then room is refused that exists, never the reverse.
    #[inline]
    pub(crate) fn place(
        self,
        freed: Cursor,
        claimed: Cursor,
        units: u64,
    ) -> Result<Placement, NoRoom> {
        assert!(units <= self.payload_units_max());
        assert!(freed.stamp <= claimed.stamp && freed.position <= claimed.position);
        if claimed.stamp - freed.stamp >= self.slots {
            return Err(NoRoom);
        }
        let start = self.start_of(claimed.position, units);
        let end = start + units;
        if end - freed.position > self.area_units {
            return Err(NoRoom);
        }
        let stamp = claimed.stamp + 1;
        Ok(Placement { stamp, start, end })
    }

    /// The first position from `position` on where `units` lie aligned and in one piece.
    #[inline]
    fn start_of(self, position: u64, units: u64) -> u64 {
        if units == 0 {
            return position;
        }
        let align = if units >= PAGE_UNITS { PAGE_UNITS } else { 1 };
        let start = up_to(position, align);
        let offset = start & (self.area_units - 1);
        if offset + units <= self.area_units {
            return start;
        }
        up_to(start, self.area_units)
    }

    /// Whether a record may lie there: in one piece, aligned, inside the area behind `freed`.
    #[inline]
    pub(crate) fn holds(self, placement: Placement, freed: Cursor) -> bool {
        let Placement { stamp, start, end } = placement;
        start <= end
            && end - start <= self.payload_units_max()
            && start >= freed.position
            && end - freed.position <= self.area_units
            && stamp > freed.stamp
            && stamp - freed.stamp <= self.slots
            && self.start_of(start, end - start) == start
    }
}

impl ClaimWord {
    #[inline]
    pub(crate) fn pack(cursor: Cursor, closed: bool) -> Self {
        let stamp = (cursor.stamp & STAMP_MASK) << STAMP_SHIFT;
        let flag = if closed { CLOSED } else { 0 };
        Self(flag | stamp | (cursor.position & POSITION_MASK))
    }

    #[inline]
    pub(crate) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// The bits that say the stream is given up, for an atomic "or".
    pub(crate) fn closing_bits() -> u64 {
        CLOSED
    }

    /// The full cursor, given a freed cursor read after this word.
    ///
    /// `None` when `freed` is already beyond this word: it is out of date, read it again. The
    /// answer is exact as long as fewer than 2^30 records passed between the two reads.
    #[inline]
    pub(crate) fn rebuild(self, freed: Cursor, geometry: Geometry) -> Option<Cursor> {
        let low_stamp = (self.0 >> STAMP_SHIFT) & STAMP_MASK;
        let ahead_stamps = low_stamp.wrapping_sub(freed.stamp) & STAMP_MASK;
        let ahead_units = (self.0 & POSITION_MASK).wrapping_sub(freed.position) & POSITION_MASK;
        if ahead_stamps > geometry.slots || ahead_units > geometry.area_units {
            return None;
        }
        Some(Cursor {
            stamp: freed.stamp + ahead_stamps,
            position: freed.position + ahead_units,
        })
    }
}

impl Placement {
    /// The place after this record.
    #[inline]
    pub(crate) fn after(self) -> Cursor {
        Cursor {
            stamp: self.stamp,
            position: self.end,
        }
    }
}

/// The next multiple of `align`, a power of two: no division on the way of a record.
#[inline]
fn up_to(position: u64, align: u64) -> u64 {
    (position + (align - 1)) & !(align - 1)
}

/// Units that hold `bytes`.
#[inline]
pub(crate) fn units_of(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT_BYTES)
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
