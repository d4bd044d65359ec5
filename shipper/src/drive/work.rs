//! The loop: events in, outputs done, the ring read in between.

use super::line::{EVENTS_MAX, Line, LineEvent};
use super::ring_reader::{RingBell, RingReader};
use super::tap_end::TapEnd;
use super::{DRAIN_PATIENCE, POLL_INTERVAL, SLEEP_AFTER};
use crate::session::{Batch, Config, Event, Loss, Moment, Output, Session};
use ring::RingFault;
use ring::handoff::{LinkState, ToTap, Welcome};
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use wire::{Name, TimeMark};

/// Why the work for a ring ended.
#[derive(Debug)]
pub enum Ending {
    /// The tap has gone; what could be drained is drained.
    TapGone,
    /// This host was enrolled under another name.
    Renamed,
    /// The ring holds what no tap writes.
    Broken(RingFault),
    /// The shipper was asked to stop.
    Stopped,
}

/// A session at work for one tap.
#[derive(Debug)]
pub struct Work {
    session: Session,
    ring: RingReader,
    bell: RingBell,
    line: Line,
    tap: TapEnd,
    start: Instant,
    /// The ring is polled until then, and slept on after.
    busy_until: Instant,
    /// Set once the tap has gone: when draining ends at the latest.
    drain_until: Option<Instant>,
}

/// How long to wait for events.
struct Pause {
    until: Instant,
    is_asleep: bool,
    /// The ring holds more than a turn takes.
    has_more: bool,
}

/// What a look at the ring found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// All there was.
    All,
    More,
}

/// Most looks at the ring in one turn; each is about a batch.
const STEPS_PER_TURN: usize = 4;

impl Work {
    /// Work for the ring and tap of `welcome`, as `source`, with the enrolment below `config`.
    pub fn new(
        welcome: Welcome,
        (ring, bell): (RingReader, RingBell),
        tap: TapEnd,
        config: PathBuf,
        (source, peer): (Name, String),
    ) -> Result<Self, RingFault> {
        let consumer = ring.consumer();
        let (freed, captured) = (consumer.freed(), consumer.captured()?);
        // An earlier shipper's word counts as far as it can be true.
        let acked = consumer.acked();
        let acked = if acked > captured { freed } else { acked };
        let session = Session::new(Config {
            source: source.clone(),
            group: welcome.group,
            incarnation: consumer.incarnation(),
            ring_slots: consumer.slots(),
            generation: welcome.generation,
            volumes: welcome.volumes,
            acked: acked.max(freed),
            captured,
            peer,
            seed: seed(),
        });
        let start = Instant::now();
        Ok(Self {
            session,
            ring,
            bell,
            line: Line::new(config, source),
            tap,
            start,
            busy_until: start,
            drain_until: None,
        })
    }

