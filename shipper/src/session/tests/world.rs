//! A ring and a link in memory, around a session on virtual time.

use crate::session::{Batch, Config, Event, Loss, Moment, Output, Session};
use ring::handoff::{LinkState, ToTap};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use wire::control::{Ack, Control, Heartbeat, Hello, HelloAck, Refusal, RefusalCode};
use wire::{
    Generation, Incarnation, Name, RecordHeader, RecordKind, SettleMark, Stamp, TimeMark,
    VolumeIndex, VolumeSpec,
};

/// What the disk has answered for a record of the model ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Pending,
    Well,
    Error,
}

pub(super) struct World {
    pub(super) session: Session,
    pub(super) now: Duration,
    pub(super) wall_ns: u64,
    /// Record `n` has stamp `n + 1`.
    pub(super) ring: Vec<(RecordHeader, Answer)>,
    pub(super) freed: u64,
    pub(super) is_closed: bool,
    pub(super) is_connecting: bool,
    pub(super) is_open: bool,
    pub(super) control: VecDeque<Control>,
    pub(super) batches: Vec<Batch>,
    pub(super) told: Vec<ToTap>,
    pub(super) closed: Vec<String>,
    pub(super) acked: u64,
    pub(super) sent: u64,
    pub(super) is_first_shipper: bool,
    numbered: BTreeMap<u64, TimeMark>,
}

pub(super) fn volume(index: u16, name: &str) -> VolumeSpec {
    VolumeSpec {
        index: VolumeIndex(index),
        name: Name::new(name).unwrap(),
        size_bytes: 1 << 30,
        sector_bytes: 512,
        identity: "file:1:2".into(),
    }
}

pub(super) fn config() -> Config {
    Config {
        source: Name::new("db1").unwrap(),
        group: Name::new("pg").unwrap(),
        incarnation: Incarnation { counter: 3, id: 77 },
        ring_slots: 4096,
        generation: Generation::default(),
        volumes: vec![volume(0, "data"), volume(1, "wal")],
        acked: Stamp::ZERO,
        captured: Stamp::ZERO,
        peer: "backup:7800".into(),
        seed: 1,
    }
}

pub(super) fn hello_ack(resume: u64) -> HelloAck {
    HelloAck {
        session: 40,
        generation: Generation {
            counter: 1,
            lineage: 9,
        },
        resume: Stamp(resume),
        settled: Stamp(resume),
        last_mark: TimeMark(0),
        clock: TimeMark(0),
    }
}

/// An ack of records and settle marks up to `durable`.
pub(super) fn ack(durable: u64) -> Ack {
    Ack {
        received: Stamp(durable),
        durable: Stamp(durable),
        settled: Stamp(durable),
        ..Ack::default()
    }
}

impl World {
    /// A world whose session has made its first attempt.
    pub(super) fn new() -> Self {
        Self::with(config())
    }

    pub(super) fn with(config: Config) -> Self {
        let mut world = Self {
            session: Session::new(config),
            now: Duration::ZERO,
            wall_ns: 1_000_000_000,
            ring: Vec::new(),
            freed: 0,
            is_closed: false,
            is_connecting: false,
            is_open: false,
            control: VecDeque::new(),
            batches: Vec::new(),
            told: Vec::new(),
            closed: Vec::new(),
            acked: 0,
            sent: 0,
            is_first_shipper: true,
            numbered: BTreeMap::new(),
        };
        world.tick();
        world
    }

    /// A world whose session is up, with nothing on the control stream.
    pub(super) fn up() -> Self {
        let mut world = Self::new();
        world.come_up(hello_ack(0));
        world
    }

    /// From connecting to up.
    pub(super) fn come_up(&mut self, ack: HelloAck) -> Hello {
        self.until_connecting();
        self.event(Event::Connected);
        let hello = self.hello();
        self.event(Event::Control(Control::HelloAck(ack)));
        hello
    }

    /// Lets time pass until the session wants a connection.
    pub(super) fn until_connecting(&mut self) {
        for _ in 0..10_000 {
            if self.is_connecting {
                return;
            }
            self.pass(Duration::from_millis(10));
        }
        panic!("the session does not try again");
    }

    /// The hello on the control stream.
    pub(super) fn hello(&mut self) -> Hello {
        match self.control.pop_front() {
            Some(Control::Hello(hello)) => hello,
            other => panic!("expected a hello, found {other:?}"),
        }
    }

    pub(super) fn refuse(&mut self, code: RefusalCode, text: &str) {
        self.until_connecting();
        self.event(Event::Connected);
        self.hello();
        let text = text.into();
        self.event(Event::Control(Control::Refusal(Refusal { code, text })));
    }

    /// The application writes `count` blocks of `bytes` to volume 0; the disk has not answered.
    pub(super) fn write(&mut self, count: usize, bytes: u32) {
        for _ in 0..count {
            self.push(RecordKind::Write, 0, bytes);
        }
    }

    pub(super) fn push(&mut self, kind: RecordKind, volume: u16, bytes: u32) {
        self.wall_ns += 10;
        let header = RecordHeader {
            kind,
            fua: false,
            volume: VolumeIndex(volume),
            stamp: Stamp(self.ring.len() as u64 + 1),
            mark: TimeMark(self.wall_ns),
            offset_bytes: 0,
            length_bytes: bytes,
            payload_bytes: bytes,
            incarnation_id: 77,
            checksum: 0,
        };
        self.ring.push((header, Answer::Pending));
    }

