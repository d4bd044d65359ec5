//! What a receiver may acknowledge.

use super::error::Violation;
use wire::control::{Ack, HelloAck};
use wire::{Stamp, TimeMark};

/// Marks lie below this: room for every clock, and for lifting without overflow.
const MARK_MAX: TimeMark = TimeMark(1 << 63);

/// The last acknowledgement, and what bounds the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acks {
    pub(super) last: Ack,
}

/// What the source has said so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    /// Newest record sent.
    pub(super) sent: Stamp,
    /// End of the newest settle mark sent.
    pub(super) settled: Stamp,
    /// Clock of the newest heartbeat.
    pub(super) beat: TimeMark,
}

/// Whether an answer to a hello can be true, given the newest stamp ever sent.
pub(super) fn check_hello(ack: &HelloAck, sent: Stamp) -> Result<(), Violation> {
    for found in [ack.resume, ack.settled] {
        if found > sent {
            return Err(Violation::Resume { found, sent });
        }
    }
    match ack.last_mark {
        mark if mark >= MARK_MAX => Err(Violation::Mark(mark.0)),
        _ => Ok(()),
    }
}

impl Acks {
    /// Starts where the receiver's hello says it is.
    pub(super) fn new(ack: &HelloAck) -> Self {
        Self {
            last: Ack {
                received: ack.resume,
                durable: ack.resume,
                settled: ack.settled,
                clock: ack.clock,
                ..Ack::default()
            },
        }
    }

    /// Takes an acknowledgement that is neither ahead of what was said nor behind the last.
    pub(super) fn take(&mut self, ack: &Ack, said: Said) -> Result<(), Violation> {
        let last = &self.last;
        ordered("received", last.received, ack.received, said.sent)?;
        ordered("durable", last.durable, ack.durable, ack.received)?;
        ordered("settled", last.settled, ack.settled, said.settled)?;
        let written = ack.durable.min(ack.settled);
        ordered("applied", last.applied, ack.applied, written)?;
        ordered(
            "echo",
            Stamp(last.echo.0),
            Stamp(ack.echo.0),
            Stamp(said.beat.0),
        )?;
        self.last = *ack;
        Ok(())
    }
}

fn ordered(what: &'static str, last: Stamp, found: Stamp, limit: Stamp) -> Result<(), Violation> {
    if found < last {
        return Err(Violation::Back {
            what,
            found: found.0,
            last: last.0,
        });
    }
    if found > limit {
        return Err(Violation::Ahead {
            what,
            found: found.0,
            limit: limit.0,
        });
    }
    Ok(())
}
