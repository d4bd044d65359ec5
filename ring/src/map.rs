//! The mapped memory as words and payload.
//!
//! Owned by [`crate::Ring`] and [`crate::Consumer`]. Three maps: the tap's view of the ring, the
//! shipper's read-only view of it, and the consumer page both may write. Control words are shared
//! as atomics and nothing else, so a neighbour that scribbles is a wrong value, never undefined
//! behaviour. Payload bytes are a slice only for whoever won their place ([`SlotPayload`]); the
//! shipper reads them word by word, atomically.
//!
//! Why unsafe: a map is a raw pointer, and turning it into references is exactly what the language
//! cannot check. What is promised to it is written at each site.

#![allow(unsafe_code)]

use crate::descriptor::{DESCRIPTOR_WORDS, Descriptor, STATE_WORD, StateWord};
use crate::layout::{
    CLAIM_WORD, FREED_POSITION_WORD, FREED_STAMP_WORD, Layout, PAGE_BYTES, WORD_BYTES,
};
use crate::mapping::Mapping;
use crate::place::{ClaimWord, Cursor, Placement, UNIT_BYTES};
use crate::sync::{AtomicU64, Ordering};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::slice;
use zerocopy::IntoBytes;

/// Words copied out of the ring at a time.
const COPY_WORDS: usize = 64;
/// How often the claim word is read again when the freed cursor overtakes the reader.
const CLAIM_READS_MAX: u32 = 1 << 24;

/// The tap's view of the ring: control words as atomics, payload by claim only.
#[derive(Debug)]
pub(crate) struct TapMap {
    map: ManuallyDrop<Mapping>,
    layout: Layout,
}

/// The shipper's view of the ring; the memory cannot be written through it.
#[derive(Debug)]
pub(crate) struct ReadMap {
    map: Mapping,
}

/// The consumer page; both sides write it, neither believes it.
#[derive(Debug)]
pub(crate) struct PageMap {
    map: Mapping,
}

/// The descriptor words of one open place.
///
/// It holds no borrow of the map: a [`TapMap`] dropped while a place is open leaves the memory
/// mapped for ever.
#[derive(Debug)]
pub(crate) struct SlotWords {
    first: NonNull<AtomicU64>,
}

/// The payload memory of one open place, owned by whoever won the place.
///
/// It holds no borrow of the map either, and must not be used after the place is settled or void.
#[derive(Debug)]
pub(crate) struct SlotPayload {
    first: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the words are atomics, which any thread may use.
unsafe impl Send for SlotWords {}

// SAFETY: the words are atomics, which threads may share.
unsafe impl Sync for SlotWords {}

// SAFETY: this is the only handle to its bytes and they do not depend on the thread; moving it to
// another thread moves that ownership.
unsafe impl Send for SlotPayload {}

// SAFETY: through a shared handle the bytes can only be read.
unsafe impl Sync for SlotPayload {}

impl TapMap {
    /// Maps the whole ring file, which must have the size of `layout`.
    pub(crate) fn new(file: &File, layout: Layout) -> io::Result<Self> {
        let map = Mapping::writable(file, layout.total_bytes())?;
        assert!(map.len() as u64 == layout.total_bytes());
        Ok(Self {
            map: ManuallyDrop::new(map),
            layout,
        })
    }

    /// Keeps the memory resident, in huge pages as far as there are any.
    pub(crate) fn lock(&self) -> io::Result<()> {
        // Without them the ring is slower and as right.
        let _ = self.map.gather();
        self.map.lock()
    }

    /// Unmaps a ring no place of which was taken through this map, whatever its words say.
    pub(crate) fn unmap_unused(self) {
        let mut unused = ManuallyDrop::new(self);
        // SAFETY: the map is dropped once, for `unused` is never dropped; no handle to a place was
        // made from it, by contract, and no reference outlives `self`.
        unsafe { ManuallyDrop::drop(&mut unused.map) };
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A control word; payload is out of reach.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.control(index, 1)[0]
    }

