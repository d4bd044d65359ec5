//! The 64-byte descriptor of a slot, as words and as fields.
//!
//! Pure. Word 0 is the state word, `stamp << 3 | state`: a slot of an earlier lap is recognised by
//! its stamp. It is written last with release order and read first with acquire order; the other
//! words are meaningful only between two equal reads of it.
//!
//! Words are put together with shifts, never by reading a struct of smaller fields as words: a load
//! that spans two younger stores waits until both have left the core, and with them the payload
//! just copied. That cost 40 % of two producers' time.
//!
//! ```text
//!   0  stamp << 3 | state        32  payload start, in units of 512 bytes
//!   8  time mark                 40  payload end, in units of 512 bytes
//!  16  offset, bytes             48  volume u16 | kind u8 | flags u8 | zero u32
//!  24  length u32 | payload u32  56  zero
//! ```

use crate::place::{Cursor, Geometry, Placement, units_of};
use wire::{RecordKind, VolumeIndex};

/// Words of a descriptor.
pub(crate) const DESCRIPTOR_WORDS: usize = 8;
/// Index of the state word.
pub(crate) const STATE_WORD: usize = 0;
/// Words that are known when a place is claimed: mark, start and end.
pub(crate) const PLACE_WORDS: [usize; 3] = [1, 4, 5];
/// Words that are known when it is filled.
pub(crate) const FIELD_WORDS: [usize; 4] = [2, 3, 6, 7];
const STATE_BITS: u32 = 3;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const FLAG_FUA: u64 = 1;
const KIND_SHIFT: u32 = 16;
const FLAGS_SHIFT: u32 = 24;
const LENGTH_BITS: u32 = 32;

/// How far a record has come. The order is the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum State {
    /// Its fields are being written.
    Opening = 0,
    /// Stamp, mark and positions are fixed; the payload is on its way.
    Claimed = 1,
    /// Complete; the shipper may read it.
    Filled = 2,
    /// The disk has taken it.
    Settled = 3,
    /// The disk refused it, or it was given back.
    Void = 4,
}

/// Stamp and state of a slot at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateWord {
    pub(crate) stamp: u64,
    pub(crate) state: Option<State>,
}

/// A descriptor without its state word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) mark: u64,
    pub(crate) offset_bytes: u64,
    pub(crate) length_bytes: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Volume, kind and flags, as they lie in their word.
    what: u64,
    zero: u64,
}

const _: () = assert!(PLACE_WORDS.len() + FIELD_WORDS.len() == DESCRIPTOR_WORDS - 1);

/// What a record is, apart from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFields {
    /// What the record does.
    pub kind: RecordKind,
    /// To which volume.
    pub volume: VolumeIndex,
    /// Whether forced unit access was asked for.
    pub fua: bool,
    /// First byte of the range on the volume.
    pub offset_bytes: u64,
    /// Length of the range.
    pub length_bytes: u32,
    /// Bytes of the claimed payload that belong to the record.
    pub payload_bytes: u32,
}

impl RecordFields {
    /// The application wrote the payload.
    pub fn write(volume: VolumeIndex, offset_bytes: u64, length_bytes: u32, fua: bool) -> Self {
        let fields = Self::range(RecordKind::Write, volume, offset_bytes, length_bytes);
        Self {
            fua,
            payload_bytes: length_bytes,
            ..fields
        }
    }

    /// The payload is what the disk held.
    pub fn copy(volume: VolumeIndex, offset_bytes: u64, length_bytes: u32) -> Self {
        let fields = Self::range(RecordKind::Copy, volume, offset_bytes, length_bytes);
        Self {
            payload_bytes: length_bytes,
            ..fields
        }
    }

    /// The application discarded the range.
    pub fn discard(volume: VolumeIndex, offset_bytes: u64, length_bytes: u32) -> Self {
        Self::range(RecordKind::Discard, volume, offset_bytes, length_bytes)
    }

    /// The range was zeroed, or a copy found only zeroes in it.
    pub fn zero(volume: VolumeIndex, offset_bytes: u64, length_bytes: u32) -> Self {
        Self::range(RecordKind::Zero, volume, offset_bytes, length_bytes)
    }

    /// A volume joins, is ready, leaves or continues; the payload is a [`wire::Member`].
    pub fn member(volume: VolumeIndex, payload_bytes: u32) -> Self {
        let fields = Self::range(RecordKind::Member, volume, 0, 0);
        Self {
            payload_bytes,
            ..fields
        }
    }

    /// Writes before this place were given up; the payload is a reason.
    pub fn gap(payload_bytes: u32) -> Self {
        let fields = Self::range(RecordKind::Gap, VolumeIndex::default(), 0, 0);
        Self {
            payload_bytes,
            ..fields
        }
    }

    /// A place that was given back.
    pub(crate) fn nothing() -> Self {
        Self::range(RecordKind::Void, VolumeIndex::default(), 0, 0)
    }

    fn range(kind: RecordKind, volume: VolumeIndex, offset_bytes: u64, length_bytes: u32) -> Self {
        Self {
            kind,
            volume,
            fua: false,
            offset_bytes,
            length_bytes,
            payload_bytes: 0,
        }
    }

