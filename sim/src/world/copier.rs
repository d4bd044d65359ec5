//! A copier, played: the product's is a thread that blocks. It does the same in the same order:
//! holds a range, reads it, makes a record of it; ranges of refused writes come first.

use super::World;
use super::events::Event;
use crate::faults::MS;
use crate::oracle::SECTOR_BYTES;
use crate::planted::{Bug, is};
use crate::probes::Probe;
use ring::{ClaimError, RecordFields, Ring};
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
    /// Ranges to be read again, or what is left of them, with their number.
    rereads: VecDeque<(u64, Range)>,
    ordered: u64,
    /// Up to this number, all is in the stream or given up.
    reread: u64,
    /// Ranges take any room there is.
    is_hurried: bool,
    /// Room the range in hand has not found.
    wanted_bytes: Option<u32>,
    /// Ranges were given up since the last copy began.
    is_lost: bool,
    /// A range it waits for.
    waiting: Option<(Piece, Hold, Arc<Bell>)>,
    /// What it read and has not made a record of, where it should have.
    stale: Option<(Piece, Vec<u8>)>,
    is_scheduled: bool,
}

/// A range, and why it is read.
#[derive(Clone, Copy, Debug)]
struct Piece {
    range: Range,
    task: Task,
}

/// What a range is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Part of this run.
    Copy(u64),
    /// Read again, under this number.
    Reread(u64),
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

    /// Reads a range again; its number.
    pub(super) fn reread(&mut self, range: Range) -> u64 {
        self.ordered += 1;
        self.rereads.push_back((self.ordered, range));
        self.ordered
    }

    /// Whether all of the range of that number is in the stream.
    pub(super) fn has_reread(&self, turn: u64) -> bool {
        self.reread >= turn && !self.is_lost
    }

    /// Whether ranges read again take any room there is.
    pub(super) fn hurry(&mut self, is_hurried: bool) {
        self.is_hurried = is_hurried;
    }

    /// Room that the range in hand has looked for and not found.
    pub(super) fn wanted_bytes(&self) -> Option<u32> {
        self.wanted_bytes
    }

    /// Whether all ranges ordered so far are in the stream.
    pub(super) fn is_reread(&self) -> bool {
        self.reread == self.ordered && !self.is_lost
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        let is_free = self.waiting.is_none() && self.stale.is_none();
        is_free && self.copy.is_none() && self.rereads.is_empty()
    }

    /// The range of that number is in the stream up to there.
    fn advance(&mut self, turn: u64, at: u64) {
        let Some((_, range)) = self.rereads.pop_front() else {
            return;
        };
        if at < range.end_bytes() {
            self.rereads
                .push_front((turn, Range::new(at, range.end_bytes())));
        } else {
            self.reread = turn;
        }
    }

    fn give_up_rereads(&mut self) {
        self.rereads.clear();
        self.reread = self.ordered;
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
        let copier = &tapped.copier;
        let next = copier
            .rereads
            .front()
            .map(|(turn, range)| (Task::Reread(*turn), *range));
        let rest = |(run, at)| (Task::Copy(run), Range::new(at, size_bytes));
        let Some((task, range)) = next.or_else(|| copier.copy.map(rest)) else {
            return 0;
        };
        let end = range.end_bytes().min(range.start_bytes() + chunk_bytes);
        let piece = Piece {
            range: Range::new(range.start_bytes(), end),
            task,
        };
        let is_hurried = copier.is_hurried && matches!(task, Task::Reread(_));
        let wanted_bytes = piece.range.length_bytes() as u32;
        if !has_room(&tap.ring, wanted_bytes, is_hurried) {
            tapped.copier.wanted_bytes = Some(wanted_bytes);
            return 2 * MS;
        }
        tapped.copier.wanted_bytes = None;
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
        let is_current = match piece.task {
            Task::Copy(run) => copier.copy.is_some_and(|copy| copy.0 == run),
            Task::Reread(turn) => copier.rereads.front().is_some_and(|it| it.0 == turn),
        };
        match (captured, piece.task) {
            _ if !is_current => {}
            (Captured::Done, Task::Reread(turn)) => {
                copier.advance(turn, piece.range.end_bytes());
                self.reached.reach(Probe::RangeReread);
            }
            (Captured::Done, Task::Copy(run)) => {
                let mut at = piece.range.end_bytes();
                if is(Bug::CopyEndsEarly) && at + chunk_bytes >= size_bytes {
                    at = size_bytes;
                }
                copier.copy = (at < size_bytes).then_some((run, at));
                if at >= size_bytes {
                    self.tell_core(CoreEvent::Copied { index, run });
                }
            }
            (Captured::NoRoom, _) => return 2 * MS,
            (Captured::Closed, Task::Reread(_)) => copier.give_up_rereads(),
            (Captured::Closed, Task::Copy(_)) => copier.copy = None,
            (Captured::Unreadable, Task::Reread(_)) => {
                copier.give_up_rereads();
                let words = "what the disk holds is unknown".into();
                self.tell_core(CoreEvent::RereadFailed { index, words });
            }
            (Captured::Unreadable, Task::Copy(_)) => {
                self.reached.reach(Probe::ReadFailedInCopy);
                return 1000 * MS;
            }
        }
        0
    }
}

/// Whether the ring has room for a chunk, and is empty enough or need not be.
fn has_room(ring: &Ring, bytes: u32, is_hurried: bool) -> bool {
    if ring.is_closed() {
        // Found out by the claim.
        return true;
    }
    let is_free = || (is_hurried || ring.usage().permille() < 500) && ring.has_room(bytes);
    is_free() || {
        let _ = ring.try_reclaim();
        is_free()
    }
}
