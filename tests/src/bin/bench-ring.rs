//! Producers through the ring against the same threads copying into plain memory.
//!
//! `bench-ring PAIRS SECONDS CELL...`, a cell being `NAME:PRODUCERS:BYTES`. Prints what
//! `scripts/bench.d/lib.py` reads: bytes per second, ours and the peer's, in turn. A consumer takes
//! what has settled and gives it back, as the shipper does but for reading it. Once warm, nothing
//! on the way of a record may allocate: that is counted, and fails the run.

use memmap2::MmapMut;
use ring::{ClaimError, Consumer, RecordFields, Ring, RingConfig};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use wire::{Incarnation, Stamp, TimeMark, VolumeIndex};

#[global_allocator]
static ALLOCATIONS: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Payload of the ring, and the peer's memory: larger than any last-level cache we meet.
const MEMORY_BYTES: usize = 256 << 20;
/// Records the consumer takes in one look.
const LOOK: usize = 4096;
/// How long it rests when there was nothing: the ring rides that out.
const REST: Duration = Duration::from_micros(50);

struct Cell {
    name: String,
    producers: usize,
    bytes: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let cells: Option<Vec<Cell>> = args.iter().skip(2).map(|arg| cell(arg)).collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<f64>().ok());
    let (Some(pairs), Some(seconds), Some(cells)) = (number(0), number(1), cells) else {
        eprintln!("usage: bench-ring PAIRS SECONDS NAME:PRODUCERS:BYTES...");
        std::process::exit(2);
    };
    let time = Duration::from_secs_f64(seconds);
    let mut memory = pages(MEMORY_BYTES, 1);
    let bench = Bench::new();
    for cell in cells {
        bench.ring_rate(&cell, time); // warm
        for _ in 0..pairs as usize {
            let ours = bench.ring_rate(&cell, time);
            let peer = copy_rate(&mut memory, &cell, time);
            println!("{}", json!({"cell": cell.name, "ours": ours, "peer": peer}));
        }
    }
    let apart = line_trip_ns();
    println!(
        "{}",
        json!({"info": {"allocations once warm": 0, "a cache line between two threads, ns": apart}})
    );
}

/// How long a cache line takes from one thread to another: what a stream shared by several
/// producers pays for each record, whatever its code. Where two processors are two threads of one
/// core it is a third of what it is between cores; a guest may be moved from one to the other.
fn line_trip_ns() -> u64 {
    const TRIPS: u64 = 1 << 20;
    let word = Count::default();
    let pass = |turn: u64| {
        for trip in (turn..TRIPS).step_by(2) {
            while word.0.load(Ordering::Acquire) != trip {
                std::hint::spin_loop();
            }
            word.0.store(trip + 1, Ordering::Release);
        }
    };
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| pass(0));
        scope.spawn(|| pass(1));
    });
    start.elapsed().as_nanos() as u64 / TRIPS
}

fn cell(text: &str) -> Option<Cell> {
    let mut parts = text.split(':');
    let (name, producers, bytes) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Cell {
        name: name.into(),
        producers: producers.parse().ok()?,
        bytes: bytes.parse().ok()?,
    })
}

/// Records done by one thread, in cache lines of its own: counting costs neither side anything.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Count {
    fn add_one(&self) {
        let records = self.0.load(Ordering::Relaxed);
        self.0.store(records + 1, Ordering::Relaxed);
    }
}

/// Records done by each of the threads of a cell.
struct Counts(Vec<Count>);

impl Counts {
    fn new(cell: &Cell) -> Self {
        Self((0..cell.producers).map(|_| Count::default()).collect())
    }

    fn total(&self) -> u64 {
        let counts = self.0.iter().map(|count| count.0.load(Ordering::Relaxed));
        counts.sum()
    }

    /// Bytes per second over `time` from now on.
    fn rate(&self, bytes: usize, time: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.total());
        thread::sleep(time);
        let records = self.total() - before;
        records as f64 * bytes as f64 / start.elapsed().as_secs_f64()
    }
}

/// Memory that begins at a page, as that of a block request does: how fast a copy is depends on
/// where its two ends lie within their pages, by a factor of two here.
fn pages(bytes: usize, value: u8) -> MmapMut {
    let mut memory = MmapMut::map_anon(bytes).unwrap_or_else(|error| fail(&error));
    memory.fill(value);
    memory
}

