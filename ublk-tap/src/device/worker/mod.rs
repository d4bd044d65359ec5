//! What happens to the requests of one queue, from fetch to completion.
//!
//! A write, discard or zero goes through: range admitted (P3) - place in the ring claimed, which
//! stamps it - its bytes copied from the application straight into the ring - record visible to the
//! shipper - disk operation from that same memory - record settled or void - range released -
//! completed. The bytes are copied once, so disk and replica get the same ones, whatever the
//! application does to its page meanwhile. With the ring closed the same happens without a record.
//!
//! Contract of order: a record is claimed under its range and before its completion, so stamps agree
//! with the order of writes to the disk and with what the application has seen (P2, P3).
//! Contract of waiting: a request waits for overlapping ones, for room in the ring (writes only),
//! for memory, or for the disk; its queue goes on with the others (P6).
//!
//! Owned by its queue thread. It knows the kernel and the disk only through [`Port`].

mod change;
mod service;
#[cfg(test)]
mod tests;

use super::buffers::{Buffers, Lease};
use super::counters::{Counters, Faults};
use super::parking::{Parking, Ticket};
use super::progress::{DiskOp, Next, Progress, Ways};
use super::request::{Geometry, Op, RawRequest, Request};
use super::wake::Waker;
use crate::clock;
use crate::ranges::{Hold, RangeTable, Wake};
use ring::{Filled, Ring};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use wire::{TimeMark, VolumeIndex};

/// The driver below a worker.
pub(super) trait Port {
    /// How often the bytes of a write have been moved in memory once they are copied in.
    fn copies_in(&self) -> u64 {
        1
    }

    /// The request the kernel handed us under `tag`.
    fn request(&self, tag: u16) -> RawRequest;
    /// Copies what the application writes into `bytes`; an error is an errno.
    fn copy_in(&mut self, tag: u16, bytes: &mut [u8]) -> Result<(), i32>;
    /// Copies `bytes` to the application that reads.
    fn copy_out(&mut self, tag: u16, bytes: &[u8]) -> Result<(), i32>;
    /// Starts `op`; its data is at `memory`, which stays where it is until answered.
    fn issue(&mut self, tag: u16, op: DiskOp, memory: *mut u8);
    /// Gives the request back to the kernel.
    fn complete(&mut self, tag: u16, result: i32);
    /// Calls [`Worker::paused`] after a few milliseconds.
    fn pause(&mut self);

    /// Time at the source, for people: order comes from stamps.
    fn wall(&self) -> TimeMark {
        clock::now()
    }

    /// Time that only goes on.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// What the queues of a volume share.
#[derive(Clone)]
pub(super) struct Volume {
    pub(super) index: VolumeIndex,
    pub(super) geometry: Geometry,
    pub(super) ring: Arc<Ring>,
    pub(super) ranges: Arc<RangeTable>,
    pub(super) parking: Arc<Parking>,
    pub(super) faults: Arc<Faults>,
}

/// The requests of one queue.
pub(super) struct Worker<P> {
    port: P,
    volume: Volume,
    counters: Arc<Counters>,
    waker: Arc<Waker>,
    /// The same, as the range table wants it.
    wake: Arc<dyn Wake>,
    ways: Ways,
    buffers: Buffers,
    jobs: Vec<Job>,
    /// Tags that wait for room in the ring, in their order.
    line: VecDeque<(u16, Ticket)>,
    /// How many tags wait for overlapping requests.
    overlapping: usize,
    /// Writes that wait leave few tags for reads.
    is_crowded: bool,
    /// The driver keeps reads back behind writes.
    is_held_up: bool,
    /// Tags that wait for memory, in their order.
    starved: VecDeque<u16>,
    /// Tags whose disk operation is tried again after a pause.
    resting: Vec<u16>,
    granted: Vec<u16>,
    pausing: bool,
    /// Clock of this turn, read when first needed.
    mark: Option<TimeMark>,
    /// Records were filled or settled in this turn.
    published: bool,
}

/// One tag.
#[derive(Default)]
struct Job {
    stage: Stage,
    progress: Option<Progress>,
    hold: Option<Hold>,
    record: Option<Filled>,
    lease: Option<Lease>,
}

/// Whom a request waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The application: the kernel has the tag.
    #[default]
    Idle,
    /// Overlapping requests.
    Range,
    /// The ring.
    Room,
    /// Memory of the queue.
    Memory,
    /// The disk.
    Disk,
    /// Time.
    Rest,
}

