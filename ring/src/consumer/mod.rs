//! The shipper's side: reading records, settle states, and the three words it may write.
//!
//! Owned by the shipper. Everything found in the ring is copied out first and checked after, with
//! the slot's state word read before and after: a record that was recycled meanwhile is an error,
//! and one whose fields are impossible is never used. Nothing here blocks or waits.

mod open;

pub use open::OpenError;

use crate::descriptor::{DESCRIPTOR_WORDS, Descriptor, RecordFields, STATE_WORD, State, StateWord};
use crate::layout::{
    ACKED_WORD, CLAIM_WORD, FREED_POSITION_WORD, FREED_STAMP_WORD, Header, Layout, SENT_WORD,
    WORD_BYTES,
};
use crate::map::{PageMap, ReadMap};
use crate::place::{ClaimWord, Cursor};
use crate::sync::{Ordering, fence};
use crate::wake::{self, WakeFd};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use wire::{Incarnation, Stamp, TimeMark};

/// How often the claim word is read again when it changes under the reader.
const CLAIM_READS_MAX: usize = 1000;

/// The ring, as the shipper holds it.
#[derive(Debug)]
pub struct Consumer {
    map: ReadMap,
    page: PageMap,
    wake: OwnedFd,
    header: Header,
    layout: Layout,
}

/// A filled record, copied out of the ring and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Place in the stream.
    pub stamp: Stamp,
    /// Time when the place was claimed; not lifted yet, it may repeat or step back.
    pub mark: TimeMark,
    /// What the record is.
    pub fields: RecordFields,
    /// First payload unit.
    start: u64,
}

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// The ring does not hold it any more.
    #[error("record after {after} is gone from the ring, which holds those after {freed}")]
    Recycled {
        /// Where reading was to go on.
        after: Stamp,
        /// The newest record that was freed.
        freed: Stamp,
    },
    /// It is impossible; nothing of it may be used.
    #[error("record {stamp} in the ring has an impossible {what}; restart the tap")]
    Corrupt {
        /// Which record.
        stamp: Stamp,
        /// What about it.
        what: &'static str,
    },
}

impl Consumer {
    /// The life of the ring.
    pub fn incarnation(&self) -> Incarnation {
        self.header.incarnation
    }

    /// Records it can hold.
    pub fn slots(&self) -> u32 {
        self.header.config.slots
    }

    /// Payload it can hold, in bytes.
    pub fn payload_capacity_bytes(&self) -> u64 {
        self.header.config.payload_bytes
    }

    /// The newest stamp claimed.
    pub fn captured(&self) -> Result<Stamp, RingFault> {
        for _ in 0..CLAIM_READS_MAX {
            let word = ClaimWord(self.load(CLAIM_WORD));
            if let Some(claimed) = word.rebuild(self.freed_cursor(), self.layout.geometry) {
                return Ok(Stamp(claimed.stamp));
            }
        }
        Err(RingFault::Corrupt {
            stamp: self.freed(),
            what: "claim word",
        })
    }

    /// Everything up to here is gone from the ring; the oldest record it holds is the next.
    pub fn freed(&self) -> Stamp {
        Stamp(self.load(FREED_STAMP_WORD))
    }

    /// Whether the tap gave the stream up; records claimed before still come.
    pub fn is_closed(&self) -> bool {
        ClaimWord(self.load(CLAIM_WORD)).is_closed()
    }

    /// Appends the filled records that follow `after` without a hole, `count_max` at most.
    ///
    /// Returns how many. On an error nothing was appended.
    pub fn peek_filled(
        &self,
        after: Stamp,
        count_max: usize,
        out: &mut Vec<Entry>,
    ) -> Result<usize, RingFault> {
        self.check_held(after)?;
        let before = out.len();
        let mut stamp = after;
        for _ in 0..count_max {
            let Some(next) = next_of(stamp) else { break };
            stamp = next;
            match self.entry(stamp) {
                Ok(Some(entry)) => out.push(entry),
                Ok(None) => break,
                Err(fault) => {
                    out.truncate(before);
                    return Err(fault);
                }
            }
        }
        Ok(out.len() - before)
    }

    /// Appends the payload of a record, then makes sure that it was still there.
    ///
    /// On an error nothing was appended.
    pub fn read_payload(&self, entry: &Entry, out: &mut Vec<u8>) -> Result<(), RingFault> {
        let before = out.len();
        let payload_first = self.layout.control_words * WORD_BYTES as usize;
        let first_byte = payload_first + self.layout.geometry.byte_of(entry.start);
        self.map
            .read(first_byte, entry.fields.payload_bytes as usize, out);
        // Whoever reuses the bytes frees the record first: seen any of them, the fence shows that.
        fence(Ordering::Acquire);
        self.check_held(entry.stamp.prev())
            .inspect_err(|_| out.truncate(before))
    }

