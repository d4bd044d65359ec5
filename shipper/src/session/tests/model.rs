//! Random schedules against a model receiver.
//!
//! Batches arrive in any order or not at all, acks are lost or late, connections end at any moment,
//! the disk answers in any order, clocks are set, the shipper is killed. Whatever happens: the
//! receiver ends with every record once; heartbeats never promised too much; the ring was never
//! freed beyond what the receiver holds. Without a kill the same record always has the same mark.

use super::world::{Answer, World, hello_ack};
use crate::session::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::control::{Ack, Control, Heartbeat, HelloAck};
use wire::{RecordHeader, Stamp, TimeMark};

/// The receiver's journal, and what of it survives a session.
#[derive(Default)]
struct Receiver {
    records: BTreeMap<u64, TimeMark>,
    settled: u64,
    voids: BTreeSet<u64>,
    session: u64,
    /// Heartbeats of this session that are not valid yet.
    pending: Vec<Heartbeat>,
    /// Heartbeats that became valid: promises to be kept for ever.
    valid: Vec<Heartbeat>,
    echo: TimeMark,
}

impl Receiver {
    fn durable(&self) -> u64 {
        let contiguous = self
            .records
            .keys()
            .zip(1..)
            .take_while(|(stamp, n)| **stamp == *n);
        contiguous.count() as u64
    }

    fn hello_ack(&mut self) -> HelloAck {
        self.session += 1;
        self.pending.clear();
        self.echo = TimeMark(0);
        let durable = self.durable();
        let mark = self.lifted().last().map_or(TimeMark(0), |(_, mark)| *mark);
        let beats = self.valid.iter().map(|beat| beat.clock);
        HelloAck {
            session: self.session,
            settled: Stamp(self.settled),
            last_mark: beats.fold(mark, TimeMark::max),
            ..hello_ack(durable)
        }
    }

    fn batch(&mut self, batch: &Batch) {
        if batch.session != self.session {
            return;
        }
        for record in &batch.records {
            self.records.entry(record.stamp.0).or_insert(record.mark);
        }
        self.validate();
    }

    fn control(&mut self, message: Control) {
        match message {
            Control::Settle(mark) => {
                assert_eq!(mark.after.0, self.settled, "settle marks form a chain");
                self.settled = mark.upto.0;
                self.voids.extend(mark.voids.iter().map(|void| void.0));
            }
            Control::Heartbeat(beat) => {
                self.echo = beat.clock;
                self.pending.push(beat);
            }
            _ => {}
        }
        self.validate();
    }

    fn validate(&mut self) {
        let reach = Stamp(self.durable().min(self.settled));
        let (valid, pending) = self
            .pending
            .drain(..)
            .partition(|beat| beat.captured <= reach);
        self.pending = pending;
        self.valid.extend::<Vec<Heartbeat>>(valid);
    }

    fn ack(&self) -> Ack {
        let durable = Stamp(self.durable());
        Ack {
            received: durable,
            durable,
            settled: Stamp(self.settled),
            applied: durable.min(Stamp(self.settled)),
            echo: self.echo,
            ..Ack::default()
        }
    }

    /// The durable prefix with its marks, lifted once more as the protocol says.
    fn lifted(&self) -> Vec<(u64, TimeMark)> {
        let mut last = TimeMark(0);
        let durable = self.records.range(..=self.durable());
        let lift = |(stamp, mark): (&u64, &TimeMark)| {
            last = mark.lifted_above(last);
            (*stamp, last)
        };
        durable.map(lift).collect()
    }

    fn check_promises(&self) {
        let marks = self.lifted();
        for beat in &self.valid {
            let above = marks.get(beat.captured.0 as usize);
            assert!(
                above.is_none_or(|(_, mark)| *mark > beat.clock),
                "{beat:?} kept its word"
            );
        }
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    /// The disk answers for the pending record with this index, with an error now and then.
    Answer(u8, bool),
    /// The batch with this index arrives, and stays in flight: it may arrive again.
    Arrive(u8),
    /// The transport delivers the batch with this index.
    Deliver(u8),
    /// The receiver reads so many control messages.
    Read(u8),
    Ack,
    Pass(u16),
    /// The clock is set, forward or back.
    SetClock(i8),
    Cut,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..20).prop_map(Step::Write),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(at, well)| Step::Answer(at, well)),
        3 => any::<u8>().prop_map(Step::Arrive),
        8 => any::<u8>().prop_map(Step::Deliver),
        6 => (1u8..5).prop_map(Step::Read),
        4 => Just(Step::Ack),
        4 => (1u16..1500).prop_map(Step::Pass),
        1 => any::<i8>().prop_map(Step::SetClock),
        1 => Just(Step::Cut),
        1 => Just(Step::Restart),
    ]
}