    fn what(&self) -> u64 {
        let volume = u64::from(self.volume.0);
        let kind = u64::from(self.kind as u8) << KIND_SHIFT;
        let flags = if self.fua { FLAG_FUA << FLAGS_SHIFT } else { 0 };
        volume | kind | flags
    }

    /// Whether these lengths are possible for the kind.
    pub(crate) fn is_sound(&self) -> bool {
        self.kind
            .allows(self.offset_bytes, self.length_bytes, self.payload_bytes)
    }
}

impl State {
    fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Opening,
            1 => Self::Claimed,
            2 => Self::Filled,
            3 => Self::Settled,
            4 => Self::Void,
            _ => return None,
        })
    }

    /// Whether the disk has answered: the memory of the record is no longer in use by it.
    pub(crate) fn is_done(self) -> bool {
        self >= Self::Settled
    }
}

impl StateWord {
    pub(crate) fn pack(stamp: u64, state: State) -> u64 {
        assert!(stamp <= u64::MAX >> STATE_BITS);
        stamp << STATE_BITS | u64::from(state as u8)
    }

    pub(crate) fn unpack(word: u64) -> Self {
        Self {
            stamp: word >> STATE_BITS,
            state: State::from_code(word & STATE_MASK),
        }
    }

    /// The state, if the slot belongs to `stamp` and is complete.
    pub(crate) fn filled_as(self, stamp: u64) -> Option<State> {
        let state = self.state.filter(|state| *state >= State::Filled)?;
        (self.stamp == stamp).then_some(state)
    }

    /// Whether the slot belongs to an earlier record that the disk has answered for.
    pub(crate) fn is_done_before(self, stamp: u64) -> bool {
        self.stamp < stamp && self.state.is_some_and(State::is_done)
    }

    /// The final state, if the slot belongs to `stamp` and the disk has answered.
    pub(crate) fn done_as(self, stamp: u64) -> Option<State> {
        self.filled_as(stamp).filter(|state| state.is_done())
    }
}

impl Descriptor {
    /// One with a place and no fields yet.
    #[inline]
    pub(crate) fn new(placement: Placement, mark: u64) -> Self {
        Self {
            mark,
            start: placement.start,
            end: placement.end,
            ..Self::of_fields(RecordFields::nothing())
        }
    }

    /// One with fields and no place.
    #[inline]
    pub(crate) fn of_fields(fields: RecordFields) -> Self {
        Self {
            mark: 0,
            offset_bytes: fields.offset_bytes,
            length_bytes: fields.length_bytes,
            payload_bytes: fields.payload_bytes,
            start: 0,
            end: 0,
            what: fields.what(),
            zero: 0,
        }
    }

    /// The word at `index` of the slot; not the state word.
    #[inline]
    pub(crate) fn word(self, index: usize) -> u64 {
        self.to_words()[index - 1]
    }

    /// The words after the state word.
    #[inline]
    pub(crate) fn to_words(self) -> [u64; DESCRIPTOR_WORDS - 1] {
        let length = u64::from(self.length_bytes);
        let payload = u64::from(self.payload_bytes);
        [
            self.mark,
            self.offset_bytes,
            length | payload << LENGTH_BITS,
            self.start,
            self.end,
            self.what,
            self.zero,
        ]
    }

    pub(crate) fn from_words(words: [u64; DESCRIPTOR_WORDS - 1]) -> Self {
        let [mark, offset_bytes, lengths, start, end, what, zero] = words;
        Self {
            mark,
            offset_bytes,
            length_bytes: lengths as u32,
            payload_bytes: (lengths >> LENGTH_BITS) as u32,
            start,
            end,
            what,
            zero,
        }
    }

    /// The fields, if everything in the descriptor is possible for `stamp` in this ring.
    ///
    /// The error names what is not: nothing of such a record may be used.
    pub(crate) fn check(
        &self,
        stamp: u64,
        freed: Cursor,
        geometry: Geometry,
    ) -> Result<RecordFields, &'static str> {
        let placement = Placement {
            stamp,
            start: self.start,
            end: self.end,
        };
        if !geometry.holds(placement, freed) {
            return Err("payload position");
        }
        if units_of(u64::from(self.payload_bytes)) > self.end - self.start {
            return Err("payload length");
        }
        let kind = RecordKind::from_code((self.what >> KIND_SHIFT) as u8).map_err(|_| "kind")?;
        let flags = self.what >> FLAGS_SHIFT;
        if flags > FLAG_FUA || self.zero != 0 {
            return Err("flags");
        }
        let fields = RecordFields {
            kind,
            volume: VolumeIndex(self.what as u16),
            fua: flags == FLAG_FUA,
            offset_bytes: self.offset_bytes,
            length_bytes: self.length_bytes,
            payload_bytes: self.payload_bytes,
        };
        if !fields.is_sound() {
            return Err("range");
        }
        Ok(fields)
    }
}

#[cfg(test)]
#[path = "descriptor_tests.rs"]
mod tests;
