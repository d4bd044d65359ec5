//! Opening a session: who is there, for what, and from where on.

use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::{RING_SLOTS_MAX, TEXT_BYTES_MAX, VOLUMES_MAX};
use crate::name::Name;
use crate::stamp::{Generation, Incarnation, Stamp, TimeMark};
use crate::volume::VolumeSpec;

/// The source's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Only ask whether this would be accepted; nothing is opened, kept or closed by it.
    pub probe: bool,
    /// The source's name; must be the one its certificate is enrolled under.
    pub source: Name,
    /// The group.
    pub group: Name,
    /// What the source believes; all zero means "not told yet".
    pub generation: Generation,
    /// The life of the ring.
    pub incarnation: Incarnation,
    /// Descriptor slots of the ring: no stamp runs further ahead of the durable prefix.
    pub ring_slots: u32,
    /// Oldest stamp the ring still holds.
    pub oldest: Stamp,
    /// Newest stamp captured so far.
    pub captured: Stamp,
    /// The volumes whose records this session may carry.
    pub volumes: Vec<VolumeSpec>,
}

/// The receiver accepts a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAck {
    /// Number every batch of this session carries.
    pub session: u64,
    /// The group's generation, to be kept by the source.
    pub generation: Generation,
    /// Contiguous durable stamp of this incarnation: send from the next one on.
    pub resume: Stamp,
    /// Durable settle marks reach this far.
    pub settled: Stamp,
    /// Time mark at `resume`: later marks lie above it.
    pub last_mark: TimeMark,
    /// The receiver's clock when it answered.
    pub clock: TimeMark,
}

/// Why a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RefusalCode {
    /// A protocol version or message this build does not speak.
    Version = 1,
    /// The certificate is not enrolled, or was revoked.
    NotEnrolled = 2,
    /// The group or volume is not registered for this source.
    UnknownVolume = 3,
    /// Size or sector size differ from those registered.
    Geometry = 4,
    /// The disk is not the registered one.
    WrongDisk = 5,
    /// Generation older, or equal with another lineage.
    Fenced = 6,
    /// The incarnation is older than one already seen.
    OldIncarnation = 7,
    /// The receiver has no room, or its journal has failed.
    Unable = 8,
    /// The message breaks the protocol.
    Malformed = 9,
}

/// The receiver refuses a session, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of refusal.
    pub code: RefusalCode,
    /// One line with the cause and the next step.
    pub text: String,
}

impl Hello {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .flag(self.probe)
            .name(&self.source)
            .name(&self.group)
            .generation(self.generation);
        writer.incarnation(self.incarnation).u32(self.ring_slots);
        writer
            .stamp(self.oldest)
            .stamp(self.captured)
            .count(self.volumes.len());
        for spec in &self.volumes {
            spec.encode(&mut writer);
        }
        writer.into_bytes()
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut hello = Self {
            probe: reader.flag("probe")?,
            source: reader.name("source name")?,
            group: reader.name("group name")?,
            generation: reader.generation()?,
            incarnation: reader.incarnation()?,
            ring_slots: reader.u32()?,
            oldest: reader.stamp()?,
            captured: reader.stamp()?,
            volumes: Vec::new(),
        };
        if hello.ring_slots > RING_SLOTS_MAX {
            return Err(DecodeError::OverLimit {
                what: "ring slots",
                found: u64::from(hello.ring_slots),
                limit: u64::from(RING_SLOTS_MAX),
            });
        }
        for _ in 0..reader.count("volumes", VOLUMES_MAX)? {
            hello.volumes.push(VolumeSpec::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(hello)
    }
}

impl HelloAck {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .u64(self.session)
            .generation(self.generation)
            .stamp(self.resume);
        writer
            .stamp(self.settled)
            .mark(self.last_mark)
            .mark(self.clock);
        writer.into_bytes()
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let ack = Self {
            session: reader.u64()?,
            generation: reader.generation()?,
            resume: reader.stamp()?,
            settled: reader.stamp()?,
            last_mark: reader.mark()?,
            clock: reader.mark()?,
        };
        reader.finish()?;
        Ok(ack)
    }
}

impl RefusalCode {
    fn from_code(code: u16) -> Result<Self, DecodeError> {
        Ok(match code {
            1 => Self::Version,
            2 => Self::NotEnrolled,
            3 => Self::UnknownVolume,
            4 => Self::Geometry,
            5 => Self::WrongDisk,
            6 => Self::Fenced,
            7 => Self::OldIncarnation,
            8 => Self::Unable,
            9 => Self::Malformed,
            _ => return Err(DecodeError::BadValue("refusal code")),
        })
    }

    /// Whether waiting can help without an operator.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Unable)
    }
}

impl Refusal {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u16(self.code as u16).reason(&self.text);
        writer.into_bytes()
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let code = RefusalCode::from_code(reader.u16()?)?;
        let text = reader.text("refusal", TEXT_BYTES_MAX)?;
        reader.finish()?;
        Ok(Self { code, text })
    }
}
