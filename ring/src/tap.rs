//! The tap's side: claiming places, closing and reopening the stream, and the cursors.
//!
//! Owned by the tap daemon, shared by its queue threads, copier and status. Every claim is one
//! compare-and-swap on the claim word: it fixes the stamp, takes slot and payload room, and fails
//! when the stream was closed first. No call here waits for the shipper.

use crate::claim::Claim;
use crate::config::RingConfig;
use crate::create::{self, CreateError, RingFiles, RingParts};
use crate::descriptor::State;
use crate::handoff::ConsumerFds;
use crate::layout::{CLAIM_WORD, DOUBT_WORD, Header, SENT_WORD, WHOLE_WORD};
use crate::map::{PageMap, TapMap};
use crate::place::{ClaimWord, Cursor, Geometry, UNIT_BYTES, units_of};
use crate::reclaim::{AckViolation, Reclaimer};
use crate::sync::{AtomicU64, Ordering};
use crate::wake::Waker;
use std::io;
use std::path::Path;
use wire::{Incarnation, Stamp, TimeMark, VolumeIndex};

/// How often one claim tries to free memory before it reports a full ring.
const RECLAIMS_MAX: usize = 4;

/// The ring, as the tap holds it.
#[derive(Debug)]
pub struct Ring {
    map: TapMap,
    page: PageMap,
    waker: Waker,
    reclaimer: Reclaimer,
    /// Every stamp up to this one is settled or void; only a starting point for the next look.
    settled_seen: AtomicU64,
    header: Header,
    files: RingFiles,
}

/// Where a ring starts to count. Only tests start anywhere but at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The stamp before the first.
    pub stamp: Stamp,
    /// The first payload position, in units of 512 bytes.
    pub position_units: u64,
}

/// Why a place was not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No free slot or payload room; try again when the shipper has caught up.
    #[error("ring is full")]
    Full,
    /// The stream was given up.
    #[error("stream is closed")]
    Closed,
    /// The payload is larger than any record of this ring may be.
    #[error("record of {wanted_bytes} bytes does not fit the ring, which takes {most_bytes}")]
    TooLarge {
        /// What was asked for.
        wanted_bytes: u32,
        /// The largest payload.
        most_bytes: u64,
    },
    /// The ring is full and the shipper's page is not to be believed.
    #[error(transparent)]
    AckViolation(#[from] AckViolation),
}

/// Why the stream was not reopened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReopenError {
    /// It is open.
    #[error("stream is not closed")]
    NotClosed,
    /// It stays closed.
    #[error(transparent)]
    Claim(ClaimError),
}

/// How full the ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Payload room in use, padding included, in bytes.
    pub used_bytes: u64,
    /// Payload room, in bytes.
    pub capacity_bytes: u64,
    /// Slots in use.
    pub used_slots: u64,
    /// All slots.
    pub slots: u64,
}

impl Ring {
    /// Makes a new ring in `dir`, which must be a tmpfs; a dead ring there is replaced.
    ///
    /// The caller holds the group's lock, so no other tap uses the one there, and has the
    /// incarnation on stable storage already: no two rings ever share one (P8).
    pub fn create(
        dir: &Path,
        incarnation: Incarnation,
        config: RingConfig,
    ) -> Result<Self, CreateError> {
        Self::create_at(dir, incarnation, config, Origin::default())
    }

    /// [`Ring::create`], counting from `origin`: lets tests start near where counters wrap.
    pub fn create_at(
        dir: &Path,
        incarnation: Incarnation,
        config: RingConfig,
        origin: Origin,
    ) -> Result<Self, CreateError> {
        let header = Header {
            incarnation,
            config,
            origin: Cursor {
                stamp: origin.stamp.0,
                position: origin.position_units,
            },
        };
        let parts = create::create(dir, header)?;
        Ok(Self::of_parts(parts, header, origin.stamp))
    }

    /// A ring all of whose records up to `done` are freed.
    pub(crate) fn of_parts(parts: RingParts, header: Header, done: Stamp) -> Self {
        Self {
            map: parts.map,
            page: parts.page,
            waker: parts.waker,
            reclaimer: Reclaimer::default(),
            settled_seen: AtomicU64::new(done.0),
            header,
            files: parts.files,
        }
    }

    /// Takes the next place in the stream, with room for a payload.
    ///
    /// `mark` is the time now. A full ring is reclaimed on the spot as far as the shipper has
    /// acked; nobody is woken when room appears later, so a caller that got `Full` tries again.
    pub fn claim(&self, payload_bytes: u32, mark: TimeMark) -> Result<Claim, ClaimError> {
        self.claim_from(false, payload_bytes, mark)
    }

