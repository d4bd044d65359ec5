//! Payloads of `member` and `gap` records: how volumes join, leave and are copied again.
//!
//! `join` opens a copy epoch of the volume, `ready` closes it, `leave` says its content rests from
//! here on, `continue` says its content is still that of an earlier `leave`. A `gap` says that
//! writes before it were given up: every volume must join again before a point can follow.

use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::TEXT_BYTES_MAX;
use crate::stamp::{Incarnation, Stamp};
use crate::volume::VolumeSpec;

/// What happens to a volume's membership at a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// The volume is copied from here on; it counts in points again after its `Ready`.
    Join,
    /// The copy is complete: with this record settled the volume is exact.
    Ready,
    /// The volume was removed cleanly; its content rests.
    Leave,
    /// The content is unchanged since `stamp` of `incarnation`, proved by a clean mark and a
    /// matching fingerprint.
    Continue {
        /// The life of the ring in which the volume left.
        incarnation: Incarnation,
        /// The stamp of its `leave` record.
        stamp: Stamp,
    },
}

/// Payload of a `member` record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What happens.
    pub action: MemberAction,
    /// To which volume.
    pub spec: VolumeSpec,
}

const JOIN: u8 = 1;
const READY: u8 = 2;
const LEAVE: u8 = 3;
const CONTINUE: u8 = 4;

impl Member {
    /// The payload bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let (code, incarnation, stamp) = match self.action {
            MemberAction::Join => (JOIN, Incarnation::default(), Stamp::ZERO),
            MemberAction::Ready => (READY, Incarnation::default(), Stamp::ZERO),
            MemberAction::Leave => (LEAVE, Incarnation::default(), Stamp::ZERO),
            MemberAction::Continue { incarnation, stamp } => (CONTINUE, incarnation, stamp),
        };
        writer.u8(code).incarnation(incarnation).stamp(stamp);
        self.spec.encode(&mut writer);
        writer.into_bytes()
    }

    /// Reads a payload; everything is checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let code = reader.u8()?;
        let incarnation = reader.incarnation()?;
        let stamp = reader.stamp()?;
        let is_zero = incarnation == Incarnation::default() && stamp == Stamp::ZERO;
        let action = match code {
            JOIN | READY | LEAVE if !is_zero => {
                return Err(DecodeError::BadValue("earlier life of a member"));
            }
            JOIN => MemberAction::Join,
            READY => MemberAction::Ready,
            LEAVE => MemberAction::Leave,
            CONTINUE => MemberAction::Continue { incarnation, stamp },
            _ => return Err(DecodeError::BadValue("member action")),
        };
        let spec = VolumeSpec::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self { action, spec })
    }
}

/// The payload of a `gap` record: why the stream was given up.
pub fn gap_payload(reason: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.reason(reason);
    writer.into_bytes()
}

/// Reads the reason out of a `gap` record's payload.
pub fn parse_gap(bytes: &[u8]) -> Result<String, DecodeError> {
    let mut reader = Reader::new(bytes);
    let reason = reader.text("gap reason", TEXT_BYTES_MAX)?;
    reader.finish()?;
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;
    use crate::volume::VolumeIndex;

    fn member(action: MemberAction) -> Member {
        let spec = VolumeSpec {
            index: VolumeIndex(3),
            name: Name::new("wal").unwrap(),
            size_bytes: 1 << 30,
            sector_bytes: 512,
            identity: "wwn:naa.5000".into(),
        };
        Member { action, spec }
    }

    #[test]
    fn every_action_survives_the_wire_and_every_cut_is_refused() {
        let back = Incarnation { counter: 7, id: 99 };
        for action in [
            MemberAction::Join,
            MemberAction::Ready,
            MemberAction::Leave,
            MemberAction::Continue {
                incarnation: back,
                stamp: Stamp(12),
            },
        ] {
            let bytes = member(action).to_bytes();
            assert_eq!(Member::parse(&bytes), Ok(member(action)));
            for cut in 0..bytes.len() {
                assert!(Member::parse(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn an_earlier_life_is_of_those_who_continue_alone() {
        for action in [MemberAction::Join, MemberAction::Ready, MemberAction::Leave] {
            let good = member(action).to_bytes();
            for byte in 1..33 {
                let mut bytes = good.clone();
                bytes[byte] = 200;
                let refused = Err(DecodeError::BadValue("earlier life of a member"));
                assert_eq!(Member::parse(&bytes), refused, "{action:?}, byte {byte}");
            }
        }
    }

    #[test]
    fn an_impossible_geometry_is_refused() {
        let mut odd = member(MemberAction::Join);
        odd.spec.size_bytes = 1000;
        assert_eq!(
            Member::parse(&odd.to_bytes()),
            Err(DecodeError::BadValue("volume geometry"))
        );
    }
}