    /// Works until the tap goes, or `stop` comes true.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Ending {
        let ended = {
            let working = async {
                loop {
                    if let Err(ending) = self.turn().await {
                        return ending;
                    }
                }
            };
            tokio::select! {
                ending = working => ending,
                () = stop => Ending::Stopped,
            }
        };
        if self.handle(Event::Stop).is_ok() {
            let _ = self.obey().await;
        }
        self.line.closed().await;
        ended
    }

    /// Reads the ring, then waits for one event and takes it.
    async fn turn(&mut self) -> Result<(), Ending> {
        self.handle(Event::Tick)?;
        self.obey().await?;
        let pause = self.prepare_pause().await?;
        if self.is_done() {
            return Err(Ending::TapGone);
        }
        let is_tap_there = self.drain_until.is_none();
        let has_more = pause.has_more;
        tokio::select! {
            biased;
            event = self.line.next() => self.take_all(event)?,
            message = self.tap.volumes(), if is_tap_there => match message {
                Ok(message) => self.handle(Event::Volumes(message.volumes))?,
                Err(error) => {
                    tracing::info!("tap: {error}");
                    self.drain_until = Some(Instant::now() + DRAIN_PATIENCE);
                    self.handle(Event::TapGone)?;
                }
            },
            () = self.tap.writable(), if is_tap_there => self.tap.flush(),
            () = tokio::task::yield_now(), if has_more => {}
            () = rest(&self.bell, &pause) => self.busy_until = Instant::now() + SLEEP_AFTER,
            () = tokio::time::sleep_until(pause.until) => {}
        }
        if pause.is_asleep {
            self.ring.consumer().cancel_sleep();
        }
        Ok(())
    }

    /// Reads what there is; says how long to wait for more, and whether to sleep meanwhile.
    async fn prepare_pause(&mut self) -> Result<Pause, Ending> {
        let found = self.read_ring().await?;
        let now = Instant::now();
        if found != Found::Nothing {
            self.busy_until = now + SLEEP_AFTER;
        }
        let deadline = self.session.deadline().map(|at| self.start + at);
        let deadline = deadline.unwrap_or(now + Duration::from_secs(3600));
        let pause = |at: Instant, is_asleep| Pause {
            until: at.min(deadline),
            is_asleep,
            has_more: found == Found::More,
        };
        let is_watching = self.session.reading().is_some() || self.session.settling().is_some();
        if !is_watching && self.drain_until.is_none() {
            return Ok(pause(deadline, false));
        }
        if now < self.busy_until || self.drain_until.is_some() {
            return Ok(pause(now + POLL_INTERVAL, false));
        }
        self.ring.consumer().prepare_sleep();
        if self.read_ring().await? != Found::Nothing {
            self.ring.consumer().cancel_sleep();
            self.busy_until = Instant::now() + SLEEP_AFTER;
            return Ok(pause(now + POLL_INTERVAL, false));
        }
        Ok(pause(deadline, true))
    }

    /// Whether a tap that has gone left nothing more to do.
    fn is_done(&self) -> bool {
        let is_over = |until: Instant| Instant::now() >= until || self.session.is_drained();
        self.drain_until.is_some_and(is_over)
    }

    /// Takes an event and all that have come with it: one a turn, acks would queue behind batches.
    fn take_all(&mut self, first: LineEvent) -> Result<(), Ending> {
        self.take(first)?;
        for _ in 0..EVENTS_MAX {
            let Some(next) = self.line.try_next() else {
                break;
            };
            self.take(next)?;
        }
        Ok(())
    }

    fn take(&mut self, event: LineEvent) -> Result<(), Ending> {
        match event {
            LineEvent::Connected => self.handle(Event::Connected),
            LineEvent::Control(message) => self.handle(Event::Control(message)),
            LineEvent::Delivered { bytes } => self.handle(Event::Delivered { bytes }),
            LineEvent::Lost(loss) => self.handle(Event::Lost(loss)),
            LineEvent::Renamed => Err(Ending::Renamed),
        }
    }

    /// Gives the session what the ring has, as far as it wants it.
    ///
    /// A record and its settle mark go out side by side, a few batches a turn: neither waits until
    /// the other has caught up, and the receiver is heard in between.
    async fn read_ring(&mut self) -> Result<Found, Ending> {
        for step in 0..STEPS_PER_TURN {
            let (shipped, settled) = (self.ship_some().await?, self.settle_some().await?);
            if !shipped && !settled {
                return Ok(if step == 0 {
                    Found::Nothing
                } else {
                    Found::All
                });
            }
        }
        Ok(Found::More)
    }

    async fn ship_some(&mut self) -> Result<bool, Ending> {
        let Some(after) = self.session.reading() else {
            return Ok(false);
        };
        let moment = self.moment()?;
        match self.ring.peek(after) {
            Ok(records) => self.session.handle(moment, Event::Filled(records)),
            Err(fault) => self.fault(fault)?,
        }
        self.obey().await?;
        Ok(self.session.reading() != Some(after))
    }

    async fn settle_some(&mut self) -> Result<bool, Ending> {
        let Some((after, count)) = self.session.settling().filter(|_| self.line.has_room()) else {
            return Ok(false);
        };
        let moment = self.moment()?;
        let upto = match self.ring.scan(after, count) {
            Ok((upto, _)) if upto == after => return Ok(false),
            Ok((upto, voids)) => {
                self.session.handle(moment, Event::Settled { upto, voids });
                upto
            }
            Err(fault) => {
                self.fault(fault)?;
                after
            }
        };
        self.obey().await?;
        Ok(upto > after)
    }

    /// Does what the session wants, and lets the connection work in between.
    async fn obey(&mut self) -> Result<(), Ending> {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Connect => self.line.connect(),
                Output::Send(message) => self.say(message)?,
                Output::Batch(batch) => {
                    self.ship(&batch)?;
                    tokio::task::yield_now().await;
                }
                Output::Close(reason) => self.line.close(&reason),
                Output::Sent(stamp) => self.ring.consumer().set_sent(stamp),
                Output::Acked(stamp) => self.ring.consumer().set_acked(stamp),
                Output::Tell(message) => self.tell(message),
            }
        }
        Ok(())
    }

    fn say(&mut self, message: wire::control::Control) -> Result<(), Ending> {
        if self.line.send(message) {
            return Ok(());
        }
        self.handle(Event::Lost(Loss {
            is_refusal: false,
            reason: "the receiver does not read its control stream".into(),
        }))
    }

    fn ship(&mut self, batch: &Batch) -> Result<(), Ending> {
        match self.ring.assemble(batch) {
            Ok(bytes) => {
                self.line.batch(bytes, batch.bytes());
                Ok(())
            }
            Err(fault) => self.fault(fault),
        }
    }

    fn tell(&mut self, message: ToTap) {
        match &message {
            // What a receiver says while the link is up goes to status; it could fill a log.
            ToTap::Link(link) if link.state == LinkState::Up && !link.reason.is_empty() => {
                tracing::debug!("receiver: {}", link.reason);
            }
            ToTap::Link(link) => {
                tracing::info!("link to {} {:?} {}", link.peer, link.state, link.reason);
            }
            ToTap::CopyWanted(wanted) => tracing::warn!("copy wanted: {}", wanted.reason),
            ToTap::Progress(_) | ToTap::Generation(_) => {}
        }
        self.tap.tell(message);
    }

    fn fault(&mut self, fault: RingFault) -> Result<(), Ending> {
        match fault {
            RingFault::Recycled { freed, .. } => self.handle(Event::Recycled { freed }),
            RingFault::Corrupt { .. } => Err(Ending::Broken(fault)),
        }
    }

    fn handle(&mut self, event: Event<'_>) -> Result<(), Ending> {
        let moment = self.moment()?;
        self.session.handle(moment, event);
        Ok(())
    }

    /// The clocks first, the ring after. Seen open before and after, it was open at the cursor.
    fn moment(&self) -> Result<Moment, Ending> {
        let elapsed = self.start.elapsed();
        let wall = wall_clock();
        let consumer = self.ring.consumer();
        let was_closed = consumer.is_closed();
        let captured = consumer.captured().map_err(Ending::Broken)?;
        Ok(Moment {
            elapsed,
            wall,
            captured,
            is_closed: was_closed || consumer.is_closed(),
        })
    }
}

/// Sleeps until the tap wakes us, if we declared to sleep; else for ever.
async fn rest(bell: &RingBell, pause: &Pause) {
    if pause.is_asleep {
        bell.woken().await;
    } else {
        std::future::pending().await
    }
}

fn wall_clock() -> TimeMark {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ns = since.map_or(0, |since| since.as_nanos());
    TimeMark(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// Differs between processes; only spreads waits.
fn seed() -> u64 {
    wall_clock().0 ^ u64::from(std::process::id()) << 32
}