    /// Whether a claim of this many bytes would find room, as far as reclaimed. Others claim too.
    pub fn has_room(&self, payload_bytes: u32) -> bool {
        let (_, claimed, freed) = self.map.claimed();
        let units = units_of(u64::from(payload_bytes));
        units <= self.geometry().payload_units_max()
            && self.geometry().place(freed, claimed, units).is_ok()
    }

    /// Gives the stream up: no place after the returned stamp is claimed until it is reopened.
    pub fn close(&self) -> Stamp {
        let word = self.map.word(CLAIM_WORD);
        word.fetch_or(ClaimWord::closing_bits(), Ordering::AcqRel);
        self.captured()
    }

    /// Opens a closed stream and claims the first place after the break, in one step.
    ///
    /// The place is for the `gap` record: whoever claims next comes after it.
    pub fn reopen(&self, payload_bytes: u32, mark: TimeMark) -> Result<Claim, ReopenError> {
        match self.claim_from(true, payload_bytes, mark) {
            Ok(claim) => Ok(claim),
            Err(ClaimError::Closed) => Err(ReopenError::NotClosed),
            Err(error) => Err(ReopenError::Claim(error)),
        }
    }

    /// Frees what the shipper says is acked, after checking it. Returns how many records.
    ///
    /// A full ring does this by itself. Call it on every tick all the same: acked, usage and lag
    /// are told as far as reclaimed, and a lie is found early. A violation is final until
    /// [`Ring::reset_acked`]: the group is broken.
    pub fn try_reclaim(&self) -> Result<u64, AckViolation> {
        self.reclaimer.reclaim(&self.map, &self.page)
    }

    /// Believes the page again, from what is freed now. For a new shipper after a violation.
    pub fn reset_acked(&self) {
        self.reclaimer.reset(&self.map, &self.page);
    }

    /// Wakes the shipper if it sleeps. Call it after a batch of fills and settles.
    pub fn notify_consumer(&self) {
        self.waker.wake(&self.page);
    }

    /// What a shipper needs to open this ring; the ring itself can only be read through it.
    pub fn consumer_fds(&self) -> io::Result<ConsumerFds> {
        Ok(ConsumerFds {
            ring: self.files.read_only.try_clone()?.into(),
            page: self.files.page.try_clone()?,
            wake: self.waker.read_end().try_clone()?,
        })
    }

    /// Removes the ring's name, on a clean stop. Maps and descriptors go on working.
    pub fn remove_file(&self) -> io::Result<()> {
        std::fs::remove_file(&self.files.path)
    }

    /// Where the ring file was made.
    pub fn path(&self) -> &Path {
        &self.files.path
    }

    /// Notes, for whoever finds this ring after our death, the volumes that need no copy then: what
    /// the receiver is to have of them is in the stream, all of it. Bit `n` is volume `n`.
    pub fn set_whole(&self, volumes: u64) {
        let word = self.map.word(WHOLE_WORD);
        if word.load(Ordering::Relaxed) != volumes {
            // Before whatever makes a volume whole no longer, after whatever has made it so.
            word.swap(volumes, Ordering::AcqRel);
        }
    }

    /// The volumes that need no copy: whole when they were noted, and in no doubt since.
    pub fn whole(&self) -> u64 {
        let word = |index| self.map.word(index).load(Ordering::Acquire);
        word(WHOLE_WORD) & !word(DOUBT_WORD)
    }

    /// The disk of a volume has refused a change. To be said before its record is void: its memory
    /// of the range may be all there is, and a death loses it.
    pub fn doubt(&self, volume: VolumeIndex) {
        let word = self.map.word(DOUBT_WORD);
        word.fetch_or(bit_of(volume), Ordering::AcqRel);
    }

    /// All of a volume is about to be read into the stream, whatever its disk has refused before.
    pub fn end_doubt(&self, volume: VolumeIndex) {
        let word = self.map.word(DOUBT_WORD);
        word.fetch_and(!bit_of(volume), Ordering::AcqRel);
    }

    /// The life of this ring.
    pub fn incarnation(&self) -> Incarnation {
        self.header.incarnation
    }

    /// Its sizes.
    pub fn config(&self) -> RingConfig {
        self.header.config
    }

    /// Largest payload of one record, in bytes.
    pub fn record_bytes_max(&self) -> u64 {
        self.geometry().payload_units_max() * UNIT_BYTES
    }

    /// Address and length of the memory all payloads lie in, to be registered with an io_uring.
    ///
    /// Only a claim gives the right to use any of it. It stays mapped as long as the ring lives.
    pub fn payload_area(&self) -> (*mut u8, usize) {
        self.map.payload_area()
    }

    /// Whether the stream is given up.
    pub fn is_closed(&self) -> bool {
        self.map.claimed().0.is_closed()
    }

    /// The newest stamp claimed.
    pub fn captured(&self) -> Stamp {
        Stamp(self.map.claimed().1.stamp)
    }