    /// The descriptor words of a stamp's slot.
    pub(crate) fn descriptor(&self, stamp: u64) -> &[AtomicU64] {
        let first = self.layout.descriptor_word(stamp);
        self.control(first, DESCRIPTOR_WORDS)
    }

    /// A copy of the descriptor of a stamp's slot. The caller has seen a state that keeps it in place.
    pub(crate) fn load_descriptor(&self, stamp: u64) -> Descriptor {
        let words = self.descriptor(stamp);
        let mut copy = [0; DESCRIPTOR_WORDS - 1];
        for (to, from) in copy.iter_mut().zip(&words[STATE_WORD + 1..]) {
            *to = from.load(Ordering::Relaxed);
        }
        Descriptor::from_words(copy)
    }

    /// Takes a place: swaps the claim word from `seen` to the one after `placement`, open.
    ///
    /// `None` when another claim came first. `freed` is what `placement` was computed from; it must
    /// have been read after `seen` with acquire order.
    pub(crate) fn take(
        &self,
        seen: ClaimWord,
        placement: Placement,
        payload_bytes: u32,
        freed: Cursor,
    ) -> Option<(SlotWords, SlotPayload)> {
        let geometry = self.layout.geometry;
        assert!(geometry.holds(placement, freed));
        let room_bytes = (placement.end - placement.start) * UNIT_BYTES;
        assert!(u64::from(payload_bytes) <= room_bytes);
        let next = ClaimWord::pack(placement.after(), false);
        self.word(CLAIM_WORD)
            .compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        let payload_bytes = payload_bytes as usize;
        Some((
            self.slot_words(placement.stamp),
            self.slot_payload(placement.start, payload_bytes),
        ))
    }

    /// Address and length of the payload area, for the kernel to know it in advance.
    pub(crate) fn payload_area(&self) -> (*mut u8, usize) {
        let offset = self.layout.control_words * WORD_BYTES as usize;
        let first = self.map.as_ptr().wrapping_add(offset);
        (first, self.layout.payload_bytes as usize)
    }

    /// The descriptor words of a stamp's slot, for whoever owns its place.
    pub(crate) fn slot_words(&self, stamp: u64) -> SlotWords {
        let first = NonNull::from(self.descriptor(stamp)).cast();
        SlotWords { first }
    }

    fn slot_payload(&self, start: u64, bytes: usize) -> SlotPayload {
        let byte = self.layout.geometry.byte_of(start);
        assert!(byte + bytes <= self.layout.payload_bytes as usize);
        let offset = self.layout.control_words * WORD_BYTES as usize + byte;
        // SAFETY: the offset lies inside the map by the assertion above and the one in `new`; a
        // pointer into a map is never null.
        let first = unsafe { NonNull::new_unchecked(self.map.as_ptr().add(offset)) };
        SlotPayload { first, bytes }
    }

    /// Freed cursor, read so that its position is never newer than its stamp.
    pub(crate) fn freed(&self) -> Cursor {
        let position = self.word(FREED_POSITION_WORD).load(Ordering::Acquire);
        let stamp = self.word(FREED_STAMP_WORD).load(Ordering::Acquire);
        Cursor { stamp, position }
    }

    /// The claim word and what it stands for, with the freed cursor it was rebuilt from.
    ///
    /// The word is read first: when it is unchanged at the swap, the freed cursor read in between
    /// cannot have passed it, and is not older than it.
    pub(crate) fn claimed(&self) -> (ClaimWord, Cursor, Cursor) {
        match self.try_claimed() {
            Some(claimed) => claimed,
            None => panic!("claim word and freed cursor do not belong together: ring damaged"),
        }
    }

    fn try_claimed(&self) -> Option<(ClaimWord, Cursor, Cursor)> {
        for _ in 0..CLAIM_READS_MAX {
            let word = ClaimWord(self.word(CLAIM_WORD).load(Ordering::Acquire));
            let freed = self.freed();
            if let Some(claimed) = word.rebuild(freed, self.layout.geometry) {
                return Some((word, claimed, freed));
            }
            crate::sync::spin_loop();
        }
        None
    }

