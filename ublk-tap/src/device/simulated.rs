//! A queue for the simulation: the worker as it is, its port turned over to whoever plays
//! application, kernel, disk and clocks.
//!
//! Compiled with the feature `sim` only. It promises that nothing of the worker is changed or
//! bypassed; it does not know what is simulated.
#![allow(unsafe_code)] // one view of memory that belongs to a request at the disk

use super::buffers::Buffers;
use super::counters::{Counters, FaultList, Faults};
use super::parking::Parking;
use super::progress::{DiskOp, Ways};
use super::request::{Geometry, Op, RawRequest, raw_flags, raw_op};
use super::wake::Waker;
use super::worker::{Parts, Port, Volume, Worker};
use crate::ranges::RangeTable;
use ring::Ring;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use wire::{TimeMark, VolumeIndex};

/// What the application may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Bytes from the disk.
    Read,
    /// Bytes to the disk; durable before it completes with `fua`.
    Write {
        /// Durable before it completes.
        fua: bool,
    },
    /// Everything completed so far becomes durable.
    Flush,
    /// The range reads as zeroes and may be deallocated.
    Discard,
    /// The range reads as zeroes.
    Zero,
}

/// A request of the application.
#[derive(Clone, Copy, Debug)]
pub struct AppRequest {
    /// What.
    pub asked: Asked,
    /// First byte.
    pub offset_bytes: u64,
    /// How many.
    pub length_bytes: u32,
}

/// What a worker asks of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Bytes from the disk into the memory of the request.
    Read,
    /// Bytes from the memory of the request, past every cache with `durable`.
    Write {
        /// Past every cache.
        durable: bool,
    },
    /// Zeroes.
    Zero,
    /// Makes completed writes durable.
    Sync,
}

/// One operation of the disk.
#[derive(Clone, Copy, Debug)]
pub struct DiskRequest {
    /// What.
    pub io: Io,
    /// First byte.
    pub offset_bytes: u64,
    /// How many.
    pub length_bytes: u32,
}

/// Application, kernel, disk and clocks, as far as one queue sees them.
pub trait Host {
    /// The request handed out under `tag`.
    fn request(&self, tag: u16) -> AppRequest;
    /// What the application writes.
    fn copy_in(&mut self, tag: u16, bytes: &mut [u8]) -> Result<(), i32>;
    /// What the application reads.
    fn copy_out(&mut self, tag: u16, bytes: &[u8]) -> Result<(), i32>;
    /// The disk is asked.
    fn issue(&mut self, tag: u16, request: DiskRequest);
    /// The application is answered.
    fn complete(&mut self, tag: u16, result: i32);
    /// A pause is asked for.
    fn pause(&mut self);
    /// The host's clock.
    fn wall(&self) -> TimeMark;
    /// Time that only goes on.
    fn now(&self) -> Instant;
}

/// What the queues of a volume share.
#[derive(Clone)]
pub struct Shared(Volume);

/// One queue.
pub struct Queue<H: Host> {
    worker: Worker<Adapter<H>>,
}

struct Adapter<H> {
    host: H,
    /// Memory of the operation at the disk, per tag.
    memory: Vec<(*mut u8, usize)>,
}

impl Shared {
    /// A volume of `size_bytes` in 512-byte sectors.
    pub fn new(
        index: VolumeIndex,
        (size_bytes, io_bytes_max): (u64, u32),
        ring: Arc<Ring>,
        ranges: Arc<RangeTable>,
        parking: Arc<Parking>,
    ) -> Self {
        let geometry = Geometry {
            size_bytes,
            sector_bytes: 512,
            io_bytes_max,
        };
        Self(Volume {
            index,
            geometry,
            ring,
            ranges,
            parking,
            faults: Arc::new(Faults::default()),
        })
    }

    /// The same volume, as a queue sees it that has another table of ranges.
    pub fn with_ranges(&self, ranges: Arc<RangeTable>) -> Self {
        Self(Volume {
            ranges,
            ..self.0.clone()
        })
    }

    /// Changes the disk refused since this was asked last.
    pub fn take_faults(&self) -> FaultList {
        self.0.faults.take()
    }
}

impl<H: Host> Queue<H> {
    /// A queue of `depth` tags with `pool_bytes` of memory for reads.
    pub fn new(host: H, shared: &Shared, depth: u16, pool_bytes: usize) -> io::Result<Self> {
        let parts = Parts {
            depth,
            buffers: Buffers::new(pool_bytes)?,
            waker: Arc::new(Waker::new()?),
            counters: Arc::new(Counters::default()),
            ways: Ways {
                punch: true,
                zero_range: true,
            },
        };
        let memory = vec![(std::ptr::null_mut(), 0); usize::from(depth)];
        let adapter = Adapter { host, memory };
        Ok(Self {
            worker: Worker::new(adapter, shared.0.clone(), parts),
        })
    }

