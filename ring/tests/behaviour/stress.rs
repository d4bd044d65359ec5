//! Many threads at once: every byte arrives, in order, once, and nobody sleeps through work.
//!
//! The rings are small and start just below where their counters wrap, so full, padding, reclaim
//! and wrap happen all the time.

use crate::common::{consumer, fields_of, fill, pattern, ring_at};
use ring::{Claim, ClaimError, Consumer, Entry, Filled, Origin, RecordFields, Ring};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wire::{RecordKind, Stamp, TimeMark};

const PRODUCERS: u64 = 4;
const CLAIMS: u64 = 20_000;
const LONE_RECORDS: u64 = 50_000;
const ORIGIN: Origin = Origin {
    stamp: Stamp((1 << 31) - 30_000),
    position_units: (1 << 32) - 40_000,
};
/// Longer than any pause of a busy machine: whoever sleeps this long was not woken.
const LOST_WAKE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Longer than any wait for room.
const STUCK: Duration = Duration::from_secs(20);

/// Ends the other threads also when this one fails.
struct EndsWithMe<'a>(&'a AtomicBool);

impl Drop for EndsWithMe<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One queue thread with its disk, which answers out of order and refuses now and then.
struct Producer<'a> {
    ring: &'a Ring,
    random: Random,
    in_flight: Vec<Filled>,
    voids: Vec<Stamp>,
}

impl Producer<'_> {
    fn run(mut self) -> Vec<Stamp> {
        for _ in 0..CLAIMS {
            let bytes = [512, 1536, 4096, 700, 0, 8192][self.random.below(6) as usize];
            let claim = self.claim(bytes);
            if self.random.below(50) == 0 {
                self.voids.push(claim.stamp());
                drop(claim);
            } else {
                self.in_flight.push(fill(claim));
            }
            self.ring.notify_consumer();
            while self.in_flight.len() as u64 > self.random.below(4) {
                self.answer_one();
            }
        }
        while !self.in_flight.is_empty() {
            self.answer_one();
        }
        self.voids
    }

    fn claim(&mut self, bytes: u32) -> Claim {
        let start = Instant::now();
        loop {
            match self.ring.claim(bytes, TimeMark(1)) {
                Ok(claim) => return claim,
                Err(ClaimError::Full) if self.in_flight.is_empty() => thread::yield_now(),
                Err(ClaimError::Full) => self.answer_one(),
                Err(error) => panic!("{error}"),
            }
            assert!(start.elapsed() < STUCK, "the ring stays full");
        }
    }

    fn answer_one(&mut self) {
        let index = self.random.below(self.in_flight.len() as u64) as usize;
        let filled = self.in_flight.swap_remove(index);
        let bytes = filled.payload().len() as u32;
        let expected = pattern(filled.stamp(), bytes);
        assert!(
            filled.payload() == expected,
            "memory of a write in flight was given out again"
        );
        if self.random.below(40) == 0 {
            self.voids.push(filled.stamp());
            filled.void();
        } else {
            filled.settle();
        }
        self.ring.notify_consumer();
    }
}

/// A shipper that acks what is read and settled, and sleeps whenever there is nothing to do.
struct Shipper<'a> {
    consumer: &'a Consumer,
    read: Stamp,
    settled: Stamp,
    voids: Vec<Stamp>,
    sleeps: u64,
}

impl Shipper<'_> {
    fn run(mut self, last: Stamp) -> (Vec<Stamp>, u64) {
        let wake = self.consumer.wake_fd().unwrap();
        while self.settled < last {
            if self.step() {
                continue;
            }
            self.consumer.prepare_sleep();
            if self.step() {
                self.consumer.cancel_sleep();
                continue;
            }
            self.sleeps += 1;
            let mut fds = [PollFd::new(&wake, PollFlags::IN)];
            let ready = poll(&mut fds, Some(&LOST_WAKE)).unwrap();
            assert!(
                ready == 1,
                "asleep beside record {} of {last}",
                self.settled
            );
            wake.drain().unwrap();
        }
        (self.voids, self.sleeps)
    }

    fn step(&mut self) -> bool {
        let mut entries = Vec::new();
        let read = self
            .consumer
            .peek_filled(self.read, 64, &mut entries)
            .unwrap();
        for entry in &entries {
            self.read = self.read.next();
            assert_eq!(entry.stamp, self.read, "stamps are contiguous");
            check(self.consumer, entry);
        }
        let settled = self.settled;
        let upto = self
            .consumer
            .settle_scan(settled, 64, &mut self.voids)
            .unwrap();
        self.settled = upto.min(self.read);
        self.voids.retain(|void| *void <= self.settled);
        self.consumer.set_sent(self.read);
        self.consumer.set_acked(self.settled);
        read > 0 || self.settled > settled
    }
}