struct Bench {
    ring: Arc<Ring>,
    consumer: Consumer,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|error| fail(&error));
        let incarnation = Incarnation { counter: 1, id: 1 };
        let config = RingConfig::for_payload(MEMORY_BYTES as u64).unwrap_or_else(|e| fail(&e));
        let ring = Ring::create(dir.path(), incarnation, config).unwrap_or_else(|e| fail(&e));
        let fds = ring.consumer_fds().unwrap_or_else(|error| fail(&error));
        Self {
            ring: Arc::new(ring),
            consumer: Consumer::open(fds).unwrap_or_else(|error| fail(&error)),
            _dir: dir,
        }
    }

    /// Bytes per second through the ring.
    fn ring_rate(&self, cell: &Cell, time: Duration) -> f64 {
        let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let (started, done) = (Barrier::new(cell.producers + 1), Counts::new(cell));
        let (rate, allocated) = thread::scope(|scope| {
            for n in 0..cell.producers {
                let (ring, started, stop, done) = (&self.ring, &started, &stop, &done.0[n]);
                scope.spawn(move || {
                    let source = pages(cell.bytes, n as u8);
                    started.wait();
                    produce(ring, &source, stop, done);
                });
            }
            let consuming = scope.spawn(|| consume(&self.consumer, &is_over));
            started.wait();
            thread::sleep(time / 10);
            let allocations = Region::new(ALLOCATIONS);
            let rate = done.rate(cell.bytes, time);
            let allocated = allocations.change().allocations;
            stop.store(true, Ordering::Relaxed);
            while self.ring.acked() < self.ring.captured() {
                let _ = self.ring.try_reclaim();
                thread::yield_now();
            }
            is_over.store(true, Ordering::Relaxed);
            let _ = consuming.join();
            (rate, allocated)
        });
        assert!(
            allocated == 0,
            "{allocated} allocations on the way of records"
        );
        rate
    }
}

fn produce(ring: &Ring, source: &[u8], stop: &AtomicBool, done: &Count) {
    let bytes = source.len();
    while !stop.load(Ordering::Relaxed) {
        let mark = TimeMark(1);
        match ring.claim(bytes as u32, mark) {
            Ok(mut claim) => {
                claim.payload_mut().copy_from_slice(source);
                let fields = RecordFields::write(VolumeIndex(0), 0, bytes as u32, false);
                claim.fill(fields).settle();
                done.add_one();
            }
            Err(ClaimError::Full) => thread::yield_now(),
            Err(error) => fail(&error),
        }
    }
}

fn consume(consumer: &Consumer, is_over: &AtomicBool) {
    let mut voids: Vec<Stamp> = Vec::with_capacity(LOOK);
    let mut at = consumer.freed();
    while !is_over.load(Ordering::Relaxed) {
        voids.clear();
        match consumer.settle_scan(at, LOOK, &mut voids) {
            Ok(upto) if upto == at => thread::sleep(REST),
            Ok(upto) => {
                consumer.set_sent(upto);
                consumer.set_acked(upto);
                at = upto;
            }
            Err(error) => fail(&error),
        }
    }
}

/// Bytes per second of as many threads copying records of the same size one behind the other.
fn copy_rate(memory: &mut [u8], cell: &Cell, time: Duration) -> f64 {
    let (stop, done) = (AtomicBool::new(false), Counts::new(cell));
    let share = memory.len() / cell.producers;
    let mut rate = 0.0;
    thread::scope(|scope| {
        for (own, done) in memory.chunks_exact_mut(share).zip(&done.0) {
            let stop = &stop;
            scope.spawn(move || {
                let source = pages(cell.bytes, 7);
                'all: loop {
                    for place in own.chunks_exact_mut(cell.bytes) {
                        if stop.load(Ordering::Relaxed) {
                            break 'all;
                        }
                        place.copy_from_slice(&source);
                        std::hint::black_box(&place);
                        done.add_one();
                    }
                }
            });
        }
        thread::sleep(time / 10);
        rate = done.rate(cell.bytes, time);
        stop.store(true, Ordering::Relaxed);
    });
    rate
}

fn fail(error: &dyn std::fmt::Display) -> ! {
    eprintln!("bench-ring: {error}");
    std::process::exit(1);
}