    /// A request has come under `tag`.
    pub fn fetched(&mut self, tag: u16) {
        self.worker.fetched(tag);
    }

    /// The memory of the operation the disk has under `tag`.
    pub fn memory(&mut self, tag: u16) -> &mut [u8] {
        let (start, length) = self.worker.port().memory[usize::from(tag)];
        assert!(!start.is_null(), "no operation with data is at the disk");
        // SAFETY: Needed to play the disk, which reads and writes memory a worker lent it. Sound:
        // the worker keeps the memory of an operation where it is until `answered`, which forgets
        // it here first; nobody else looks at it meanwhile, and the borrow of the queue keeps
        // `answered` from being called while the view lives.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }

    /// The disk has answered.
    pub fn answered(&mut self, tag: u16, result: i32) {
        self.worker.port().memory[usize::from(tag)] = (std::ptr::null_mut(), 0);
        self.worker.answered(tag, result);
    }

    /// The pause asked for is over.
    pub fn paused(&mut self) {
        self.worker.paused();
    }

    /// Bells are heard, and what they brought goes out.
    pub fn turn(&mut self) {
        self.worker.woken();
        self.worker.end_turn();
    }

    /// Whether the application waits for nothing.
    pub fn is_idle(&self) -> bool {
        self.worker.is_idle()
    }
}

impl<H: Host> Port for Adapter<H> {
    fn request(&self, tag: u16) -> RawRequest {
        let request = self.host.request(tag);
        let (op, fua) = match request.asked {
            Asked::Read => (Op::Read, false),
            Asked::Write { fua } => (Op::Write, fua),
            Asked::Flush => (Op::Flush, false),
            Asked::Discard => (Op::Discard, false),
            Asked::Zero => (Op::Zero, false),
        };
        RawRequest {
            op_flags: raw_op(op) | raw_flags(fua, false),
            start_sector: request.offset_bytes / 512,
            sectors: request.length_bytes / 512,
        }
    }

    fn copy_in(&mut self, tag: u16, bytes: &mut [u8]) -> Result<(), i32> {
        self.host.copy_in(tag, bytes)
    }

    fn copy_out(&mut self, tag: u16, bytes: &[u8]) -> Result<(), i32> {
        self.host.copy_out(tag, bytes)
    }

    fn issue(&mut self, tag: u16, op: DiskOp, memory: *mut u8) {
        let (request, done_bytes) = disk_request(op);
        let has_data = matches!(request.io, Io::Read | Io::Write { .. });
        self.memory[usize::from(tag)] = match has_data {
            true => (
                memory.wrapping_add(done_bytes as usize),
                request.length_bytes as usize,
            ),
            false => (std::ptr::null_mut(), 0),
        };
        self.host.issue(tag, request);
    }

    fn complete(&mut self, tag: u16, result: i32) {
        self.host.complete(tag, result);
    }

    fn pause(&mut self) {
        self.host.pause();
    }

    fn wall(&self) -> TimeMark {
        self.host.wall()
    }

    fn now(&self) -> Instant {
        self.host.now()
    }
}

/// The operation, and how much of its request is done already.
fn disk_request(op: DiskOp) -> (DiskRequest, u32) {
    let (io, offset_bytes, length_bytes, done_bytes) = match op {
        DiskOp::Read {
            offset_bytes,
            done_bytes,
            length_bytes,
        } => (Io::Read, offset_bytes, length_bytes, done_bytes),
        DiskOp::Write {
            offset_bytes,
            done_bytes,
            length_bytes,
            durable,
        } => (
            Io::Write { durable },
            offset_bytes,
            length_bytes,
            done_bytes,
        ),
        DiskOp::WriteZeroes {
            offset_bytes,
            length_bytes,
        }
        | DiskOp::Punch {
            offset_bytes,
            length_bytes,
        }
        | DiskOp::ZeroRange {
            offset_bytes,
            length_bytes,
        } => (Io::Zero, offset_bytes, length_bytes, 0),
        DiskOp::Sync => (Io::Sync, 0, 0, 0),
    };
    let request = DiskRequest {
        io,
        offset_bytes,
        length_bytes,
    };
    (request, done_bytes)
}
