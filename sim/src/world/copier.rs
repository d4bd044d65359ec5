//! A copier, played: the product's is a thread that blocks. It does the same in the same order:
//! holds a range, reads it, makes a record of it; ranges of refused writes come first.

use super::World;
use super::events::Event;
use crate::faults::MS;
use crate::oracle::SECTOR_BYTES;
use crate::planted::{Bug, is};
use crate::probes::Probe;
use ring::{ClaimError, RecordFields};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use ublk_tap::group::CoreEvent;
use ublk_tap::ranges::{Admission, Hold, Range, Wake};
use wire::VolumeIndex;

/// Where a copier stands.
#[derive(Default)]
pub(super) struct Copier {
    /// Run under way, and how far it is.
    copy: Option<(u64, u64)>,
    /// Ranges to be read again.
    rereads: VecDeque<Range>,
    /// Ranges were given up since the last copy began.
    is_lost: bool,
    /// A range it waits for.
    waiting: Option<(Piece, Hold, Arc<Bell>)>,
    /// What it read and has not made a record of, where it should have.
    stale: Option<(Piece, Vec<u8>)>,
    is_scheduled: bool,
}

/// A range, and what it is read for.
#[derive(Clone, Copy, Debug)]
struct Piece {
    range: Range,
    /// The run it is part of; none: read again.
    run: Option<u64>,
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn granted(&self, _token: u64) {
        self.0.store(true, Ordering::Release);
    }
}

enum Captured {
    Done,
    NoRoom,
    Closed,
    Unreadable,
}

impl Copier {
    /// Copies the whole volume as `run`.
    pub(super) fn copy(&mut self, run: u64) {
        self.copy = Some((run, 0));
        self.is_lost = false;
    }

    /// Ends the copy under way.
    pub(super) fn cancel(&mut self) {
        self.copy = None;
    }

    /// Reads a range again.
    pub(super) fn reread(&mut self, range: Range) {
        self.rereads.push_back(range);
    }

    /// Whether all ranges ordered so far are in the stream.
    pub(super) fn is_reread(&self) -> bool {
        let waits = |(piece, ..): &(Piece, Hold, Arc<Bell>)| piece.run.is_none();
        let is_waiting = self.waiting.as_ref().is_some_and(waits);
        self.rereads.is_empty() && !is_waiting && !self.is_lost
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        let is_free = self.waiting.is_none() && self.stale.is_none();
        is_free && self.copy.is_none() && self.rereads.is_empty()
    }

    fn give_up_rereads(&mut self) {
        self.rereads.clear();
        self.is_lost = true;
    }
}

impl World {
    /// Has the copier of a volume work soon, if it has work.
    pub(super) fn wake_copier(&mut self, volume: usize, after_ns: u64) {
        let life = self.source.life;
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        let copier = &mut tap.volumes[volume].copier;
        if !copier.is_scheduled && !copier.is_idle() {
            copier.is_scheduled = true;
            self.after(after_ns, Event::Copier { life, volume });
        }
    }

    pub(super) fn copier_event(&mut self, volume: usize) {
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        tap.volumes[volume].copier.is_scheduled = false;
        let pause = self.step_copier(volume);
        self.touched();
        self.wake_copier(volume, pause);
    }

    fn step_copier(&mut self, volume: usize) -> u64 {
        let read_ns = self.disk_time();
        let Some(tap) = &mut self.source.tap else {
            return 0;
        };
        let tapped = &mut tap.volumes[volume];
        if let Some((piece, bytes)) = tapped.copier.stale.take() {
            let captured = self.record(volume, piece.range, &bytes);
            return self.captured(volume, piece, captured).max(read_ns);
        }
        if let Some((piece, hold, bell)) = tapped.copier.waiting.take() {
            if !bell.0.load(Ordering::Acquire) {
                tapped.copier.waiting = Some((piece, hold, bell));
                return MS / 2;
            }
            return self.capture(volume, piece, hold).max(read_ns);
        }
        let size_bytes = self.mix.volumes[volume] as u64 * SECTOR_BYTES as u64;
        let chunk_bytes = self.mix.chunk_bytes;
        let piece = if let Some(range) = tapped.copier.rereads.pop_front() {
            let end = range.end_bytes().min(range.start_bytes() + chunk_bytes);
            if end < range.end_bytes() {
                tapped
                    .copier
                    .rereads
                    .push_front(Range::new(end, range.end_bytes()));
            }
            let range = Range::new(range.start_bytes(), end);
            Piece { range, run: None }
        } else if let Some((run, at)) = tapped.copier.copy {
            if tap.ring.usage().permille() >= 500 {
                let _ = tap.ring.try_reclaim();
                if tap.ring.usage().permille() >= 500 {
                    return 2 * MS;
                }
            }
            let range = Range::new(at, (at + chunk_bytes).min(size_bytes));
            let run = Some(run);
            Piece { range, run }
        } else {
            return 0;
        };
        if is(Bug::CopyWithoutRange) {
            let mut bytes = vec![0; piece.range.length_bytes() as usize];
            self.source.disks[volume].read(piece.range.start_bytes(), &mut bytes);
            let Some(tap) = &mut self.source.tap else {
                return 0;
            };
            tap.volumes[volume].copier.stale = Some((piece, bytes));
            return read_ns;
        }
        let bell = Arc::new(Bell::default());
        let wake: Arc<dyn Wake> = bell.clone();
        match tapped.ranges.admit(piece.range, &wake, 0) {
            Admission::Held(hold) => self.capture(volume, piece, hold).max(read_ns),
            Admission::Waiting(hold) => {
                tapped.copier.waiting = Some((piece, hold, bell));
                MS / 10
            }
        }
    }

