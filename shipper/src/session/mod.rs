//! The source's end of a link session, as a state machine without I/O.
//!
//! Owned by the driver, which feeds it [`Event`]s and does what its [`Output`]s say; the simulator
//! does the same. Time, the claim cursor and a seed for jitter are arguments. `docs/protocol.md` is
//! what it speaks.
//!
//! It promises: records leave in stamp order, each batch contiguous, from where the receiver's
//! durable prefix ends (P8); nothing is sent that was not announced; what is on its way is bounded
//! (P11); the ring is told to free only what is durable, settle mark included (P5); a receiver that
//! acknowledges what it cannot have is not believed; and when faults stop, a session comes back by
//! itself (P12).
//!
//! It does not read the ring, compute checksums, or know sockets.

mod acks;
mod backoff;
mod error;
mod event;
mod greeting;
mod marks;
mod up;
mod volumes;

pub use error::Violation;
pub use event::{Batch, Config, Event, Loss, Moment, Output};

use backoff::Backoff;
use marks::Marks;
use ring::handoff::{self, LinkReport, LinkState, ToTap};
use std::collections::VecDeque;
use std::time::Duration;
use up::Up;
use volumes::VolumeTable;
use wire::control::{Ack, Control};
use wire::{RecordHeader, Stamp, VolumeIndex, VolumeSpec};

/// How long a receiver may take to answer a hello.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// Time between two heartbeats.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Silence on the control stream after which a session is given up.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Time between two attempts while the receiver refuses.
pub const REFUSED_WAIT: Duration = Duration::from_secs(5);
/// A session this old makes the waits short again.
pub const SETTLED_SESSION: Duration = Duration::from_secs(5);
/// Time in which a receiver's wish for a copy counts once, however often it is made.
pub const WISH_INTERVAL: Duration = Duration::from_secs(1);
/// Batches sent and not yet acknowledged by the transport.
pub const IN_FLIGHT_BATCHES_MAX: usize = 64;
/// Their bytes, give or take one batch.
pub const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;

/// One source, one ring, one receiver.
#[derive(Debug)]
pub struct Session {
    config: Config,
    volumes: VolumeTable,
    marks: Marks,
    backoff: Backoff,
    state: State,
    /// Nothing above was ever handed to a transport, whichever shipper it was.
    sent_at_most: Stamp,
    /// The newest stamp the tap was told to free.
    acked: Stamp,
    is_tap_gone: bool,
    told: Option<LinkReport>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    Waiting { until: Duration },
    Connecting,
    Greeting { until: Duration, oldest: Stamp },
    Up(Box<Up>),
    Stopped,
}

impl Session {
    /// A session that wants to connect.
    pub fn new(config: Config) -> Self {
        let mut session = Self {
            volumes: VolumeTable::new(config.volumes.clone()),
            marks: Marks::default(),
            backoff: Backoff::new(config.seed),
            state: State::Waiting {
                until: Duration::ZERO,
            },
            sent_at_most: config.captured.max(config.acked),
            acked: config.acked,
            is_tap_gone: false,
            told: None,
            outputs: VecDeque::new(),
            config,
        };
        session.report(LinkState::Connecting, "");
        session
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Moment, event: Event<'_>) {
        match event {
            Event::Connected => self.connected(now),
            Event::Lost(loss) => self.lost(now, &loss),
            Event::Control(message) => self.control(now, message),
            Event::Filled(records) => self.filled(records),
            Event::Settled { upto, voids } => self.settled(upto, voids),
            Event::Delivered { bytes } => self.with_up(|up| up.delivered(bytes)),
            Event::Recycled { freed } => self.recycled(now, freed),
            Event::Volumes(volumes) => self.volumes_changed(now, volumes),
            Event::TapGone => self.is_tap_gone = true,
            Event::Stop => self.stop(),
            Event::Tick => {}
        }
        self.maintain(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the session wants a tick at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Waiting { until } | State::Greeting { until, .. } => Some(*until),
            State::Up(up) => Some(up.deadline(self.is_tap_gone)),
            State::Connecting | State::Stopped => None,
        }
    }

