//! The session of the source: what it sends, what it is told.

use super::event::{Now, Output, SessionId};
use super::offset::ClockOffset;
use super::{Event, Group};
use crate::catalog::VolumeState;
use crate::intake::{MARK_MAX, Receipt, STAMP_MAX};
use crate::journal::Entry;
use crate::points::Wanted;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use wire::control::{Ack, Control, CopyWanted, Heartbeat, Hello};
use wire::{Name, RecordHeader, SettleMark, Stamp, TimeMark, VolumeSpec};

/// Most heartbeats whose promise is not yet valid.
const BEATS_MAX: usize = 256;
/// How long a volume that nobody copies waits before the receiver asks for it, and asks again.
const STRAY_WAIT: Duration = Duration::from_secs(5);
const STRAY_WAIT_AGAIN: Duration = Duration::from_secs(60);

/// A session that was accepted.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// Highest stamp it has sent, or need not send.
    pub(super) top: Stamp,
    /// Newest stamp captured, as it last said.
    pub(super) captured: Stamp,
    /// Newest stamp captured when it said hello.
    pub(super) captured_at_hello: Stamp,
    /// The source's clock, as it last said.
    pub(super) clock: TimeMark,
    echo: TimeMark,
    offset: ClockOffset,
    beats: VecDeque<Heartbeat>,
    /// Clock of the newest heartbeat whose promise is valid, and what it covers.
    valid: Option<Heartbeat>,
    /// The volumes the source has.
    volumes: Vec<VolumeSpec>,
    /// When a volume that nobody copies is asked for.
    ask_at: Option<Duration>,
}

impl Session {
    pub(super) fn new(id: SessionId, top: Stamp, hello: &Hello) -> Self {
        Self {
            id,
            top,
            captured: hello.captured,
            captured_at_hello: hello.captured,
            clock: TimeMark(0),
            echo: TimeMark(0),
            offset: ClockOffset::default(),
            beats: VecDeque::new(),
            valid: None,
            volumes: hello.volumes.clone(),
            ask_at: None,
        }
    }

    /// The source's clock minus ours, as far as it is known.
    pub(super) fn clock_offset_s(&self) -> Option<f64> {
        self.offset.seconds()
    }

    fn beat(&mut self, now: Now, beat: Heartbeat) {
        if beat.clock > self.clock {
            self.offset.note(beat.clock, now.wall);
        }
        self.echo = self.echo.max(beat.clock);
        self.clock = self.clock.max(beat.clock);
        self.captured = self.captured.max(beat.captured);
        if self.beats.len() >= BEATS_MAX {
            self.beats.pop_back();
        }
        self.beats.push_back(beat);
    }

    /// The next heartbeat whose promise holds, now that all up to `usable` is durable and settled.
    fn next_valid(&mut self, usable: Stamp) -> Option<Heartbeat> {
        let beat = self.beats.pop_front_if(|beat| beat.captured <= usable)?;
        self.valid = Some(beat);
        Some(beat)
    }
}

impl Group {
    /// What the source is to hear now; nothing is due any more after it.
    pub fn ack(&mut self, now: Now) -> Option<Output> {
        self.ack_due = false;
        let recoverable = self.recoverable().unwrap_or_default();
        let (session, stream) = (self.session.as_ref()?, self.streams.back()?);
        let intake = &stream.intake;
        let durable = intake.durable_prefix().min(session.top);
        let settled = intake.settled();
        let here = self.base.incarnation == stream.incarnation();
        let applied = if here { self.base.applied } else { Stamp::ZERO };
        let ack = Ack {
            received: intake.received().min(session.top).max(durable),
            durable,
            settled,
            applied: applied.min(durable).min(settled),
            recoverable,
            echo: session.echo,
            clock: now.wall,
        };
        Some(Output::Say(session.id, Control::Ack(ack)))
    }

    /// Time of the newest complete point, or of a later sign of life that it covers.
    pub(super) fn recoverable(&self) -> Option<TimeMark> {
        let own = self.points.point()?.mark.max(self.covered);
        Some(self.ceiling().map_or(own, |ceiling| ceiling.min(own)))
    }

    /// Which promises of heartbeats hold by now, and which of them the newest point covers.
    pub(super) fn validate_beats(&mut self) {
        let (Some(stream), Some(session)) = (self.streams.back(), &mut self.session) else {
            return;
        };
        let (usable, here) = (stream.intake.usable(), stream.incarnation());
        let point = self
            .points
            .point()
            .filter(|point| point.incarnation == here);
        let mut beats = Vec::from_iter(session.valid);
        while let Some(beat) = session.next_valid(usable) {
            beats.push(beat);
        }
        for beat in beats {
            self.heard = self.heard.max(beat.clock);
            if point.is_some_and(|point| beat.captured <= point.stamp) {
                self.covered = self.covered.max(beat.clock);
            }
        }
    }

    pub(super) fn records(&mut self, id: SessionId, records: Vec<(RecordHeader, Bytes)>) {
        let Some(session) = self.session.as_mut().filter(|session| session.id == id) else {
            return;
        };
        let Some(stream) = self.streams.back_mut() else {
            return;
        };
        let number = stream.number;
        let mut entries = Vec::with_capacity(records.len());
        let mut violation = None;
        for (header, payload) in records {
            match stream.intake.receive(&header, &payload) {
                Ok(receipt) => {
                    session.top = session.top.max(header.stamp);
                    if receipt == Receipt::New {
                        entries.push(Entry::Record(number, header, payload));
                    }
                }
                Err(found) => {
                    violation = Some(found.to_string());
                    break;
                }
            }
        }
        self.append(number, entries);
        if let Some(text) = violation {
            self.end_session(id, text);
        }
    }