    /// All records up to here are settled or void.
    pub fn settled_prefix(&self) -> Stamp {
        loop {
            let (_, claimed, freed) = self.map.claimed();
            let seen = self.settled_seen.load(Ordering::Relaxed).max(freed.stamp);
            let open = (seen + 1..=claimed.stamp)
                .find(|stamp| self.map.state(*stamp).done_as(*stamp).is_none());
            let prefix = open.map_or(claimed.stamp, |open| open - 1);
            // Freed meanwhile, the slot that looked open is another record's now: look again.
            if prefix >= self.map.freed().stamp {
                return Stamp(
                    self.settled_seen
                        .fetch_max(prefix, Ordering::Relaxed)
                        .max(prefix),
                );
            }
        }
    }

    /// All records up to here are durable at the receiver, as far as checked by reclaim.
    pub fn acked(&self) -> Stamp {
        Stamp(self.map.freed().stamp)
    }

    /// How far the shipper says it has sent; only its word, cut to what exists.
    pub fn sent(&self) -> Stamp {
        let sent = Stamp(self.page.word(SENT_WORD).load(Ordering::Relaxed));
        sent.clamp(self.acked(), self.captured())
    }

    /// The violation the group is broken by, if any.
    pub fn violation(&self) -> Option<AckViolation> {
        self.reclaimer.violation()
    }

    /// How full the ring is, as far as reclaimed.
    pub fn usage(&self) -> Usage {
        let (_, claimed, freed) = self.map.claimed();
        Usage {
            used_bytes: (claimed.position - freed.position) * UNIT_BYTES,
            capacity_bytes: self.header.config.payload_bytes,
            used_slots: claimed.stamp - freed.stamp,
            slots: self.geometry().slots(),
        }
    }

    /// Payload of the filled records in `(after, upto]` that the ring still holds, in bytes.
    pub fn payload_bytes_between(&self, after: Stamp, upto: Stamp) -> u64 {
        let (_, claimed, freed) = self.map.claimed();
        let first = after.0.max(freed.stamp) + 1;
        (first..=upto.0.min(claimed.stamp))
            .filter(|stamp| self.map.state(*stamp).filled_as(*stamp).is_some())
            .map(|stamp| u64::from(self.map.load_descriptor(stamp).payload_bytes))
            .sum()
    }

    /// Time mark of the oldest record that is not acked; `None` when all are.
    pub fn oldest_unacked_mark(&self) -> Option<TimeMark> {
        let (_, claimed, freed) = self.map.claimed();
        let oldest = freed.stamp + 1;
        if oldest > claimed.stamp {
            return None;
        }
        let state = self.map.state(oldest);
        let is_open = state.stamp == oldest && state.state >= Some(State::Claimed);
        is_open.then(|| TimeMark(self.map.load_descriptor(oldest).mark))
    }

    fn claim_from(
        &self,
        closed: bool,
        payload_bytes: u32,
        mark: TimeMark,
    ) -> Result<Claim, ClaimError> {
        let most_bytes = self.record_bytes_max();
        if u64::from(payload_bytes) > most_bytes {
            return Err(ClaimError::TooLarge {
                wanted_bytes: payload_bytes,
                most_bytes,
            });
        }
        for _ in 0..RECLAIMS_MAX {
            let before = match self.claim_once(closed, payload_bytes, mark)? {
                Ok(claim) => return Ok(claim),
                Err(freed) => freed,
            };
            self.try_reclaim()?;
            if self.map.freed() == before {
                break;
            }
        }
        Err(ClaimError::Full)
    }

    /// One claim without reclaim; without room it returns the freed cursor that left none.
    fn claim_once(
        &self,
        closed: bool,
        payload_bytes: u32,
        mark: TimeMark,
    ) -> Result<Result<Claim, Cursor>, ClaimError> {
        let units = units_of(u64::from(payload_bytes));
        loop {
            let (word, claimed, freed) = self.map.claimed();
            if word.is_closed() != closed {
                return Err(ClaimError::Closed);
            }
            let Ok(placement) = self.geometry().place(freed, claimed, units) else {
                return Ok(Err(freed));
            };
            if let Some(slot) = self.map.take(word, placement, payload_bytes, freed) {
                return Ok(Ok(Claim::open(slot, placement, mark)));
            }
        }
    }

    fn geometry(&self) -> Geometry {
        self.map.layout().geometry
    }
}

impl Usage {
    /// The fuller of slots and bytes, in thousandths.
    pub fn permille(&self) -> u64 {
        let bytes = self.used_bytes * 1000 / self.capacity_bytes.max(1);
        bytes.max(self.used_slots * 1000 / self.slots.max(1))
    }
}

/// A volume that has no bit is never whole.
fn bit_of(volume: VolumeIndex) -> u64 {
    1_u64.checked_shl(u32::from(volume.0)).unwrap_or(0)
}