    fn capture(&mut self, volume: usize, piece: Piece, hold: Hold) -> u64 {
        let captured = if self.source.refuses_reads && self.dice.coin() {
            Captured::Unreadable
        } else {
            let mut bytes = vec![0; piece.range.length_bytes() as usize];
            self.source.disks[volume].read(piece.range.start_bytes(), &mut bytes);
            self.record(volume, piece.range, &bytes)
        };
        if let Some(tap) = &mut self.source.tap {
            tap.volumes[volume].ranges.release(hold);
        }
        self.captured(volume, piece, captured)
    }

    /// Makes a record of what was read.
    fn record(&mut self, volume: usize, range: Range, bytes: &[u8]) -> Captured {
        let clock = self.clock;
        let Some(tap) = &mut self.source.tap else {
            return Captured::Closed;
        };
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        if is_zero && is(Bug::ZeroLeftOut) {
            return Captured::Done;
        }
        let length = bytes.len() as u32;
        let payload_bytes = if is_zero { 0 } else { length };
        let mut claim = match tap.ring.claim(payload_bytes, clock.source()) {
            Ok(claim) => claim,
            Err(ClaimError::Closed) => return Captured::Closed,
            Err(_) => return Captured::NoRoom,
        };
        let (index, offset) = (VolumeIndex(volume as u16), range.start_bytes());
        let fields = if is_zero {
            RecordFields::zero(index, offset, length)
        } else {
            claim.payload_mut().copy_from_slice(bytes);
            RecordFields::copy(index, offset, length)
        };
        claim.fill(fields).settle();
        self.pad.borrow_mut().note_stamps(&tap.ring);
        Captured::Done
    }

    fn captured(&mut self, volume: usize, piece: Piece, captured: Captured) -> u64 {
        let size_bytes = self.mix.volumes[volume] as u64 * SECTOR_BYTES as u64;
        let chunk_bytes = self.mix.chunk_bytes;
        let index = VolumeIndex(volume as u16);
        let Some(tap) = &mut self.source.tap else {
            return 0;
        };
        let copier = &mut tap.volumes[volume].copier;
        let is_current = piece.run.is_none() || copier.copy.map(|(run, _)| run) == piece.run;
        match (captured, piece.run) {
            (Captured::Done, None) => self.reached.reach(Probe::RangeReread),
            (Captured::Done, Some(run)) if is_current => {
                let mut at = piece.range.end_bytes();
                if is(Bug::CopyEndsEarly) && at + chunk_bytes >= size_bytes {
                    at = size_bytes;
                }
                copier.copy = (at < size_bytes).then_some((run, at));
                if at >= size_bytes {
                    self.tell_core(CoreEvent::Copied { index, run });
                }
            }
            (Captured::NoRoom, None) => {
                copier.rereads.push_front(piece.range);
                return 2 * MS;
            }
            (Captured::NoRoom, Some(_)) => return 2 * MS,
            (Captured::Closed, None) => copier.give_up_rereads(),
            (Captured::Closed, Some(_)) => copier.copy = None,
            (Captured::Unreadable, None) => {
                copier.give_up_rereads();
                let words = "what the disk holds is unknown".into();
                self.tell_core(CoreEvent::RereadFailed { index, words });
            }
            (Captured::Unreadable, Some(_)) => {
                self.reached.reach(Probe::ReadFailedInCopy);
                return 1000 * MS;
            }
            _ => {}
        }
        0
    }
}
