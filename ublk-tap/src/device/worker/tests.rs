//! Workers over a disk of the test's own, which answers late, in any order, in pieces and with
//! errors; over the real ring, the real ranges and the real parking. What the application was told,
//! what the disk holds and what the records say must agree.

use super::{Parts, Port, Volume, Worker};
use crate::device::buffers::Buffers;
use crate::device::counters::{Counters, Faults};
use crate::device::parking::Parking;
use crate::device::progress::{DiskOp, Ways};
use crate::device::request::{Geometry, RawRequest};
use crate::device::wake::Waker;
use crate::ranges::{Range, RangeTable};
use proptest::prelude::*;
use ring::{Consumer, Ring, RingConfig};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use wire::{Incarnation, RecordKind, Stamp, VolumeIndex};

const SIZE_BYTES: usize = 8 << 20;
const IO_BYTES_MAX: u32 = 512 << 10;
const DEPTH: u16 = 12;
const QUEUES: usize = 2;

/// An operation the disk has not answered yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    queue: usize,
    tag: u16,
    op: DiskOp,
    fill: u8,
}

/// The world around all workers.
struct World {
    disk: Vec<u8>,
    pending: Vec<Pending>,
    /// What the application asked for, per queue and tag.
    asked: Vec<Vec<Option<(RawRequest, u8)>>>,
    completed: Vec<(usize, u16, i32)>,
    pausing: [bool; QUEUES],
    /// Bytes that records need not describe: named as refused, or changed without a record.
    unknown: Vec<bool>,
    closed: bool,
    /// The application's memory cannot be read.
    is_unreadable: bool,
}

struct FakePort {
    queue: usize,
    world: Rc<RefCell<World>>,
}

impl Port for FakePort {
    fn request(&self, tag: u16) -> RawRequest {
        self.world.borrow().asked[self.queue][usize::from(tag)]
            .unwrap()
            .0
    }

    fn copy_in(&mut self, tag: u16, bytes: &mut [u8]) -> Result<(), i32> {
        if self.world.borrow().is_unreadable {
            return Err(libc::EIO);
        }
        bytes.fill(
            self.world.borrow().asked[self.queue][usize::from(tag)]
                .unwrap()
                .1,
        );
        Ok(())
    }

    fn copy_out(&mut self, _tag: u16, _bytes: &[u8]) -> Result<(), i32> {
        Ok(())
    }

    fn issue(&mut self, tag: u16, op: DiskOp, memory: *mut u8) {
        let mut world = self.world.borrow_mut();
        let fill = world.asked[self.queue][usize::from(tag)].unwrap().1;
        let moves = matches!(op, DiskOp::Read { .. } | DiskOp::Write { .. });
        assert!(!moves || !memory.is_null(), "data has memory");
        if let Some(range) = changed(op) {
            let busy = world
                .pending
                .iter()
                .filter_map(|pending| changed(pending.op));
            assert!(
                busy.into_iter().all(|other| !other.overlaps(range)),
                "P3: {range:?}"
            );
        }
        if let (true, Some(range)) = (world.closed, changed(op)) {
            world.forget(range);
        }
        world.pending.push(Pending {
            queue: self.queue,
            tag,
            op,
            fill,
        });
    }

    fn complete(&mut self, tag: u16, result: i32) {
        let mut world = self.world.borrow_mut();
        assert!(
            world.asked[self.queue][usize::from(tag)].take().is_some(),
            "completed once"
        );
        world.completed.push((self.queue, tag, result));
    }

    fn pause(&mut self) {
        self.world.borrow_mut().pausing[self.queue] = true;
    }
}

fn changed(op: DiskOp) -> Option<Range> {
    match op {
        DiskOp::Read { .. } | DiskOp::Sync => None,
        DiskOp::Write {
            offset_bytes,
            length_bytes,
            ..
        }
        | DiskOp::WriteZeroes {
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
        } => Some(Range::of_length(offset_bytes, u64::from(length_bytes))),
    }
}

impl World {
    /// Nothing is said about what the disk holds in `range`.
    fn forget(&mut self, range: Range) {
        self.unknown[range.start_bytes() as usize..range.end_bytes() as usize].fill(true);
    }

