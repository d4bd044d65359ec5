//! From a connection to a session: the hello and its answer.

use super::up::Up;
use super::{HELLO_PATIENCE, Moment, Output, Session, State, acks};
use ring::handoff::{GenerationReport, LinkState, ToTap};
use wire::control::{Control, Hello, HelloAck};
use wire::{Generation, Stamp};

impl Session {
    pub(super) fn connected(&mut self, now: Moment) {
        let State::Connecting = self.state else {
            return;
        };
        let oldest = Stamp(self.acked.0.saturating_add(1));
        let hello = Hello {
            probe: false,
            source: self.config.source.clone(),
            group: self.config.group.clone(),
            generation: self.config.generation,
            incarnation: self.config.incarnation,
            ring_slots: self.config.ring_slots,
            oldest,
            captured: now.captured,
            volumes: self.volumes.announce(self.acked),
        };
        self.push(Output::Send(Control::Hello(hello)));
        let until = now.elapsed + HELLO_PATIENCE;
        self.state = State::Greeting { until, oldest };
    }

    pub(super) fn greeted(&mut self, now: Moment, ack: &HelloAck, oldest: Stamp) {
        if let Err(violation) = acks::check_hello(ack, self.sent_at_most) {
            return self.violated(now, &violation);
        }
        if let Err(reason) = self.adopt(ack.generation) {
            self.push(Output::Send(Control::Bye(reason.clone())));
            return self.hold(now, &reason);
        }
        let held = ack.resume.min(ack.settled);
        if held < oldest.prev() {
            let reason = format!(
                "records {} to {} are neither in the ring nor durable at the receiver",
                held.0.saturating_add(1),
                oldest.prev()
            );
            self.want_copy(None, reason);
        }
        self.marks.restart(ack.last_mark);
        self.state = State::Up(Box::new(Up::new(now.elapsed, ack, oldest)));
        self.report(LinkState::Up, "");
        self.raise_acked();
    }

    /// Keeps the receiver's generation, unless ours is newer or another.
    fn adopt(&mut self, theirs: Generation) -> Result<(), String> {
        let ours = self.config.generation;
        if theirs == ours {
            return Ok(());
        }
        let is_known = ours != Generation::default();
        if is_known && theirs.counter <= ours.counter {
            return Err(format!(
                "the receiver holds generation {theirs} of this group, this host {ours}: \
                 connect the receiver that was promoted last, or enrol this host anew"
            ));
        }
        self.config.generation = theirs;
        self.push(Output::Tell(ToTap::Generation(GenerationReport(theirs))));
        Ok(())
    }
}