struct Run {
    world: World,
    receiver: Receiver,
}

impl Run {
    fn take(&mut self, step: Step) {
        let (world, receiver) = (&mut self.world, &mut self.receiver);
        match step {
            Step::Write(count) => world.write(count.into(), 64 << 10),
            Step::Answer(at, is_well) => {
                let pending = |(_, answer): &&mut (_, Answer)| *answer == Answer::Pending;
                let mut open = world.ring.iter_mut().filter(pending).take(8);
                if let Some((_, answer)) = open.nth(usize::from(at) % 8) {
                    *answer = if is_well || at < 200 {
                        Answer::Well
                    } else {
                        Answer::Error
                    };
                }
            }
            Step::Arrive(at) if !world.batches.is_empty() => {
                let at = usize::from(at) % world.batches.len();
                receiver.batch(&world.batches[at]);
            }
            Step::Deliver(at) if !world.batches.is_empty() && world.is_open => {
                let batch = world
                    .batches
                    .swap_remove(usize::from(at) % world.batches.len());
                receiver.batch(&batch);
                let bytes = batch.bytes();
                world.event(Event::Delivered { bytes });
            }
            Step::Read(count) => {
                for message in world
                    .control
                    .drain(..usize::from(count).min(world.control.len()))
                {
                    receiver.control(message);
                }
            }
            Step::Ack if world.is_open => world.acknowledge(receiver.ack()),
            Step::Pass(ms) => world.pass(Duration::from_millis(ms.into())),
            Step::SetClock(seconds) => {
                let by = i64::from(seconds) * 1_000_000_000;
                world.wall_ns = world.wall_ns.saturating_add_signed(by);
            }
            Step::Cut if world.is_open => self.cut(),
            Step::Restart => self.restart(),
            _ => {}
        }
        self.reconnect();
        self.world.tick();
        self.check();
    }

    /// The connection ends; what was on its way is lost.
    fn cut(&mut self) {
        self.world.batches.clear();
        self.world.control.clear();
        self.world.lose("cut");
    }

    /// The shipper is killed and started again; the tap and its ring stay.
    fn restart(&mut self) {
        let old = &mut self.world;
        let mut new = World::with(Config {
            acked: Stamp(old.acked),
            captured: Stamp(old.ring.len() as u64),
            ..super::world::config()
        });
        new.ring = std::mem::take(&mut old.ring);
        (new.acked, new.now, new.wall_ns) = (old.acked, old.now, old.wall_ns);
        new.is_first_shipper = false;
        self.world = new;
    }

    /// A connection comes about whenever the session wants one.
    fn reconnect(&mut self) {
        if self.world.is_connecting {
            self.world.control.clear();
            self.world.batches.clear();
            self.world.event(Event::Connected);
            self.world.hello();
            let answer = self.receiver.hello_ack();
            self.world.event(Event::Control(Control::HelloAck(answer)));
        }
    }

    fn check(&self) {
        let holds = self.receiver.durable().min(self.receiver.settled);
        assert!(
            self.world.acked <= holds,
            "the ring keeps what the receiver does not hold"
        );
        self.receiver.check_promises();
    }

    /// Faults stop: everything must arrive.
    fn heal(&mut self) {
        let all = self.world.ring.len();
        self.world.settle(all as u64);
        for _ in 0..400 {
            self.take(Step::Pass(100));
            while !self.world.batches.is_empty() && self.world.is_open {
                self.take(Step::Deliver(0));
            }
            self.take(Step::Read(255));
            self.take(Step::Ack);
        }
        assert_eq!(self.receiver.durable(), all as u64, "every record arrives");
        assert_eq!(self.world.acked, all as u64, "and the ring is freed");
        let void = |(header, answer): &(RecordHeader, Answer)| {
            (*answer == Answer::Error).then_some(header.stamp.0)
        };
        let voids: BTreeSet<u64> = self.world.ring.iter().filter_map(void).collect();
        assert_eq!(self.receiver.voids, voids, "and the void ones are named");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_the_schedule_the_receiver_ends_with_every_record_once(
        steps in proptest::collection::vec(step(), 1..120)
    ) {
        let mut run = Run {
            world: World::new(),
            receiver: Receiver::default(),
        };
        for step in steps {
            run.take(step);
        }
        run.heal();
    }
}
