//! The shipper's loop, played: the session as it is, the ring read as it reads it.

use super::World;
use super::events::Event;
use super::link::Mail;
use super::source::{group_name, source_name, spec};
use crate::faults::MS;
use crate::planted::{Bug, is};
use crate::probes::Probe;
use bytes::Bytes;
use ring::Consumer;
use ring::handoff::ToTap;
use shipper::drive::RingReader;
use shipper::session::{Batch, Config, Event as Told, Loss, Moment, Output, Session};
use std::time::Duration;
use wire::control::Control;
use wire::{BATCH_HEADER_BYTES, BatchHeader, Generation, RecordKind, Stamp};

/// A shipper at work.
pub(super) struct Shipper {
    /// Its number.
    pub(super) id: u64,
    session: Session,
    ring: RingReader,
    /// Its connection.
    pub(super) link: Option<u64>,
    /// When it works next.
    wake_ns: u64,
    /// It stands still until then.
    pub(super) stalled_ns: u64,
}

impl World {
    /// A shipper begins for the tap of this life.
    pub(super) fn start_shipper(&mut self) {
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        if tap.shipper.is_some() {
            return;
        }
        let fds = tap.ring.consumer_fds().expect("descriptors of the ring");
        let consumer = match Consumer::open(fds) {
            Ok(consumer) => consumer,
            Err(error) => return self.fail(format!("a shipper cannot open the ring: {error}")),
        };
        let captured = match consumer.captured() {
            Ok(captured) => captured,
            Err(fault) => return self.fail(format!("the ring is not believed: {fault}")),
        };
        let freed = consumer.freed();
        let acked = consumer.acked();
        let acked = if acked > captured { freed } else { acked };
        let volumes = self.mix.volumes.iter().enumerate();
        let session = Session::new(Config {
            source: source_name(),
            group: group_name(),
            incarnation: consumer.incarnation(),
            ring_slots: consumer.slots(),
            generation: Generation::default(),
            volumes: volumes.map(|(n, sectors)| spec(n, *sectors)).collect(),
            acked: acked.max(freed),
            captured,
            peer: "receiver".into(),
            seed: self.dice.roll(u64::MAX),
        });
        self.source.next_shipper += 1;
        let id = self.source.next_shipper;
        tap.shipper = Some(Shipper {
            id,
            session,
            ring: RingReader::new(consumer),
            link: None,
            wake_ns: 0,
            stalled_ns: 0,
        });
        tap.durable = tap.ring.acked();
        if std::mem::take(&mut tap.resets) {
            tap.ring.reset_acked();
        }
        self.wake_shipper(0);
    }

    /// The shipper is gone, and its connection with it.
    pub(super) fn drop_shipper(&mut self) {
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        if let Some(shipper) = tap.shipper.take()
            && let Some(link) = shipper.link
        {
            self.break_link(link, false);
        }
        let words = "the shipper is gone".into();
        self.tell_core(ublk_tap::group::CoreEvent::Link {
            is_up: false,
            words,
        });
    }

    /// Has the shipper work, at the latest in so long.
    pub(super) fn wake_shipper(&mut self, after_ns: u64) {
        let now = self.clock.now_ns;
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        let Some(shipper) = &mut tap.shipper else {
            return;
        };
        let at = (now + after_ns).max(shipper.stalled_ns);
        if shipper.wake_ns > now && shipper.wake_ns <= at {
            return;
        }
        shipper.wake_ns = at;
        let event = Event::Ship {
            shipper: shipper.id,
        };
        self.after(at - now, event);
    }

    /// The shipper works: time has passed, the ring may have more.
    pub(super) fn ship_event(&mut self) {
        self.tell_session(Told::Tick);
        while self.ship_some() | self.settle_some() {}
        let up = self.clock.up();
        let Some(shipper) = self.shipper() else {
            return;
        };
        let deadline = shipper
            .session
            .deadline()
            .unwrap_or(up + Duration::from_secs(60));
        let wait = deadline.saturating_sub(up).as_nanos() as u64;
        self.wake_shipper(wait.max(MS / 10));
    }