    /// How far the disk has answered without a hole after `after`, looking at `count_max` records
    /// at most. The void ones among them are appended to `voids`.
    pub fn settle_scan(
        &self,
        after: Stamp,
        count_max: usize,
        voids: &mut Vec<Stamp>,
    ) -> Result<Stamp, RingFault> {
        self.check_held(after)?;
        let before = voids.len();
        let mut upto = after;
        for _ in 0..count_max {
            let Some(stamp) = next_of(upto) else { break };
            match self.state(stamp.0).done_as(stamp.0) {
                Some(State::Void) => voids.push(stamp),
                Some(_) => {}
                None => break,
            }
            upto = stamp;
        }
        self.check_held(after)
            .inspect_err(|_| voids.truncate(before))?;
        Ok(upto)
    }

    /// Says how far records were sent.
    pub fn set_sent(&self, stamp: Stamp) {
        self.page.word(SENT_WORD).store(stamp.0, Ordering::Release);
    }

    /// Says that every record up to here is durable at the receiver, its settle mark included.
    ///
    /// The tap frees their memory, and calls the group broken if the stamp goes back, runs ahead of
    /// what was captured, or covers a record that is not settled.
    pub fn set_acked(&self, stamp: Stamp) {
        self.page.word(ACKED_WORD).store(stamp.0, Ordering::Release);
    }

    /// What was said last about sending; a new shipper may find an old one's word.
    pub fn sent(&self) -> Stamp {
        Stamp(self.page.word(SENT_WORD).load(Ordering::Acquire))
    }

    /// What was said last about durability; a new shipper may find an old one's word.
    pub fn acked(&self) -> Stamp {
        Stamp(self.page.word(ACKED_WORD).load(Ordering::Acquire))
    }

    /// Declares that this side is about to sleep on the wake descriptor.
    ///
    /// Look for new records and settle states once more after this; then sleep or cancel. Sleep no
    /// longer than some seconds at a time: a predecessor that still lives could take the wake.
    pub fn prepare_sleep(&self) {
        wake::declare_sleep(&self.page);
    }

    /// Takes the declaration back, after waking by other means or finding work.
    pub fn cancel_sleep(&self) {
        wake::cancel_sleep(&self.page);
    }

    /// The descriptor that becomes readable when the tap wakes a sleeper; drain it after.
    pub fn wake_fd(&self) -> io::Result<WakeFd> {
        Ok(WakeFd::new(self.wake.as_fd().try_clone_to_owned()?))
    }

    /// The record with this stamp, if it is filled.
    fn entry(&self, stamp: Stamp) -> Result<Option<Entry>, RingFault> {
        let first = self.layout.descriptor_word(stamp.0);
        if self.state(stamp.0).filled_as(stamp.0).is_none() {
            // Either not there yet, or another lap's already.
            return self.check_held(stamp.prev()).map(|()| None);
        }
        let mut words = [0; DESCRIPTOR_WORDS - 1];
        for (offset, word) in words.iter_mut().enumerate() {
            *word = self.map.load(first + STATE_WORD + 1 + offset);
        }
        fence(Ordering::Acquire);
        let descriptor = Descriptor::from_words(words);
        let freed = self.freed_cursor();
        self.check_held(stamp.prev())?;
        let fields = descriptor
            .check(stamp.0, freed, self.layout.geometry)
            .map_err(|what| RingFault::Corrupt { stamp, what })?;
        Ok(Some(Entry {
            stamp,
            mark: TimeMark(descriptor.mark),
            fields,
            start: descriptor.start,
        }))
    }

    /// Whether the record after `after` is still, or not yet, in the ring.
    fn check_held(&self, after: Stamp) -> Result<(), RingFault> {
        let freed = self.freed();
        if freed > after {
            return Err(RingFault::Recycled { after, freed });
        }
        Ok(())
    }

    fn state(&self, stamp: u64) -> StateWord {
        StateWord::unpack(self.load(self.layout.descriptor_word(stamp) + STATE_WORD))
    }

    /// The freed cursor; its position is never newer than its stamp.
    fn freed_cursor(&self) -> Cursor {
        let position = self.load(FREED_POSITION_WORD);
        let stamp = self.load(FREED_STAMP_WORD);
        Cursor { stamp, position }
    }

    /// An acquiring load: relaxed and then a fence, as memory mapped read-only wants it.
    fn load(&self, index: usize) -> u64 {
        let word = self.map.load(index);
        fence(Ordering::Acquire);
        word
    }
}

/// The stamp after this one; a stamp that came over the network may be the last there is.
fn next_of(stamp: Stamp) -> Option<Stamp> {
    stamp.0.checked_add(1).map(Stamp)
}
