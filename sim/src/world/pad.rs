//! Pad: what the queues and the rest of the source's host share: the application's requests, and
//! what workers have asked of disk and kernel since the world looked last.

use super::clock::Clock;
use crate::oracle::{History, SECTOR_BYTES, fill};
use ring::Ring;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use ublk_tap::device::simulated::{AppRequest, Asked, DiskRequest, Host, Io};
use wire::TimeMark;

/// Which request: volume, queue, tag.
pub(super) type Place = (usize, usize, u16);

/// A request of the application that was not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// What was asked.
    pub(super) request: AppRequest,
    /// Its number, once it has its place in the order of changes.
    pub(super) number: Option<u64>,
    /// When it was submitted.
    pub(super) since_ns: u64,
}

/// What a worker has asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// The disk is asked.
    Disk(Place, DiskRequest),
    /// The application is answered.
    Done(Place, i32),
    /// A pause is wanted.
    Pause(usize, usize),
}

/// The pad.
pub(super) struct Pad {
    /// Time.
    pub(super) clock: Clock,
    /// Requests not answered.
    pub(super) pending: BTreeMap<Place, Pending>,
    /// What workers asked for.
    pub(super) wanted: Vec<Wanted>,
    /// Every change so far.
    pub(super) history: History,
    /// Per incarnation counter: the last change at or before each stamp.
    pub(super) stamps: BTreeMap<u64, Vec<u64>>,
    /// What a read brought, to be compared.
    pub(super) read: Vec<(Place, Vec<u64>)>,
    /// Writes without one.
    pub(super) uncaptured: u64,
}

/// The host of one queue.
pub(super) struct QueueHost {
    /// Shared with all others.
    pub(super) pad: Rc<RefCell<Pad>>,
    /// The ring of this life.
    pub(super) ring: Arc<Ring>,
    /// Which queue it is.
    pub(super) queue: (usize, usize),
}

impl Pad {
    /// Notes that records up to where the ring is now have the last change before them.
    pub(super) fn note_stamps(&mut self, ring: &Ring) -> bool {
        let last = self.history.last();
        let stamps = self.stamps.entry(ring.incarnation().counter).or_default();
        let captured = ring.captured().0 as usize + 1;
        let is_new = captured > stamps.len();
        if is_new {
            stamps.resize(captured, last);
        }
        is_new
    }

    /// Gives a request its number: it has just taken its place in the ring, or goes without.
    fn number(&mut self, place: Place, ring: &Ring) -> u64 {
        let pending = self
            .pending
            .get_mut(&place)
            .expect("a busy tag has a request");
        if let Some(number) = pending.number {
            return number;
        }
        let number = self.history.take_number();
        pending.number = Some(number);
        // Whatever was claimed before it has been noted, so this is its own record, or none.
        if !self.note_stamps(ring) {
            self.uncaptured += 1;
        }
        number
    }
}

impl QueueHost {
    fn place(&self, tag: u16) -> Place {
        (self.queue.0, self.queue.1, tag)
    }
}

impl Host for QueueHost {
    fn request(&self, tag: u16) -> AppRequest {
        self.pad.borrow().pending[&self.place(tag)].request
    }

    fn copy_in(&mut self, tag: u16, bytes: &mut [u8]) -> Result<(), i32> {
        let place = self.place(tag);
        let mut pad = self.pad.borrow_mut();
        let number = pad.number(place, &self.ring);
        let sector = pad.pending[&place].request.offset_bytes as usize / SECTOR_BYTES;
        fill(bytes, place.0, sector, number);
        Ok(())
    }

    fn copy_out(&mut self, tag: u16, bytes: &[u8]) -> Result<(), i32> {
        let place = self.place(tag);
        let mut pad = self.pad.borrow_mut();
        let first = pad.pending[&place].request.offset_bytes as usize / SECTOR_BYTES;
        let sectors = bytes.chunks_exact(SECTOR_BYTES).enumerate();
        let read = sectors.map(|(nth, bytes)| crate::oracle::read(bytes, place.0, first + nth));
        let read = read.collect();
        pad.read.push((place, read));
        Ok(())
    }

    fn issue(&mut self, tag: u16, request: DiskRequest) {
        let place = self.place(tag);
        let mut pad = self.pad.borrow_mut();
        if matches!(request.io, Io::Write { .. } | Io::Zero) {
            pad.number(place, &self.ring);
        }
        pad.wanted.push(Wanted::Disk(place, request));
    }

    fn complete(&mut self, tag: u16, result: i32) {
        let place = self.place(tag);
        self.pad
            .borrow_mut()
            .wanted
            .push(Wanted::Done(place, result));
    }

    fn pause(&mut self) {
        let (volume, queue) = self.queue;
        self.pad
            .borrow_mut()
            .wanted
            .push(Wanted::Pause(volume, queue));
    }

    fn wall(&self) -> TimeMark {
        self.pad.borrow().clock.source()
    }

    fn now(&self) -> Instant {
        self.pad.borrow().clock.instant()
    }
}

/// Whether a request changes the disk.
pub(super) fn changes(asked: Asked) -> bool {
    matches!(asked, Asked::Write { .. } | Asked::Discard | Asked::Zero)
}

impl Pad {
    /// An empty one over a history.
    pub(super) fn new(history: History) -> Self {
        Self {
            clock: Clock::default(),
            pending: BTreeMap::new(),
            wanted: Vec::new(),
            stamps: BTreeMap::new(),
            read: Vec::new(),
            uncaptured: 0,
            history,
        }
    }
}
