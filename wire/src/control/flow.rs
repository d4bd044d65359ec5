//! Messages of a running session.

use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::TEXT_BYTES_MAX;
use crate::stamp::{Stamp, TimeMark};
use crate::volume::VolumeIndex;

/// The source is alive: clock first, claim cursor second, so that every later mark is above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The source's clock, lifted above the last mark given.
    pub clock: TimeMark,
    /// The claim cursor read after the clock; the beat is valid once all up to it are settled.
    pub captured: Stamp,
}

/// How far the receiver has come in this incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Contiguous stamps received, not yet all durable.
    pub received: Stamp,
    /// Contiguous stamps durable in the journal.
    pub durable: Stamp,
    /// Settle marks durable up to here.
    pub settled: Stamp,
    /// Written to every target and synced up to here.
    pub applied: Stamp,
    /// Time mark of the newest complete point; zero before the first.
    pub recoverable: TimeMark,
    /// The source clock of the last heartbeat, sent back.
    pub echo: TimeMark,
    /// The receiver's clock.
    pub clock: TimeMark,
}

/// The receiver cannot vouch for volumes of the group: they must be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyWanted {
    /// One volume, or all of the group.
    pub volume: Option<VolumeIndex>,
    /// Why, in words.
    pub reason: String,
}

impl Heartbeat {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.mark(self.clock).stamp(self.captured);
        writer.into_bytes()
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let beat = Self {
            clock: reader.mark()?,
            captured: reader.stamp()?,
        };
        reader.finish()?;
        Ok(beat)
    }
}

impl Ack {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .stamp(self.received)
            .stamp(self.durable)
            .stamp(self.settled)
            .stamp(self.applied);
        writer
            .mark(self.recoverable)
            .mark(self.echo)
            .mark(self.clock);
        writer.into_bytes()
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let ack = Self {
            received: reader.stamp()?,
            durable: reader.stamp()?,
            settled: reader.stamp()?,
            applied: reader.stamp()?,
            recoverable: reader.mark()?,
            echo: reader.mark()?,
            clock: reader.mark()?,
        };
        reader.finish()?;
        Ok(ack)
    }
}

impl CopyWanted {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .flag(self.volume.is_some())
            .u16(self.volume.unwrap_or_default().0);
        writer.reason(&self.reason);
        writer.into_bytes()
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let one = reader.flag("one volume")?;
        let index = VolumeIndex(reader.u16()?);
        if !one && index != VolumeIndex::default() {
            return Err(DecodeError::BadValue("volume of all volumes"));
        }
        let reason = reader.text("reason", TEXT_BYTES_MAX)?;
        reader.finish()?;
        Ok(Self {
            volume: one.then_some(index),
            reason,
        })
    }
}