    /// Lets the disk answer one operation: all, a part, later, or not at all.
    fn answer(&mut self, which: usize, mood: u8) -> Option<(Pending, i32)> {
        if self.pending.is_empty() {
            return None;
        }
        let place = which % self.pending.len();
        let pending = self.pending.swap_remove(place);
        let Some(range) = changed(pending.op) else {
            return Some((pending, full(pending.op)));
        };
        match mood {
            0 => return Some((pending, -libc::EAGAIN)),
            1 => return Some((pending, -libc::EIO)),
            2 if !matches!(pending.op, DiskOp::Write { .. }) => {
                return Some((pending, -libc::EOPNOTSUPP));
            }
            _ => {}
        }
        let result = if mood == 3 && full(pending.op) > 512 {
            512
        } else {
            full(pending.op)
        };
        let is_write = matches!(pending.op, DiskOp::Write { .. });
        let length = if result > 0 {
            result as usize
        } else {
            range.length_bytes() as usize
        };
        let bytes = &mut self.disk[range.start_bytes() as usize..][..length];
        bytes.fill(if is_write { pending.fill } else { 0 });
        Some((pending, result))
    }
}

fn full(op: DiskOp) -> i32 {
    match op {
        DiskOp::Read { length_bytes, .. }
        | DiskOp::Write { length_bytes, .. }
        | DiskOp::WriteZeroes { length_bytes, .. } => length_bytes as i32,
        DiskOp::Punch { .. } | DiskOp::ZeroRange { .. } | DiskOp::Sync => 0,
    }
}