fn check(consumer: &Consumer, entry: &Entry) {
    let mut payload = Vec::new();
    consumer.read_payload(entry, &mut payload).unwrap();
    if entry.fields.kind == RecordKind::Void {
        assert!(payload.is_empty());
        return;
    }
    let bytes = entry.fields.payload_bytes;
    assert_eq!(entry.fields, fields_of(entry.stamp, bytes));
    assert!(
        payload == pattern(entry.stamp, bytes),
        "payload of {} is torn",
        entry.stamp
    );
}

#[test]
fn every_record_arrives_whole_in_order_and_once_under_full_rings_and_sleep() {
    for (slots, payload_bytes) in [(16, 1 << 16), (1024, 1 << 15), (8, 1 << 20)] {
        let ring = ring_at(slots, payload_bytes, ORIGIN);
        let consumer = consumer(&ring);
        let last = Stamp(ORIGIN.stamp.0 + PRODUCERS * CLAIMS);
        let shipper = Shipper {
            consumer: &consumer,
            read: ORIGIN.stamp,
            settled: ORIGIN.stamp,
            voids: Vec::new(),
            sleeps: 0,
        };
        let (voids, seen, sleeps) = thread::scope(|scope| {
            let producers: Vec<_> = (1..=PRODUCERS)
                .map(|seed| Producer {
                    ring: &ring,
                    random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                    in_flight: Vec::new(),
                    voids: Vec::new(),
                })
                .map(|producer| scope.spawn(|| producer.run()))
                .collect();
            let shipper = scope.spawn(move || shipper.run(last));
            let voids: BTreeSet<_> = producers
                .into_iter()
                .flat_map(|producer| producer.join().unwrap())
                .collect();
            let (seen, sleeps) = shipper.join().unwrap();
            (voids, seen, sleeps)
        });
        assert!(sleeps > 0, "a test of sleep has to sleep");
        assert!(
            seen.into_iter().eq(voids),
            "exactly the void records are told as void"
        );
        assert_eq!((ring.captured(), ring.settled_prefix()), (last, last));
        ring.try_reclaim().unwrap();
        assert_eq!((ring.usage().used_slots, ring.usage().used_bytes), (0, 0));
    }
}

#[test]
fn nothing_is_claimed_between_a_close_and_the_gap_that_ends_it() {
    let ring = ring_at(16, 1 << 16, ORIGIN);
    let consumer = consumer(&ring);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    match ring.claim(512, TimeMark(1)) {
                        Ok(claim) => fill(claim).settle(),
                        Err(ClaimError::Full | ClaimError::Closed) => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let _end = EndsWithMe(&is_over);
        let mut upto = ORIGIN.stamp;
        for _ in 0..20_000 {
            let closed_at = ring.close();
            while ring.settled_prefix() < closed_at {
                thread::yield_now();
            }
            assert_eq!(
                ring.captured(),
                closed_at,
                "all that was claimed before is the stream"
            );
            upto = drain(&consumer, upto, closed_at);
            let gap = ring.reopen(0, TimeMark(1)).unwrap();
            assert_eq!(gap.stamp(), closed_at.next(), "the gap comes first");
            gap.fill(RecordFields::gap(0)).settle();
            let start = Instant::now();
            while ring.captured().records_since(closed_at) < 4 {
                thread::yield_now();
                assert!(start.elapsed() < STUCK, "nobody writes after the gap");
            }
        }
    });
}

fn drain(consumer: &Consumer, mut from: Stamp, upto: Stamp) -> Stamp {
    while from < upto {
        let mut entries = Vec::new();
        consumer.peek_filled(from, 64, &mut entries).unwrap();
        from = entries.last().unwrap().stamp;
    }
    consumer.set_acked(upto);
    upto
}

#[test]
fn a_write_submitted_after_another_completed_has_the_later_stamp() {
    let ring = ring_at(1 << 19, 1 << 13, ORIGIN);
    let completed = AtomicU64::new(0);
    let start = Barrier::new(PRODUCERS as usize);
    thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..100_000 {
                    let before = completed.load(Ordering::Acquire);
                    let claim = ring.claim(0, TimeMark(1)).unwrap();
                    let stamp = claim.stamp();
                    assert!(stamp.0 > before, "P2");
                    fill(claim).settle();
                    completed.fetch_max(stamp.0, Ordering::Release);
                }
            });
        }
    });
}