impl<P: Port> Worker<P> {
    /// A worker for `depth` tags, all with the kernel.
    pub(super) fn new(port: P, volume: Volume, parts: Parts) -> Self {
        let wake: Arc<dyn Wake> = Arc::clone(&parts.waker) as Arc<dyn Wake>;
        Self {
            port,
            volume,
            counters: parts.counters,
            waker: parts.waker,
            wake,
            ways: parts.ways,
            buffers: parts.buffers,
            jobs: (0..parts.depth).map(|_| Job::default()).collect(),
            line: VecDeque::new(),
            overlapping: 0,
            is_crowded: false,
            is_held_up: false,
            starved: VecDeque::new(),
            resting: Vec::new(),
            granted: Vec::new(),
            pausing: false,
            mark: None,
            published: false,
        }
    }

    /// The kernel handed us a request under `tag`.
    pub(super) fn fetched(&mut self, tag: u16) {
        assert_eq!(
            self.job(tag).stage,
            Stage::Idle,
            "the kernel hands out a tag once"
        );
        self.counters.started();
        match Request::parse(self.port.request(tag), &self.volume.geometry) {
            Err(errno) => self.complete(tag, -errno),
            Ok(request) => {
                self.job(tag).progress = Some(Progress::new(request, &self.ways));
                match request.op {
                    Op::Read => self.lend(tag),
                    Op::Flush => self.issue(tag),
                    Op::Write | Op::Discard | Op::Zero => self.admit(tag, &request),
                }
            }
        }
    }

    /// The disk has answered for `tag`.
    pub(super) fn answered(&mut self, tag: u16, result: i32) {
        assert_eq!(
            self.job(tag).stage,
            Stage::Disk,
            "the disk answers what it was asked"
        );
        let ways = &mut self.ways;
        let progress = self.jobs[usize::from(tag)].progress.as_mut();
        match progress
            .expect("a busy tag has a request")
            .answered(result, ways)
        {
            Next::Issue(_) => self.issue(tag),
            Next::IssueLater(_) => self.rest(tag),
            Next::Done => self.finish(tag, Ok(())),
            Next::Failed(errno) => self.finish(tag, Err(errno)),
        }
    }

    /// Somebody rang: ranges were granted, or there may be room in the ring.
    pub(super) fn woken(&mut self) {
        self.waker.drain();
        let mut granted = std::mem::take(&mut self.granted);
        self.waker.take_granted(&mut granted);
        for tag in granted.drain(..) {
            assert_eq!(
                self.job(tag).stage,
                Stage::Range,
                "granted to one who waits"
            );
            self.overlapping -= 1;
            self.capture(tag);
        }
        self.granted = granted;
        self.serve_line();
    }

    /// The pause asked for is over.
    pub(super) fn paused(&mut self) {
        self.pausing = false;
        for tag in std::mem::take(&mut self.resting) {
            self.issue(tag);
        }
        self.serve_line();
    }

    /// Whether the driver keeps requests back, reads among them, until writes it handed out have
    /// ended.
    pub(super) fn hold_up(&mut self, is_held_up: bool) {
        self.is_held_up = is_held_up;
    }

    /// All events at hand were handled; what they brought goes out together.
    pub(super) fn end_turn(&mut self) {
        self.mark = None;
        self.count_tags();
        if std::mem::take(&mut self.published) {
            self.volume.ring.notify_consumer();
        }
    }

    /// The kernel has one set of tags for reads and writes: a write that waits holds one a read may
    /// want. The group is told when few are left; what it does about it is its policy (P6).
    fn count_tags(&mut self) {
        // One that overlaps a write in line waits as long as that one.
        let held = self.line.len() + self.overlapping;
        let is_full = held >= self.jobs.len() - (self.jobs.len() / 4).max(1);
        let is_crowded = held > 0 && (is_full || self.is_held_up);
        if is_crowded != self.is_crowded {
            self.is_crowded = is_crowded;
            self.volume.parking.crowd(is_crowded);
        }
    }

    /// The driver below.
    pub(super) fn port(&mut self) -> &mut P {
        &mut self.port
    }

    /// Whether the kernel has all tags.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.iter().all(|job| job.stage == Stage::Idle)
    }

    fn ask_for_pause(&mut self) {
        if !std::mem::replace(&mut self.pausing, true) {
            self.port.pause();
        }
    }

    fn request(&self, tag: u16) -> Request {
        let progress = self.jobs[usize::from(tag)].progress.as_ref();
        *progress.expect("a busy tag has a request").request()
    }

    fn job(&mut self, tag: u16) -> &mut Job {
        &mut self.jobs[usize::from(tag)]
    }
}

/// What a worker is made of.
pub(super) struct Parts {
    pub(super) depth: u16,
    pub(super) buffers: Buffers,
    pub(super) waker: Arc<Waker>,
    pub(super) counters: Arc<Counters>,
    pub(super) ways: Ways,
}
