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

use super::buffers::{Buffers, Lease};
use super::counters::{Counters, Faults};
use super::parking::{Parking, Ticket};
use super::progress::{DiskOp, Next, Progress, Ways};
use super::request::{Geometry, Op, RawRequest, Request};
use super::wake::Waker;
use crate::ranges::{Admission, Hold, Range, RangeTable, Wake};
use ring::{Claim, ClaimError, Filled, RecordFields, Ring};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wire::{TimeMark, VolumeIndex};

/// The driver below a worker.
pub(super) trait Port {
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

/// Answer of the ring.
enum Place {
    Claimed(Claim),
    NoRoom,
    /// The stream was given up: go on without.
    Closed,
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

    /// All events at hand were handled; what they brought goes out together.
    pub(super) fn end_turn(&mut self) {
        self.mark = None;
        if std::mem::take(&mut self.published) {
            self.volume.ring.notify_consumer();
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

    // The way of a change, in order.

    fn admit(&mut self, tag: u16, request: &Request) {
        let range = Range::of_length(request.offset_bytes, u64::from(request.length_bytes));
        match self.volume.ranges.admit(range, &self.wake, u64::from(tag)) {
            Admission::Held(hold) => {
                self.job(tag).hold = Some(hold);
                self.capture(tag);
            }
            Admission::Waiting(hold) => {
                let job = self.job(tag);
                job.hold = Some(hold);
                job.stage = Stage::Range;
            }
        }
    }

    fn capture(&mut self, tag: u16) {
        // Whoever comes while others wait for room waits behind them.
        let place = if self.volume.parking.is_empty() {
            self.claim(tag)
        } else {
            Place::NoRoom
        };
        match place {
            Place::NoRoom => self.park(tag),
            Place::Claimed(claim) => self.record(tag, claim),
            Place::Closed => self.go_uncaptured(tag),
        }
    }

    fn park(&mut self, tag: u16) {
        let ticket = self.volume.parking.park(Instant::now(), &self.waker);
        self.job(tag).stage = Stage::Room;
        self.line.push_back((tag, ticket));
        self.counters.parked(1);
        self.ask_for_pause();
    }

    /// Lets those go who wait for room, while it is their turn and there is some.
    fn serve_line(&mut self) {
        while let Some(&(tag, ticket)) = self.line.front() {
            if !self.volume.parking.is_first(ticket) {
                break;
            }
            let place = self.claim(tag);
            if matches!(place, Place::NoRoom) {
                break;
            }
            self.line.pop_front();
            self.volume.parking.leave(ticket);
            self.counters.parked(-1);
            match place {
                Place::Claimed(claim) => self.record(tag, claim),
                _ => self.go_uncaptured(tag),
            }
        }
        if !self.line.is_empty() {
            self.ask_for_pause();
        }
    }

    fn claim(&mut self, tag: u16) -> Place {
        let mark = *self.mark.get_or_insert_with(clock);
        let request = self.request(tag);
        let payload_bytes = if request.has_data() {
            request.length_bytes
        } else {
            0
        };
        match self.volume.ring.claim(payload_bytes, mark) {
            Ok(claim) => Place::Claimed(claim),
            Err(ClaimError::Full) => Place::NoRoom,
            Err(ClaimError::Closed) => Place::Closed,
            Err(error @ (ClaimError::AckViolation(_) | ClaimError::TooLarge { .. })) => {
                // Nothing may bypass an open ring (P5): give the stream up first.
                tracing::error!(%error, "the ring takes no records; the stream is given up");
                self.volume.ring.close();
                Place::Closed
            }
        }
    }

    fn record(&mut self, tag: u16, mut claim: Claim) {
        let request = self.request(tag);
        if request.has_data()
            && let Err(errno) = self.port.copy_in(tag, claim.payload_mut())
        {
            drop(claim); // its place becomes void
            self.published = true;
            return self.finish(tag, Err(errno));
        }
        let (volume, offset, length) = (
            self.volume.index,
            request.offset_bytes,
            request.length_bytes,
        );
        let fields = match request.op {
            Op::Discard => RecordFields::discard(volume, offset, length),
            Op::Zero => RecordFields::zero(volume, offset, length),
            _ => RecordFields::write(volume, offset, length, request.fua),
        };
        self.counters.captured(u64::from(length));
        self.job(tag).record = Some(claim.fill(fields));
        self.published = true;
        self.issue(tag);
    }

    fn go_uncaptured(&mut self, tag: u16) {
        let request = self.request(tag);
        self.counters.uncaptured(u64::from(request.length_bytes));
        if request.has_data() {
            self.lend(tag)
        } else {
            self.issue(tag)
        }
    }

    // Memory, disk, completion.

    /// Gets memory for a read, or for a write without a record, behind those who wait for some.
    fn lend(&mut self, tag: u16) {
        if self.starved.is_empty() && self.try_lend(tag) {
            return self.with_memory(tag);
        }
        self.job(tag).stage = Stage::Memory;
        self.starved.push_back(tag);
    }

    fn try_lend(&mut self, tag: u16) -> bool {
        let length_bytes = self.request(tag).length_bytes;
        let lease = self.buffers.lend(length_bytes);
        self.job(tag).lease = lease;
        self.job(tag).lease.is_some()
    }

    fn with_memory(&mut self, tag: u16) {
        if self.request(tag).op == Op::Write {
            let job = &mut self.jobs[usize::from(tag)];
            let lease = job.lease.as_ref().expect("memory was lent");
            if let Err(errno) = self.port.copy_in(tag, self.buffers.bytes(lease)) {
                return self.finish(tag, Err(errno));
            }
        }
        self.issue(tag);
    }

    fn issue(&mut self, tag: u16) {
        let job = &mut self.jobs[usize::from(tag)];
        job.stage = Stage::Disk;
        let op = job
            .progress
            .as_ref()
            .expect("a busy tag has a request")
            .op();
        let memory = match (&job.record, &job.lease) {
            (Some(record), _) => record.as_ptr().cast_mut(),
            (None, Some(lease)) => self.buffers.bytes(lease).as_mut_ptr(),
            (None, None) => std::ptr::null_mut(),
        };
        self.port.issue(tag, op, memory);
    }

    fn rest(&mut self, tag: u16) {
        self.job(tag).stage = Stage::Rest;
        self.resting.push(tag);
        self.ask_for_pause();
    }

    /// The disk is done with it, or nothing more can be done.
    fn finish(&mut self, tag: u16, outcome: Result<(), i32>) {
        let request = self.request(tag);
        let outcome = if request.op == Op::Read && outcome.is_ok() {
            self.hand_out(tag)
        } else {
            outcome
        };
        self.settle(tag, &request, outcome);
        if let Some(hold) = self.job(tag).hold.take() {
            self.volume.ranges.release(hold);
        }
        let result = outcome.map_or_else(|errno| -errno, |()| request.success());
        self.complete(tag, result);
        if let Some(lease) = self.job(tag).lease.take() {
            self.buffers.give_back(lease);
            self.feed_starved();
        }
    }

    fn hand_out(&mut self, tag: u16) -> Result<(), i32> {
        let job = &self.jobs[usize::from(tag)];
        let lease = job.lease.as_ref().expect("a read has memory");
        self.port.copy_out(tag, self.buffers.bytes(lease))
    }

    fn settle(&mut self, tag: u16, request: &Request, outcome: Result<(), i32>) {
        if let Err(errno) = outcome {
            self.counters.failed();
            tracing::warn!(
                volume = self.volume.index.0,
                ?request,
                errno,
                "a request failed"
            );
        }
        let Some(record) = self.job(tag).record.take() else {
            return;
        };
        self.published = true;
        match outcome {
            Ok(()) => record.settle(),
            Err(errno) => {
                record.void();
                // Under the range, before anybody else can change it: what the disk holds now is
                // unknown until it was read again.
                let length_bytes = u64::from(request.length_bytes);
                let range = Range::of_length(request.offset_bytes, length_bytes);
                self.volume.faults.add(range, errno);
            }
        }
    }

    fn feed_starved(&mut self) {
        while let Some(&tag) = self.starved.front() {
            if !self.try_lend(tag) {
                break;
            }
            self.starved.pop_front();
            self.with_memory(tag);
        }
    }

    fn complete(&mut self, tag: u16, result: i32) {
        let job = self.job(tag);
        job.stage = Stage::Idle;
        job.progress = None;
        assert!(
            job.record.is_none() && job.hold.is_none(),
            "nothing outlives its request"
        );
        self.counters.completed();
        self.port.complete(tag, result);
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

/// Time at the source, for people: order comes from stamps.
fn clock() -> TimeMark {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimeMark(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