    pub(super) fn settle(&mut self, id: SessionId, mark: &SettleMark) {
        if self.session.as_ref().is_none_or(|session| session.id != id) {
            return;
        }
        let Some(stream) = self.streams.back_mut() else {
            return;
        };
        if let Err(violation) = stream.intake.settle(mark) {
            self.end_session(id, violation.to_string());
        }
    }

    pub(super) fn heartbeat(&mut self, now: Now, id: SessionId, beat: Heartbeat) {
        let Some(session) = self.session.as_mut().filter(|session| session.id == id) else {
            return;
        };
        if beat.captured > STAMP_MAX || beat.clock > MARK_MAX {
            self.end_session(id, "a heartbeat from an impossible time or place".into());
            return;
        }
        session.beat(now, beat);
        self.validate_beats();
        let ack = self.ack(now);
        self.out.extend(ack);
    }

    pub(super) fn ended(&mut self, id: SessionId) {
        if self
            .session
            .as_ref()
            .is_some_and(|session| session.id == id)
        {
            self.session = None;
        }
        if self
            .greeting
            .as_ref()
            .is_some_and(|greeting| greeting.session == id)
        {
            self.greeting = None;
        }
    }

    /// Ends the session, if it still is the one.
    pub(super) fn end_session(&mut self, id: SessionId, text: String) {
        self.ended(id);
        self.out.push_back(Output::End(id, text));
    }

    pub(super) fn end_sessions(&mut self, text: &str) {
        let live = self.session.as_ref().map(|session| session.id);
        let greeting = self.greeting.as_ref().map(|greeting| greeting.session);
        for id in live.into_iter().chain(greeting) {
            self.end_session(id, text.into());
        }
    }

    pub(super) fn dismiss(&mut self, reason: &str) {
        self.end_sessions(reason);
    }

    /// Tells the source what holds the receiver up.
    pub(super) fn notify(&mut self, text: String) {
        if let Some(session) = &self.session {
            self.out
                .push_back(Output::Say(session.id, Control::Notice(text)));
        }
    }

    /// Settle marks that may be journaled now.
    pub(super) fn append_settles(&mut self) {
        let Some(stream) = self.streams.back_mut() else {
            return;
        };
        if stream.intake.closed().is_some() || self.journal_failed.is_some() {
            return;
        }
        let number = stream.number;
        if let Some(mark) = stream.intake.settle_due() {
            self.append(number, vec![Entry::Settle(number, mark)]);
        }
    }

    /// Asks the source for what the points want copied and nobody copies yet.
    pub(super) fn ask_for_copies(&mut self) {
        while let Some(wanted) = self.points.poll_wanted() {
            self.want(wanted);
        }
        if self.session.is_none() {
            return;
        }
        for wanted in std::mem::take(&mut self.wanted) {
            self.ask_for(wanted);
        }
    }

    /// A volume is asked for once, however often it is wanted while no source is there (P11).
    fn want(&mut self, wanted: Wanted) {
        if self
            .wanted
            .iter()
            .all(|known| known.volume != wanted.volume)
        {
            self.wanted.push_back(wanted);
        }
    }

    fn ask_for(&mut self, wanted: Wanted) {
        let Some(session) = &self.session else { return };
        let idle = |name: &Name| is_stray(self.points.state(name));
        let reason = wanted.reason;
        let ask = |volume| {
            Control::CopyWanted(CopyWanted {
                volume,
                reason: reason.clone(),
            })
        };
        let specs = || session.volumes.iter();
        let said = match &wanted.volume {
            None if specs().any(|spec| idle(&spec.name)) => Some(ask(None)),
            Some(name) if idle(name) => {
                let spec = specs().rfind(|spec| spec.name == *name);
                spec.map(|spec| ask(Some(spec.index)))
            }
            _ => None,
        };
        self.out
            .extend(said.map(|said| Output::Say(session.id, said)));
    }

    /// A volume of the session that is neither copied nor being copied, and stays so, is asked for:
    /// whatever went wrong, it heals.
    pub(super) fn look_for_strays(&mut self, now: Now) {
        let strays = self.strays();
        let Some(session) = &mut self.session else {
            return;
        };
        if strays.is_empty() {
            session.ask_at = None;
            return;
        }
        let ask_at = *session.ask_at.get_or_insert(now.up + STRAY_WAIT);
        if now.up < ask_at {
            return;
        }
        session.ask_at = Some(now.up + STRAY_WAIT_AGAIN);
        for name in strays {
            let reason = format!("volume {name} has not been copied to the receiver");
            self.want(Wanted {
                volume: Some(name),
                reason,
            });
        }
    }

    /// Registered volumes the source announced and does not copy, once all it had captured at its
    /// hello has been seen.
    fn strays(&self) -> Vec<Name> {
        let (Some(session), Some(stream)) = (&self.session, self.streams.back()) else {
            return Vec::new();
        };
        let seen = stream.intake.usable() >= session.captured_at_hello;
        let current = self.points.incarnation() == stream.incarnation();
        if !seen || !current {
            return Vec::new();
        }
        let announced = session.volumes.iter().map(|spec| &spec.name);
        let stray = announced
            .filter(|name| self.volumes.contains_key(*name) && is_stray(self.points.state(name)));
        stray.cloned().collect()
    }
}

impl Event {
    /// Whether this is news from a source.
    pub fn is_from_source(&self) -> bool {
        matches!(
            self,
            Self::Records(..) | Self::Settle(..) | Self::Heartbeat(..)
        )
    }
}

fn is_stray(state: VolumeState) -> bool {
    matches!(state, VolumeState::Absent | VolumeState::Doubt)
}