    /// Stamp and state of a stamp's slot.
    pub(crate) fn state(&self, stamp: u64) -> StateWord {
        let word = &self.descriptor(stamp)[STATE_WORD];
        StateWord::unpack(word.load(Ordering::Acquire))
    }

    /// Whether anyone may still hold a place; also when that cannot be told.
    fn has_open_slot(&self) -> bool {
        self.try_claimed().is_none_or(|(_, claimed, freed)| {
            (freed.stamp + 1..=claimed.stamp)
                .any(|stamp| self.state(stamp).done_as(stamp).is_none())
        })
    }

    fn control(&self, first: usize, count: usize) -> &[AtomicU64] {
        assert!(first + count <= self.layout.control_words);
        self.map.words(first, count)
    }
}

impl Drop for TapMap {
    fn drop(&mut self) {
        if !self.has_open_slot() {
            // SAFETY: every place taken is settled or void, so its handles are used no more
            // (acquire above, release in `claim`), and without the map nobody takes another.
            unsafe { ManuallyDrop::drop(&mut self.map) };
        }
    }
}

impl ReadMap {
    /// Maps `bytes` of the ring file read-only.
    pub(crate) fn new(file: impl AsFd, bytes: u64) -> io::Result<Self> {
        let map = Mapping::read_only(file, bytes)?;
        assert!(map.len() as u64 == bytes);
        Ok(Self { map })
    }

    /// Reads a word without order; follow it with an acquire fence where order is needed.
    ///
    /// Relaxed on purpose: it is the one atomic load that is allowed on memory mapped read-only.
    pub(crate) fn load(&self, index: usize) -> u64 {
        self.map.words(index, 1)[0].load(Ordering::Relaxed)
    }

    /// Appends `bytes` bytes from `first_byte` (a multiple of a word) on.
    pub(crate) fn read(&self, first_byte: usize, bytes: usize, out: &mut Vec<u8>) {
        let word_bytes = WORD_BYTES as usize;
        assert!(first_byte.is_multiple_of(word_bytes));
        let mut first = first_byte / word_bytes;
        out.reserve(bytes);
        let mut left = bytes;
        while left > 0 {
            let mut copy = [0u64; COPY_WORDS];
            let count = left.div_ceil(word_bytes).min(COPY_WORDS);
            self.map.copy_out(first, &mut copy[..count]);
            let wanted = left.min(count * word_bytes);
            out.extend_from_slice(&copy.as_bytes()[..wanted]);
            left -= wanted;
            first += count;
        }
    }
}

impl PageMap {
    /// Maps the consumer page.
    pub(crate) fn new(file: impl AsFd) -> io::Result<Self> {
        let map = Mapping::writable(file, PAGE_BYTES)?;
        assert!(map.len() as u64 == PAGE_BYTES);
        Ok(Self { map })
    }

    /// Keeps the page resident.
    pub(crate) fn lock(&self) -> io::Result<()> {
        self.map.lock()
    }

    /// A word of the page.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.map.words(index, 1)[0]
    }
}

impl SlotWords {
    pub(crate) fn as_slice(&self) -> &[AtomicU64] {
        // SAFETY: this points at a whole descriptor inside the control words, used as atomics only;
        // the memory stays mapped as long as the place is open (see `Drop for TapMap`).
        unsafe { slice::from_raw_parts(self.first.as_ptr(), DESCRIPTOR_WORDS) }
    }
}

impl SlotPayload {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: places of different claims are disjoint: positions only grow by compare-and-swap
        // on the claim word, and `take` asserted that this one lies within one area behind the
        // freed cursor, which passes a place only after its slot is settled or void, that is after
        // this handle is gone. The memory stays mapped as long as the place is open, and other
        // processes have it read-only.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only use of the only handle, and the
        // shipper does not read the bytes before the state word says filled.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.bytes) }
    }

    /// Address of the bytes, for I/O by the kernel.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.first.as_ptr()
    }
}