    /// After which stamp filled records are wanted now, if any are.
    pub fn reading(&self) -> Option<Stamp> {
        match &self.state {
            State::Up(up) if up.has_room() => Some(up.sent),
            _ => None,
        }
    }

    /// After which stamp, and how many records far, settle states are wanted now.
    pub fn settling(&self) -> Option<(Stamp, usize)> {
        match &self.state {
            State::Up(up) => up.settling(),
            _ => None,
        }
    }

    /// Whether nothing more can be done for a tap that is gone, given that the ring has nothing new.
    pub fn is_drained(&self) -> bool {
        match &self.state {
            State::Up(up) => up.is_drained(),
            _ => true,
        }
    }

    fn control(&mut self, now: Moment, message: Control) {
        if matches!(self.state, State::Up(_)) {
            return self.control_up(now, message);
        }
        let State::Greeting { oldest, .. } = self.state else {
            return;
        };
        match message {
            Control::HelloAck(ack) => self.greeted(now, &ack, oldest),
            Control::Refusal(refusal) => self.hold(now, &refusal.text),
            Control::Bye(reason) => self.give_up(now, &format!("the receiver said: {reason}")),
            _ => self.violated(now, &Violation::Unexpected),
        }
    }

    fn control_up(&mut self, now: Moment, message: Control) {
        self.with_up(|up| up.heard(now.elapsed));
        match message {
            Control::Ack(ack) => self.acknowledged(now, &ack),
            Control::Notice(text) => self.report(LinkState::Up, &text),
            Control::Bye(reason) => self.give_up(now, &format!("the receiver said: {reason}")),
            Control::CopyWanted(wanted) => match wanted.volume {
                Some(index) if !self.volumes.is_announced(index) => {
                    self.violated(now, &Violation::UnknownVolume(index.0));
                }
                volume => self.wish(now, volume, wanted.reason),
            },
            _ => self.violated(now, &Violation::Unexpected),
        }
    }

    fn acknowledged(&mut self, now: Moment, ack: &Ack) {
        let State::Up(up) = &mut self.state else {
            return;
        };
        match up.acknowledged(now.wall, ack) {
            Ok(None) => {}
            Ok(Some(progress)) => {
                self.push(Output::Tell(ToTap::Progress(progress)));
                self.raise_acked();
            }
            Err(violation) => self.violated(now, &violation),
        }
    }

    fn filled(&mut self, records: &[RecordHeader]) {
        let State::Up(up) = &mut self.state else {
            return;
        };
        while let Some(batch) = up.next_batch(records, &self.volumes, &mut self.marks) {
            self.sent_at_most = self.sent_at_most.max(up.sent);
            self.outputs.push_back(Output::Sent(up.sent));
            self.outputs.push_back(Output::Batch(batch));
        }
    }

    fn settled(&mut self, upto: Stamp, voids: &[Stamp]) {
        let State::Up(up) = &mut self.state else {
            return;
        };
        if let Some(mark) = up.settled(upto, voids) {
            self.push(Output::Send(Control::Settle(mark)));
        }
        self.raise_acked();
    }

    fn recycled(&mut self, now: Moment, freed: Stamp) {
        if !matches!(self.state, State::Up(_)) {
            return;
        }
        self.acked = self.acked.max(freed);
        self.sent_at_most = self.sent_at_most.max(freed);
        self.want_copy(
            None,
            format!("the ring freed record {freed}, which the receiver does not have"),
        );
        let reason = "the source's ring was freed early";
        self.push(Output::Send(Control::Bye(reason.into())));
        self.give_up(now, reason);
    }

    fn volumes_changed(&mut self, now: Moment, volumes: Vec<VolumeSpec>) {
        if !self.volumes.change(volumes, now.captured) {
            return;
        }
        if matches!(self.state, State::Greeting { .. } | State::Up(_)) {
            let reason = "the source's volumes have changed";
            self.push(Output::Send(Control::Bye(reason.into())));
            self.push(Output::Close(reason.into()));
            self.state = State::Waiting { until: now.elapsed };
        }
    }