    pub(super) fn shipper(&mut self) -> Option<&mut Shipper> {
        self.source.tap.as_mut()?.shipper.as_mut()
    }

    fn moment(&mut self) -> Option<Moment> {
        let clock = self.clock;
        let consumer = self.shipper()?.ring.consumer();
        let is_closed = consumer.is_closed();
        let captured = consumer.captured();
        let captured = captured
            .map_err(|fault| self.fail(fault.to_string()))
            .ok()?;
        Some(Moment {
            elapsed: clock.up(),
            wall: clock.source(),
            captured,
            is_closed,
        })
    }

    /// Tells the session and does what it says.
    pub(super) fn tell_session(&mut self, told: Told<'_>) {
        let Some(moment) = self.moment() else { return };
        let Some(shipper) = self.shipper() else {
            return;
        };
        shipper.session.handle(moment, told);
        self.obey();
    }

    fn ship_some(&mut self) -> bool {
        let Some(moment) = self.moment() else {
            return false;
        };
        let Some(shipper) = self.shipper() else {
            return false;
        };
        let Some(after) = shipper.session.reading() else {
            return false;
        };
        let peeked = match shipper.ring.peek(after) {
            Ok(records) => {
                shipper.session.handle(moment, Told::Filled(records));
                Ok(())
            }
            Err(fault) => Err(fault),
        };
        match peeked {
            Ok(()) => self.obey(),
            Err(fault) => self.ring_fault(fault),
        }
        self.shipper()
            .is_some_and(|it| it.session.reading().is_some_and(|now| now != after))
    }

    fn settle_some(&mut self) -> bool {
        let Some(moment) = self.moment() else {
            return false;
        };
        let Some(shipper) = self.shipper() else {
            return false;
        };
        let Some((after, count)) = shipper.session.settling() else {
            return false;
        };
        match shipper.ring.scan(after, count) {
            Ok((upto, _)) if upto == after => return false,
            Ok((upto, voids)) => {
                shipper
                    .session
                    .handle(moment, Told::Settled { upto, voids });
            }
            Err(fault) => {
                self.ring_fault(fault);
                return false;
            }
        }
        self.obey();
        true
    }

    fn ring_fault(&mut self, fault: ring::RingFault) {
        match fault {
            ring::RingFault::Recycled { freed, .. } => {
                self.tell_session(Told::Recycled { freed });
            }
            fault => self.fail(format!("the shipper does not believe the ring: {fault}")),
        }
    }

    fn obey(&mut self) {
        while let Some(output) = self.shipper().and_then(|shipper| shipper.session.poll()) {
            match output {
                Output::Connect => self.connect(),
                Output::Send(message) => self.send(message),
                Output::Batch(batch) => self.ship(&batch),
                Output::Close(reason) => self.hang_up(&reason),
                Output::Sent(stamp) => self.set_sent(stamp),
                Output::Acked(stamp) => self.set_acked(stamp),
                Output::Tell(said) => self.tell_tap(said),
            }
        }
    }

    fn tell_tap(&mut self, said: ToTap) {
        self.line(|| format!("shipper: {said:?}"));
        if let Some(tap) = &mut self.source.tap {
            tap.mail.push_back(said);
        }
    }

    fn set_sent(&mut self, stamp: Stamp) {
        if let Some(shipper) = self.shipper() {
            shipper.ring.consumer().set_sent(stamp);
        }
    }

    fn set_acked(&mut self, stamp: Stamp) {
        let counter = self.source.incarnation.counter;
        let Some(shipper) = self.shipper() else {
            return;
        };
        let mut stamp = stamp;
        if is(Bug::FreedTooFar) {
            stamp = shipper.ring.consumer().sent();
        }
        shipper.ring.consumer().set_acked(stamp);
        self.checks += 1;
        let held = self.site.durable_prefix(counter);
        if stamp > held {
            self.fail(format!(
                "P5: the ring may free record {stamp}, the receiver holds {held} durably"
            ));
        }
        if let Some(tap) = &self.source.tap {
            tap.parking.kick();
        }
    }