#[test]
fn a_reader_that_falls_behind_reads_a_whole_record_or_none() {
    // The acks run ahead of the reader on purpose: its records vanish under its hands.
    let ring = ring_at(8, 1 << 14, ORIGIN);
    let consumer = consumer(&ring);
    let is_over = AtomicBool::new(false);
    let (mut whole, mut gone) = (0u64, 0u64);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                match ring.claim(4096, TimeMark(1)) {
                    Ok(claim) => {
                        let stamp = claim.stamp();
                        fill(claim).settle();
                        consumer.set_acked(stamp);
                    }
                    Err(error) => assert_eq!(error, ClaimError::Full),
                }
            }
        });
        let _end = EndsWithMe(&is_over);
        while whole < 1_000 || gone < 200 {
            let mut entries = Vec::new();
            let mut payload = Vec::new();
            let read = consumer
                .peek_filled(consumer.freed(), 1, &mut entries)
                .and_then(|_| {
                    entries
                        .first()
                        .map_or(Ok(()), |e| consumer.read_payload(e, &mut payload))
                });
            match (read, entries.first()) {
                (Ok(()), Some(entry)) => {
                    assert!(
                        payload == pattern(entry.stamp, 4096),
                        "{} is torn",
                        entry.stamp
                    );
                    whole += 1;
                }
                (Ok(()), None) => {}
                (Err(ring::RingFault::Recycled { .. }), _) => gone += 1,
                (Err(fault), _) => panic!("{fault}"),
            }
        }
    });
}

/// Cold memory: stores to it keep the ones after them waiting inside the processor, so that a
/// missing fence shows.
struct SlowStores {
    words: Vec<AtomicU64>,
    next: usize,
}

impl SlowStores {
    fn new() -> Self {
        let words = (0..4 << 20).map(|_| AtomicU64::new(0)).collect();
        Self { words, next: 0 }
    }

    fn pile_up(&mut self) {
        for _ in 0..32 {
            self.next = (self.next + 4099) % self.words.len();
            self.words[self.next].store(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_lone_record_wakes_a_shipper_that_falls_asleep_at_that_very_moment() {
    // One record at a time: no later one repairs a wake that was lost.
    let ring = ring_at(64, 1 << 13, ORIGIN);
    let consumer = consumer(&ring);
    let wake = consumer.wake_fd().unwrap();
    let last = Stamp(ORIGIN.stamp.0 + LONE_RECORDS);
    thread::scope(|scope| {
        scope.spawn(|| write_one_by_one(&ring, &consumer, last));
        let mut slow = SlowStores::new();
        let mut upto = ORIGIN.stamp;
        while upto < last {
            slow.pile_up();
            consumer.prepare_sleep();
            let seen = consumer.settle_scan(upto, 1, &mut Vec::new()).unwrap();
            if seen > upto {
                consumer.cancel_sleep();
                upto = seen;
                consumer.set_acked(upto);
                continue;
            }
            let mut fds = [PollFd::new(&wake, PollFlags::IN)];
            let ready = poll(&mut fds, Some(&LOST_WAKE)).unwrap();
            assert!(ready == 1, "asleep beside record {upto}");
            wake.drain().unwrap();
        }
    });
}

fn write_one_by_one(ring: &Ring, consumer: &Consumer, last: Stamp) {
    let mut random = Random(42);
    let mut slow = SlowStores::new();
    let mut upto = ORIGIN.stamp;
    while upto < last {
        let start = Instant::now();
        while consumer.acked() < upto {
            std::hint::spin_loop();
            assert!(start.elapsed() < STUCK, "record {upto} was never taken");
        }
        for _ in 0..random.below(60) {
            std::hint::spin_loop();
        }
        let claim = ring.claim(0, TimeMark(1)).unwrap();
        upto = claim.stamp();
        let filled = fill(claim);
        slow.pile_up();
        filled.settle();
        ring.notify_consumer();
    }
}

#[test]
fn an_honest_shipper_is_never_accused_however_the_tap_is_interrupted() {
    // The tap once read its claims before the page: whatever was claimed, shipped and acked between
    // the two made the shipper look as if it had run ahead.
    let ring = ring_at(1024, 1 << 20, ORIGIN);
    let consumer = consumer(&ring);
    let done = AtomicBool::new(false);
    let fields = RecordFields::write(wire::VolumeIndex(0), 0, 512, false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match ring.claim(512, TimeMark(1)) {
                    Ok(claim) => claim.fill(fields).settle(),
                    Err(ClaimError::Full) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        scope.spawn(|| {
            let (mut upto, mut voids) = (consumer.acked(), Vec::new());
            while !done.load(Ordering::Relaxed) {
                upto = consumer.settle_scan(upto, 64, &mut voids).unwrap();
                consumer.set_acked(upto);
            }
        });
        let _end = EndsWithMe(&done);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            ring.try_reclaim().unwrap();
        }
    });
}