    /// Closes after a refusal, of whichever side, and tries again later.
    fn hold(&mut self, now: Moment, reason: &str) {
        self.push(Output::Close(reason.into()));
        self.report(LinkState::Refused, reason);
        let until = now.elapsed + self.backoff.jittered(REFUSED_WAIT);
        self.state = State::Waiting { until };
    }

    fn lost(&mut self, now: Moment, loss: &Loss) {
        if matches!(self.state, State::Waiting { .. } | State::Stopped) {
            return;
        }
        if loss.is_refusal {
            self.hold(now, &loss.reason);
        } else {
            self.give_up(now, &loss.reason);
        }
    }

    fn violated(&mut self, now: Moment, violation: &Violation) {
        let reason = violation.to_string();
        self.push(Output::Send(Control::Bye(reason.clone())));
        self.give_up(now, &reason);
    }

    /// Ends the connection and waits before the next.
    fn give_up(&mut self, now: Moment, reason: &str) {
        if let State::Up(up) = &self.state
            && up.age(now.elapsed) >= SETTLED_SESSION
        {
            self.backoff.reset();
        }
        self.push(Output::Close(reason.into()));
        self.report(LinkState::Down, reason);
        let until = now.elapsed + self.backoff.next_wait();
        self.state = State::Waiting { until };
    }

    fn stop(&mut self) {
        if matches!(self.state, State::Greeting { .. } | State::Up(_)) {
            let reason = "the source stops";
            self.push(Output::Send(Control::Bye(reason.into())));
        }
        self.push(Output::Close("the source stops".into()));
        self.state = State::Stopped;
    }

    /// What time alone brings about.
    fn maintain(&mut self, now: Moment) {
        match &mut self.state {
            State::Waiting { until } if now.elapsed >= *until => {
                self.state = State::Connecting;
                self.push(Output::Connect);
            }
            State::Greeting { until, .. } if now.elapsed >= *until => {
                self.give_up(now, "the receiver did not answer the hello");
            }
            State::Up(up) if up.is_silent(now.elapsed) => {
                let reason = "the receiver fell silent";
                self.push(Output::Send(Control::Bye(reason.into())));
                self.give_up(now, reason);
            }
            State::Up(up) if !self.is_tap_gone => {
                if let Some(beat) = up.beat(now, &mut self.marks) {
                    self.push(Output::Send(Control::Heartbeat(beat)));
                }
            }
            _ => {}
        }
    }

    /// Lets the tap free what is durable, settle mark included.
    fn raise_acked(&mut self) {
        let State::Up(up) = &self.state else { return };
        let safe = up.safe_to_free();
        if safe > self.acked {
            assert!(safe <= up.sent, "only what was sent can be durable");
            self.acked = safe;
            self.marks.forget_below(safe);
            self.push(Output::Acked(safe));
        }
    }

    /// Passes a receiver's wish on, unless it has just made the same.
    fn wish(&mut self, now: Moment, volume: Option<VolumeIndex>, reason: String) {
        if let State::Up(up) = &mut self.state
            && up.is_new_wish(now.elapsed, volume)
        {
            self.want_copy(volume, reason);
        }
    }

    fn want_copy(&mut self, volume: Option<VolumeIndex>, reason: String) {
        let wanted = handoff::CopyWanted { volume, reason };
        self.push(Output::Tell(ToTap::CopyWanted(wanted)));
    }

    /// Tells the tap how the link stands, when that is new.
    fn report(&mut self, state: LinkState, reason: &str) {
        let report = LinkReport {
            state,
            reason: reason.into(),
            peer: self.config.peer.clone(),
        };
        if self.told.as_ref() != Some(&report) {
            self.told = Some(report.clone());
            self.push(Output::Tell(ToTap::Link(report)));
        }
    }

    fn with_up(&mut self, change: impl FnOnce(&mut Up)) {
        if let State::Up(up) = &mut self.state {
            change(up);
        }
    }

    fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }
}

#[cfg(test)]
mod tests;