/// Workers, world, ring and its consumer.
struct Stage {
    world: Rc<RefCell<World>>,
    workers: Vec<Worker<FakePort>>,
    ring: Arc<Ring>,
    parking: Arc<Parking>,
    ranges: Arc<RangeTable>,
    faults: Arc<Faults>,
    consumer: Consumer,
    /// What the records so far make of an empty volume.
    replica: Vec<u8>,
    acked: Stamp,
    fill: u8,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let incarnation = Incarnation { counter: 1, id: 7 };
        let config = RingConfig::for_payload(4 << 20).unwrap();
        let ring = Arc::new(Ring::create(dir.path(), incarnation, config).unwrap());
        let world = Rc::new(RefCell::new(World {
            disk: vec![0; SIZE_BYTES],
            pending: Vec::new(),
            asked: vec![vec![None; usize::from(DEPTH)]; QUEUES],
            completed: Vec::new(),
            pausing: [false; QUEUES],
            unknown: vec![false; SIZE_BYTES],
            closed: false,
            is_unreadable: false,
        }));
        let (parking, ranges) = (Arc::new(Parking::new()), Arc::new(RangeTable::new()));
        let faults = Arc::new(Faults::default());
        let size_bytes = SIZE_BYTES as u64;
        let geometry = Geometry {
            size_bytes,
            sector_bytes: 512,
            io_bytes_max: IO_BYTES_MAX,
        };
        let volume = Volume {
            index: VolumeIndex(3),
            geometry,
            ring: Arc::clone(&ring),
            ranges: Arc::clone(&ranges),
            parking: Arc::clone(&parking),
            faults: Arc::clone(&faults),
        };
        let worker = |queue: usize| {
            let parts = Parts {
                depth: DEPTH,
                buffers: Buffers::new(1 << 20).unwrap(),
                waker: Arc::new(Waker::new().unwrap()),
                counters: Arc::new(Counters::default()),
                ways: Ways {
                    punch: true,
                    zero_range: true,
                },
            };
            let port = FakePort {
                queue,
                world: Rc::clone(&world),
            };
            Worker::new(port, volume.clone(), parts)
        };
        let workers = (0..QUEUES).map(worker).collect();
        let consumer = Consumer::open(ring.consumer_fds().unwrap()).unwrap();
        let replica = vec![0; SIZE_BYTES];
        let (acked, fill) = (Stamp::ZERO, 0);
        Self {
            world,
            workers,
            ring,
            parking,
            ranges,
            faults,
            consumer,
            replica,
            acked,
            fill,
            _dir: dir,
        }
    }

    fn ask(&mut self, queue: usize, op: u32, at: u64, sectors: u32) {
        let mut world = self.world.borrow_mut();
        let Some(tag) = world.asked[queue].iter().position(Option::is_none) else {
            return;
        };
        self.fill = self.fill % 250 + 1;
        let most = if op <= 1 {
            IO_BYTES_MAX / 512
        } else {
            u32::MAX
        };
        let left = (SIZE_BYTES as u64 / 512).saturating_sub(at);
        let sectors = sectors.min(most).min(left as u32);
        let raw = RawRequest {
            op_flags: op,
            start_sector: at,
            sectors,
        };
        world.asked[queue][tag] = Some((raw, self.fill));
        drop(world);
        self.workers[queue].fetched(tag as u16);
    }

    fn answer(&mut self, which: usize, mood: u8) -> bool {
        let answered = self.world.borrow_mut().answer(which, mood);
        let Some((pending, result)) = answered else {
            return false;
        };
        self.workers[pending.queue].answered(pending.tag, result);
        true
    }

    /// Bells and pauses, as the queue threads would hear them.
    fn turn(&mut self) {
        for (queue, worker) in self.workers.iter_mut().enumerate() {
            worker.woken();
            if std::mem::take(&mut self.world.borrow_mut().pausing[queue]) {
                worker.paused();
            }
            worker.end_turn();
        }
    }

    /// The consumer takes what is settled, applies it, and gives the places back.
    fn consume(&mut self) {
        let mut voids = Vec::new();
        let upto = self
            .consumer
            .settle_scan(self.acked, 1 << 16, &mut voids)
            .unwrap();
        let voids = voids.into_iter().collect::<BTreeSet<_>>();
        let mut entries = Vec::new();
        self.consumer
            .peek_filled(self.acked, 1 << 16, &mut entries)
            .unwrap();
        for entry in entries.iter().filter(|entry| entry.stamp <= upto) {
            if voids.contains(&entry.stamp) {
                continue;
            }
            assert_eq!(entry.fields.volume, VolumeIndex(3));
            let at = entry.fields.offset_bytes as usize..;
            let bytes = &mut self.replica[at][..entry.fields.length_bytes as usize];
            match entry.fields.kind {
                RecordKind::Write => {
                    let mut payload = Vec::new();
                    self.consumer.read_payload(entry, &mut payload).unwrap();
                    bytes.copy_from_slice(&payload);
                }
                RecordKind::Discard | RecordKind::Zero => bytes.fill(0),
                other => panic!("a worker makes no {other:?}"),
            }
        }
        self.acked = upto;
        self.consumer.set_sent(upto);
        self.consumer.set_acked(upto);
        self.parking.kick();
    }

    fn close(&mut self) {
        self.ring.close();
        self.world.borrow_mut().closed = true;
        self.parking.kick();
    }

    /// Lets everything come to its end, and compares.
    fn settle(mut self) {
        for round in 0.. {
            assert!(round < 100_000, "everything comes to its end");
            self.turn();
            self.consume();
            if !self.answer(0, 9) && self.workers.iter().all(Worker::is_idle) {
                break;
            }
        }
        self.consume();
        assert_eq!(
            self.acked,
            self.ring.captured(),
            "every record was settled or made void"
        );
        assert!(self.ranges.is_idle() && self.parking.is_empty());
        let mut world = self.world.borrow_mut();
        let refused = self.faults.take();
        assert!(!refused.overflowed, "few enough to be named one by one");
        for fault in refused.faults {
            world.forget(fault.range);
        }
        let differs = |at: &usize| world.disk[*at] != self.replica[*at] && !world.unknown[*at];
        assert_eq!(
            (0..SIZE_BYTES).find(differs),
            None,
            "P4: disk and records agree"
        );
        for &(_, _, result) in &world.completed {
            assert!(
                ![-libc::EAGAIN, -libc::ENOMEM].contains(&result),
                "{result}"
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Ask {
        queue: usize,
        op: u32,
        at: u64,
        sectors: u32,
    },
    Answer {
        which: usize,
        mood: u8,
    },
    Turn,
    Consume,
    Close,
}

fn any_event() -> impl Strategy<Value = Event> {
    let op = prop_oneof![6 => Just(1_u32), 2 => Just(0), 1 => Just(2), 1 => Just(3), 1 => Just(5)];
    let ask =
        (0..QUEUES, op, 0_u64..4096, 1_u32..1100).prop_map(|(queue, op, at, sectors)| Event::Ask {
            queue,
            op,
            at,
            sectors,
        });
    let answer = (any::<usize>(), 0_u8..14).prop_map(|(which, mood)| Event::Answer { which, mood });
    prop_oneof![
        40 => ask,
        36 => answer,
        10 => Just(Event::Turn),
        5 => Just(Event::Consume),
        1 => Just(Event::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn records_in_stamp_order_always_make_the_disk(
        events in proptest::collection::vec(any_event(), 1..250),
    ) {
        let mut stage = Stage::new();
        for event in events {
            match event {
                Event::Ask { queue, op, at, sectors } => stage.ask(queue, op, at, sectors),
                Event::Answer { which, mood } => drop(stage.answer(which, mood)),
                Event::Turn => stage.turn(),
                Event::Consume => stage.consume(),
                Event::Close => stage.close(),
            }
        }
        stage.settle();
    }
}

const WRITE: u32 = 1;
const READ: u32 = 0;

#[test]
fn reads_and_flushes_go_on_while_a_write_waits_for_room() {
    let mut stage = Stage::new();
    for turn in 0..9 {
        stage.ask(0, WRITE, turn * 1024, 1024); // 9 x 512 KiB do not fit into 4 MiB
        stage.answer(0, 9);
    }
    assert_eq!(stage.parking.len(), 1, "the last one is parked");
    stage.ask(0, READ, 0, 8);
    stage.ask(0, 2, u64::MAX, 0);
    let before = stage.world.borrow().completed.len();
    while stage.answer(0, 9) {}
    assert_eq!(stage.world.borrow().completed.len(), before + 2);
    assert_eq!(stage.parking.len(), 1);
    stage.consume();
    stage.turn();
    assert!(stage.parking.is_empty(), "there is room again");
    stage.settle();
}

#[test]
fn writes_that_wait_say_so_before_they_hold_the_tags_reads_need() {
    let mut stage = Stage::new();
    for turn in 0..8 {
        stage.ask(0, WRITE, turn * 1024, 1024); // 4 MiB: the ring is full
        stage.answer(0, 9);
    }
    for at in 0..8 {
        stage.ask(0, WRITE, at * 8, 8);
    }
    stage.turn();
    assert_eq!(stage.parking.len(), 8);
    assert!(stage.parking.crowded_since().is_none(), "a third is left");
    stage.ask(0, WRITE, 0, 8); // behind one that is parked: held as long
    stage.turn();
    assert_eq!(stage.parking.len(), 8);
    assert!(stage.parking.crowded_since().is_some(), "a quarter is left");
    let before = stage.world.borrow().completed.len();
    stage.ask(0, READ, 0, 8);
    while stage.answer(0, 9) {}
    assert_eq!(
        stage.world.borrow().completed.len(),
        before + 1,
        "which reads get"
    );
    for at in 8..11 {
        stage.ask(0, WRITE, at * 8, 8);
    }
    stage.turn();
    assert_eq!(stage.parking.len(), 11, "no tag is left");
    stage.close(); // what the group does then
    stage.turn();
    assert!(stage.parking.crowded_since().is_none());
    while stage.answer(0, 9) {}
    stage.turn();
    while stage.answer(0, 9) {}
    assert!(stage.workers[0].is_idle(), "all tags are with the kernel");
}

#[test]
fn writes_that_flow_are_crowded_no_longer_than_the_oldest_of_them_waits() {
    let mut stage = Stage::new();
    for turn in 0..8 {
        stage.ask(0, WRITE, turn * 1024, 1024);
        stage.answer(0, 9);
    }
    for turn in 0..12 {
        stage.ask(0, WRITE, turn * 1024, 1024);
    }
    stage.turn();
    let first = stage.parking.crowded_since().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    stage.consume();
    stage.turn();
    while stage.answer(0, 9) {}
    for turn in 0..8 {
        stage.ask(0, WRITE, turn * 1024, 1024);
    }
    stage.turn();
    assert!(stage.parking.crowded_since().unwrap() > first);
    stage.settle();
}

#[test]
fn a_shipper_that_lies_has_writes_wait_for_the_group_which_alone_gives_the_stream_up() {
    let mut stage = Stage::new();
    for turn in 0..7 {
        stage.ask(0, WRITE, turn * 1024, 1024);
        stage.answer(0, 9);
    }
    stage.consumer.set_acked(Stamp(99));
    stage.ask(0, WRITE, 7 * 1024, 1024);
    stage.ask(0, WRITE, 8 * 1024, 1024);
    stage.turn();
    assert!(stage.ring.violation().is_some());
    assert!(!stage.ring.is_closed(), "not by a queue");
    assert_eq!(stage.parking.len(), 1);
    stage.close();
    stage.turn();
    while stage.answer(0, 9) {}
    assert!(stage.workers.iter().all(Worker::is_idle));
}

#[test]
fn parked_writes_go_on_without_a_record_once_the_stream_is_given_up() {
    let mut stage = Stage::new();
    for turn in 0..11 {
        stage.ask(0, WRITE, turn * 1024, 1024);
        stage.answer(0, 9);
    }
    assert!(stage.parking.len() > 1);
    let captured = stage.ring.captured();
    stage.close();
    stage.turn();
    assert!(stage.parking.is_empty());
    assert_eq!(
        stage.ring.captured(),
        captured,
        "nothing enters a closed stream"
    );
    while stage.answer(0, 9) {}
    assert!(
        stage.workers.iter().all(Worker::is_idle),
        "the application goes on"
    );
}

#[test]
fn a_small_write_does_not_overtake_a_parked_large_one() {
    let mut stage = Stage::new();
    for turn in 0..7 {
        stage.ask(0, WRITE, turn * 1024, 1024);
        stage.answer(0, 9);
    }
    stage.ask(0, WRITE, 7 * 1024, 600);
    stage.ask(0, WRITE, 8 * 1024, 1000); // no room for it
    assert_eq!(stage.parking.len(), 1);
    stage.ask(1, WRITE, 0, 1); // there would be room for this one
    assert_eq!(stage.parking.len(), 2, "it lines up");
    stage.settle();
}

#[test]
fn a_write_the_disk_refuses_becomes_void_and_its_range_is_reported() {
    let mut stage = Stage::new();
    stage.ask(0, WRITE, 8, 8);
    stage.answer(0, 1);
    assert_eq!(stage.world.borrow().completed, [(0, 0, -libc::EIO)]);
    let mut voids = Vec::new();
    let upto = stage
        .consumer
        .settle_scan(Stamp::ZERO, 10, &mut voids)
        .unwrap();
    assert_eq!((upto, voids), (Stamp(1), vec![Stamp(1)]));
    stage.settle();
}

#[test]
fn a_refused_range_is_in_the_list_before_its_record_is_void() {
    let mut stage = Stage::new();
    stage.ask(0, WRITE, 8, 8);
    let (ring, faults) = (Arc::clone(&stage.ring), Arc::clone(&stage.faults));
    let (post, held) = std::sync::mpsc::channel();
    let watcher = std::thread::spawn(move || {
        let list = faults.hold();
        post.send(()).unwrap();
        // Long enough for the worker to come to the list, and past it if it did not wait for it.
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(list.faults.is_empty());
        ring.settled_prefix()
    });
    held.recv().unwrap();
    stage.answer(0, 1);
    assert_eq!(watcher.join().unwrap(), Stamp::ZERO);
    assert_eq!(stage.ring.settled_prefix(), Stamp(1));
    stage.settle();
}

#[test]
fn a_write_whose_bytes_cannot_be_had_changes_nothing_and_leaves_no_fault() {
    let mut stage = Stage::new();
    stage.world.borrow_mut().is_unreadable = true;
    stage.ask(0, WRITE, 8, 8);
    assert_eq!(stage.world.borrow().completed, [(0, 0, -libc::EIO)]);
    assert!(
        stage.world.borrow().pending.is_empty(),
        "the disk is not asked"
    );
    assert_eq!(stage.ring.settled_prefix(), Stamp(1), "its place is void");
    assert!(stage.faults.take().faults.is_empty() && stage.ranges.is_idle());
    stage.settle();
}
