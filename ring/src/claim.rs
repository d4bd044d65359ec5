//! A place in the stream on its way: claimed, filled, settled or void.
//!
//! Owned by the thread that claimed it. A place that was claimed always becomes a record: dropped
//! unfilled it is given back as a void one, so the stream has no hole (P4). A filled one stays
//! readable for the disk write in flight until it is settled or voided; dropped without either it
//! stays open for ever, because nobody knows whether the kernel still reads from it (P1).

use crate::descriptor::{
    Descriptor, FIELD_WORDS, PLACE_WORDS, RecordFields, STATE_WORD, State, StateWord,
};
use crate::map::{SlotPayload, SlotWords};
use crate::place::Placement;
use crate::sync::{Ordering, fence};
use wire::{Stamp, TimeMark};

/// A claimed place: fill it, or drop it to give it back.
#[derive(Debug)]
#[must_use = "a claim that is dropped becomes a void record"]
pub struct Claim {
    payload: SlotPayload,
    record: Record,
}

/// A filled place: settle or void it when the disk has answered.
#[derive(Debug)]
#[must_use = "a record that is never settled keeps its memory for ever"]
pub struct Filled {
    payload: SlotPayload,
    record: Record,
}

/// The descriptor of an open place; gives the place back when dropped before it is filled.
#[derive(Debug)]
pub(crate) struct Record {
    words: SlotWords,
    /// Stamp and state, as in the slot. One word, so that a record is moved as it was stored.
    word: u64,
}

impl Claim {
    /// Opens the place just won.
    pub(crate) fn open(
        (words, payload): (SlotWords, SlotPayload),
        placement: Placement,
        mark: TimeMark,
    ) -> Self {
        let record = Record::open(words, placement, mark);
        Self { payload, record }
    }

    /// Its place in the stream.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.record.stamp())
    }

    /// The payload to fill: as long as it was claimed, and holding what some older record left.
    ///
    /// It starts on a page when it is a page or longer, else on a multiple of 512 bytes.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.payload.bytes_mut()
    }

    /// Address of the payload, for a read by the kernel.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.payload.as_mut_ptr()
    }

    /// Completes the record; the shipper may read it from now on.
    ///
    /// The fields may use less payload than was claimed, and must be possible for their kind.
    pub fn fill(self, fields: RecordFields) -> Filled {
        let Self {
            payload,
            mut record,
        } = self;
        let claimed_bytes = payload.bytes().len();
        // Not shown: to be shown they would have to lie in memory, see `crate::descriptor`.
        assert!(
            fields.is_sound(),
            "record fields are impossible for their kind"
        );
        assert!(
            fields.payload_bytes as usize <= claimed_bytes,
            "payload was not claimed"
        );
        record.fill(fields);
        Filled { payload, record }
    }
}

impl Filled {
    /// Its place in the stream.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.record.stamp())
    }

    /// The claimed payload: what the disk write in flight reads.
    pub fn payload(&self) -> &[u8] {
        self.payload.bytes()
    }

    /// Address of the payload, for a write by the kernel.
    pub fn as_ptr(&self) -> *const u8 {
        self.payload.bytes().as_ptr()
    }

    /// The disk has taken the record. Its memory may be reused from now on.
    pub fn settle(mut self) {
        self.record.publish(State::Settled);
    }

    /// The disk refused the record. Its memory may be reused from now on.
    pub fn void(mut self) {
        self.record.publish(State::Void);
    }
}

impl Record {
    fn open(words: SlotWords, placement: Placement, mark: TimeMark) -> Self {
        let last = words.as_slice()[STATE_WORD].load(Ordering::Relaxed);
        assert!(
            last == 0 || StateWord::unpack(last).is_done_before(placement.stamp),
            "a place is given out again only when its last record is done"
        );
        Self::begin(words, placement, mark)
    }

    /// Opens a place that is ours, or a dead tap's, whatever its descriptor says.
    pub(crate) fn begin(words: SlotWords, placement: Placement, mark: TimeMark) -> Self {
        // A reader of the slot's last record must notice before it can see any new word or byte:
        // first the state word, then the fence, then everything else.
        let word = StateWord::pack(placement.stamp, State::Opening);
        words.as_slice()[STATE_WORD].store(word, Ordering::Relaxed);
        let mut record = Self { words, word };
        fence(Ordering::Release);
        record.store(Descriptor::new(placement, mark.0), PLACE_WORDS);
        record.publish(State::Claimed);
        record
    }

    pub(crate) fn stamp(&self) -> u64 {
        StateWord::unpack(self.word).stamp
    }

    fn fill(&mut self, fields: RecordFields) {
        self.store(Descriptor::of_fields(fields), FIELD_WORDS);
        self.publish(State::Filled);
    }

    /// Stores the words of `descriptor` at these indices.
    fn store<const N: usize>(&self, descriptor: Descriptor, indices: [usize; N]) {
        let words = self.words.as_slice();
        for index in indices {
            words[index].store(descriptor.word(index), Ordering::Relaxed);
        }
    }

    /// Makes a later state visible, and everything written before it.
    pub(crate) fn publish(&mut self, state: State) {
        let next = StateWord::pack(self.stamp(), state);
        assert!(next > self.word, "a record only moves forward");
        let word = &self.words.as_slice()[STATE_WORD];
        assert!(
            word.load(Ordering::Relaxed) == self.word,
            "a slot has one owner"
        );
        self.word = next;
        word.store(next, Ordering::Release);
    }
}

/// The place of a dead tap, as it left it.
pub(crate) fn abandoned(words: SlotWords, stamp: u64, state: State) -> Record {
    let word = StateWord::pack(stamp, state);
    Record { words, word }
}

impl Drop for Record {
    fn drop(&mut self) {
        if StateWord::unpack(self.word).state < Some(State::Filled) {
            self.fill(RecordFields::nothing());
            self.publish(State::Void);
        }
    }
}