    fn send(&mut self, message: Control) {
        let Some(link) = self.shipper().and_then(|shipper| shipper.link) else {
            return;
        };
        let message = match message {
            Control::Settle(_) if is(Bug::SettleMarkDropped) && self.dice.roll(20) == 0 => return,
            Control::Settle(mut mark) if is(Bug::VoidShippedAsSettled) => {
                mark.voids.clear();
                Control::Settle(mark)
            }
            message => message,
        };
        self.tell_receiver(link, Mail::Control(message));
    }

    fn ship(&mut self, batch: &Batch) {
        let Some(shipper) = self.shipper() else {
            return;
        };
        let Some(link) = shipper.link else { return };
        let bytes = match shipper.ring.assemble(batch) {
            Ok(bytes) => bytes,
            Err(fault) => return self.ring_fault(fault),
        };
        let bytes = self.plant_in_batch(bytes);
        self.send_batch(link, bytes, batch.bytes());
    }

    /// Bugs a shipper might have in what it assembles.
    fn plant_in_batch(&mut self, bytes: Bytes) -> Bytes {
        let rewrites = is(Bug::RecordRewritten) && self.dice.roll(20) == 0;
        let swaps = is(Bug::OrderSwapped) && self.dice.roll(10) == 0;
        if !rewrites && !swaps {
            return bytes;
        }
        let head = bytes
            .first_chunk::<BATCH_HEADER_BYTES>()
            .map(BatchHeader::parse);
        let Some(Ok(head)) = head else { return bytes };
        let Ok(records) = receiver::session::split(&head, bytes.slice(BATCH_HEADER_BYTES..)) else {
            return bytes;
        };
        let mut records: Vec<_> = records.into_iter().map(|(h, p)| (h, p.to_vec())).collect();
        let is_write = |kind| kind == RecordKind::Write;
        let pair = records
            .windows(2)
            .position(|two| is_write(two[0].0.kind) && is_write(two[1].0.kind));
        if let Some(at) = pair {
            if swaps {
                let (first, second) = (records[at].0, records[at + 1].0);
                records.swap(at, at + 1);
                (records[at].0.stamp, records[at].0.mark) = (first.stamp, first.mark);
                (records[at + 1].0.stamp, records[at + 1].0.mark) = (second.stamp, second.mark);
            } else {
                records[at].1[100] ^= 1;
            }
        }
        let mut out = head.to_bytes().to_vec();
        for (header, payload) in records {
            out.extend_from_slice(&header.sealed(&payload).to_bytes());
            out.extend_from_slice(&payload);
        }
        out.into()
    }

    /// The connection is over, as far as the shipper sees.
    pub(super) fn tell_lost(&mut self, link: u64, reason: &str) {
        let Some(shipper) = self.shipper().filter(|shipper| shipper.link == Some(link)) else {
            return;
        };
        shipper.link = None;
        self.tell_session(Told::Lost(Loss {
            is_refusal: false,
            reason: reason.into(),
        }));
        self.wake_shipper(0);
    }

    /// Something the receiver said has come.
    pub(super) fn heard(&mut self, link: u64, mail: Mail) {
        let now = self.clock.now_ns;
        let Some(shipper) = self.shipper().filter(|shipper| shipper.link == Some(link)) else {
            return;
        };
        if shipper.stalled_ns > now {
            let wait = shipper.stalled_ns - now;
            return self.after(wait, Event::ToSource { link, mail });
        }
        match mail {
            Mail::Connected => self.tell_session(Told::Connected),
            Mail::Delivered(bytes) => self.tell_session(Told::Delivered { bytes }),
            Mail::Control(message) => {
                self.check_promises(&message);
                if let Control::HelloAck(ack) = &message
                    && ack.resume > Stamp::ZERO
                {
                    self.reached.reach(Probe::Resumed);
                }
                self.tell_session(Told::Control(message));
            }
            Mail::Lost(reason) => return self.tell_lost(link, &reason),
            Mail::Batch(_) => {}
        }
        self.wake_shipper(0);
    }
}