    /// The disk answers for everything up to `stamp`.
    pub(super) fn settle(&mut self, stamp: u64) {
        for (_, answer) in &mut self.ring[..stamp as usize] {
            if *answer == Answer::Pending {
                *answer = Answer::Well;
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wall_ns += time.as_nanos() as u64;
        self.tick();
    }

    pub(super) fn tick(&mut self) {
        self.event(Event::Tick);
    }

    pub(super) fn lose(&mut self, reason: &str) {
        self.is_open = false;
        self.is_connecting = false;
        self.event(Event::Lost(Loss {
            is_refusal: false,
            reason: reason.into(),
        }));
    }

    pub(super) fn acknowledge(&mut self, ack: Ack) {
        self.event(Event::Control(Control::Ack(ack)));
    }

    /// Hands over an event, then lets the session read the ring as long as it wants to.
    pub(super) fn event(&mut self, event: Event<'_>) {
        self.session.handle(self.moment(), event);
        self.obey();
        self.read_ring();
    }

    pub(super) fn moment(&self) -> Moment {
        Moment {
            elapsed: self.now,
            wall: TimeMark(self.wall_ns),
            captured: Stamp(self.ring.len() as u64),
            is_closed: self.is_closed,
        }
    }

    fn read_ring(&mut self) {
        while let Some(after) = self.session.reading() {
            if after.0 < self.freed {
                let freed = Stamp(self.freed);
                return self.event(Event::Recycled { freed });
            }
            let new = &self.ring[after.0 as usize..];
            let new: Vec<RecordHeader> = new.iter().take(1024).map(|(head, _)| *head).collect();
            self.session.handle(self.moment(), Event::Filled(&new));
            self.obey();
            if self.session.reading() == Some(after) {
                break;
            }
        }
        while let Some((after, count)) = self.session.settling() {
            let (upto, voids) = self.scan(after.0 as usize, count);
            let voids = &voids;
            let upto = Stamp(upto as u64);
            self.session
                .handle(self.moment(), Event::Settled { upto, voids });
            self.obey();
            if upto == after {
                break;
            }
        }
    }

    fn scan(&self, after: usize, count: usize) -> (usize, Vec<Stamp>) {
        let mut voids = Vec::new();
        let mut upto = after;
        for (header, answer) in self.ring[after..].iter().take(count) {
            match answer {
                Answer::Pending => break,
                Answer::Well => {}
                Answer::Error => voids.push(header.stamp),
            }
            upto += 1;
        }
        (upto, voids)
    }

    /// Does what the session wants done.
    fn obey(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Connect => {
                    assert!(
                        !self.is_open && !self.is_connecting,
                        "one connection at a time"
                    );
                    self.is_connecting = true;
                    self.control.clear();
                }
                Output::Send(message) => {
                    self.is_open = true;
                    self.is_connecting = false;
                    self.control.push_back(message);
                }
                Output::Batch(batch) => {
                    assert!(self.is_open, "batches need a connection");
                    self.compare_with_earlier(&batch);
                    self.batches.push(batch);
                }
                Output::Close(reason) => {
                    (self.is_open, self.is_connecting) = (false, false);
                    self.closed.push(reason);
                }
                Output::Sent(stamp) => self.sent = stamp.0,
                Output::Acked(stamp) => {
                    assert!(stamp.0 > self.acked, "the acked cursor only rises");
                    self.acked = stamp.0;
                }
                Output::Tell(message) => self.told.push(message),
            }
        }
    }

    /// A record sent again must be the same record, mark included.
    fn compare_with_earlier(&mut self, batch: &Batch) {
        for record in &batch.records {
            let first = self.numbered.entry(record.stamp.0).or_insert(record.mark);
            let is_same = *first == record.mark || !self.is_first_shipper;
            assert!(is_same, "{record:?} was sent with mark {first:?} before");
        }
    }

    /// Batches not looked at yet, as ranges of stamps.
    pub(super) fn ranges(&mut self) -> Vec<(u64, u64)> {
        let range = |batch: Batch| {
            let stamp = |record: Option<&RecordHeader>| record.unwrap().stamp.0;
            (stamp(batch.records.first()), stamp(batch.records.last()))
        };
        self.batches.drain(..).map(range).collect()
    }

    /// Settle marks not looked at yet; other messages are dropped.
    pub(super) fn settle_marks(&mut self) -> Vec<SettleMark> {
        let mark = |message| match message {
            Control::Settle(mark) => Some(mark),
            _ => None,
        };
        self.control.drain(..).filter_map(mark).collect()
    }

    /// Heartbeats not looked at yet; other messages are dropped.
    pub(super) fn beats(&mut self) -> Vec<Heartbeat> {
        let beat = |message| match message {
            Control::Heartbeat(beat) => Some(beat),
            _ => None,
        };
        self.control.drain(..).filter_map(beat).collect()
    }

    /// How the tap was last told the link stands.
    pub(super) fn link(&self) -> (LinkState, &str) {
        let report = self.told.iter().rev().find_map(|message| match message {
            ToTap::Link(report) => Some((report.state, report.reason.as_str())),
            _ => None,
        });
        report.expect("the tap was told how the link stands")
    }

    /// Whether the tap was asked for a copy of everything.
    pub(super) fn wants_full_copy(&self) -> bool {
        let is_wish = |message: &ToTap| matches!(message, ToTap::CopyWanted(wanted) if wanted.volume.is_none());
        self.told.iter().any(is_wish)
    }
}
