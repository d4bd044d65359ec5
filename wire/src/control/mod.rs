//! Messages of the control stream: one frame each, an 8-byte header and a bounded body.
//!
//! ```text
//!   0  type u16 | version u16 | body length u32
//!   8  body
//! ```
//!
//! Source to receiver: [`Hello`], [`SettleMark`], [`Heartbeat`], `Bye`. Receiver to source:
//! [`HelloAck`], [`Refusal`], [`Ack`], [`CopyWanted`], `Notice`, `Bye`. See `docs/protocol.md`.

mod flow;
mod hello;

pub use flow::{Ack, CopyWanted, Heartbeat};
pub use hello::{Hello, HelloAck, Refusal, RefusalCode};

use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::{CONTROL_BODY_BYTES_MAX, TEXT_BYTES_MAX};
use crate::settle::SettleMark;

/// Size of a control frame header in bytes.
pub const FRAME_HEADER_BYTES: usize = 8;
/// Version of the control messages.
pub const CONTROL_VERSION: u16 = 1;

/// A message of the control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Opens or probes a session.
    Hello(Hello),
    /// Accepts it.
    HelloAck(HelloAck),
    /// Refuses it, in words.
    Refusal(Refusal),
    /// How far the source's disks have answered.
    Settle(SettleMark),
    /// The source's clock and claim cursor.
    Heartbeat(Heartbeat),
    /// How far the receiver has come.
    Ack(Ack),
    /// The receiver cannot vouch for a volume.
    CopyWanted(CopyWanted),
    /// The sender ends the session, in words.
    Bye(String),
    /// What holds the receiver up, in words; empty when nothing does any more.
    Notice(String),
}

/// A checked frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Message type code.
    pub code: u16,
    /// Body length in bytes, at most [`CONTROL_BODY_BYTES_MAX`].
    pub body_bytes: u32,
}

const HELLO: u16 = 1;
const HELLO_ACK: u16 = 2;
const REFUSAL: u16 = 3;
const SETTLE: u16 = 4;
const HEARTBEAT: u16 = 5;
const ACK: u16 = 6;
const COPY_WANTED: u16 = 7;
const BYE: u16 = 8;
const NOTICE: u16 = 9;

impl FrameHeader {
    /// Reads a frame header; the length is bounded before anyone allocates by it.
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (code, version, body_bytes) = (reader.u16()?, reader.u16()?, reader.u32()?);
        if version != CONTROL_VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        if body_bytes > CONTROL_BODY_BYTES_MAX {
            return Err(DecodeError::OverLimit {
                what: "control body",
                found: u64::from(body_bytes),
                limit: u64::from(CONTROL_BODY_BYTES_MAX),
            });
        }
        Ok(Self { code, body_bytes })
    }
}

impl Control {
    /// The whole frame: header and body.
    pub fn to_frame(&self) -> Vec<u8> {
        let (code, body) = match self {
            Self::Hello(hello) => (HELLO, hello.to_bytes()),
            Self::HelloAck(ack) => (HELLO_ACK, ack.to_bytes()),
            Self::Refusal(refusal) => (REFUSAL, refusal.to_bytes()),
            Self::Settle(mark) => (SETTLE, mark.to_bytes()),
            Self::Heartbeat(beat) => (HEARTBEAT, beat.to_bytes()),
            Self::Ack(ack) => (ACK, ack.to_bytes()),
            Self::CopyWanted(wanted) => (COPY_WANTED, wanted.to_bytes()),
            Self::Bye(reason) => (BYE, reason_bytes(reason)),
            Self::Notice(reason) => (NOTICE, reason_bytes(reason)),
        };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        assert!(
            length <= CONTROL_BODY_BYTES_MAX,
            "bodies are bounded by the limits of their parts"
        );
        let mut frame = Writer::new();
        frame.u16(code).u16(CONTROL_VERSION).u32(length).put(&body);
        frame.into_bytes()
    }

    /// Reads the body of a frame whose header has the type `code`.
    pub fn parse(code: u16, body: &[u8]) -> Result<Self, DecodeError> {
        Ok(match code {
            HELLO => Self::Hello(Hello::parse(body)?),
            HELLO_ACK => Self::HelloAck(HelloAck::parse(body)?),
            REFUSAL => Self::Refusal(Refusal::parse(body)?),
            SETTLE => Self::Settle(SettleMark::parse(body)?),
            HEARTBEAT => Self::Heartbeat(Heartbeat::parse(body)?),
            ACK => Self::Ack(Ack::parse(body)?),
            COPY_WANTED => Self::CopyWanted(CopyWanted::parse(body)?),
            BYE => Self::Bye(parse_reason(body)?),
            NOTICE => Self::Notice(parse_reason(body)?),
            _ => return Err(DecodeError::BadValue("message type")),
        })
    }
}

fn reason_bytes(reason: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.reason(reason);
    writer.into_bytes()
}

fn parse_reason(body: &[u8]) -> Result<String, DecodeError> {
    let mut reader = Reader::new(body);
    let reason = reader.text("reason", TEXT_BYTES_MAX)?;
    reader.finish()?;
    Ok(reason)
}

#[cfg(test)]
mod tests;
