//! The messages, as checked types and as JSON.
//!
//! Pure. Each public type is read through a raw twin that holds plain texts and numbers: a value
//! that is not one of the type's is an error, never a half-checked message.

use serde::{Deserialize, Serialize};
use wire::limits::{IDENTITY_BYTES_MAX, RING_SLOTS_MAX, TEXT_BYTES_MAX, VOLUMES_MAX};
use wire::{Generation, Incarnation, Name, Stamp, TimeMark, VolumeIndex, VolumeSpec};

/// From the tap to its shipper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToShipper {
    /// The first message; carries the descriptors of the ring.
    Welcome(Welcome),
    /// The volume table has changed.
    Volumes(Volumes),
}

/// From the shipper to its tap. Nothing here is believed beyond what it says about the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToTap {
    /// How the link stands.
    Link(LinkReport),
    /// How far the receiver has come.
    Progress(Progress),
    /// The receiver, or the shipper, needs volumes copied again.
    CopyWanted(CopyWanted),
    /// The generation the receiver holds for the group.
    Generation(GenerationReport),
}

/// What a shipper works for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawWelcome", into = "RawWelcome")]
pub struct Welcome {
    /// The group the ring belongs to.
    pub group: Name,
    /// This host's name at the receiver.
    pub source: Name,
    /// The generation the tap knows.
    pub generation: Generation,
    /// The life of the ring.
    pub incarnation: Incarnation,
    /// Records the ring can hold.
    pub ring_slots: u32,
    /// The volumes of the group.
    pub volumes: Vec<VolumeSpec>,
}

/// The volume table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawVolumes", into = "RawVolumes")]
pub struct Volumes {
    /// All volumes of the group, not only the changed ones.
    pub volumes: Vec<VolumeSpec>,
}

/// How the link to the receiver stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Being made.
    Connecting,
    /// Records travel.
    Up,
    /// The receiver said no; the reason says why.
    Refused,
    /// Lost or unreachable.
    Down,
}

/// The link, for status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawLinkReport", into = "RawLinkReport")]
pub struct LinkReport {
    /// How it stands.
    pub state: LinkState,
    /// Why, in words; empty when there is nothing to say.
    pub reason: String,
    /// The receiver's address, as configured or resolved.
    pub peer: String,
}

/// How far the receiver has come, for status and barriers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawProgress", into = "RawProgress")]
pub struct Progress {
    /// Durable without a hole.
    pub durable: Stamp,
    /// Covered by a durable settle mark.
    pub settled: Stamp,
    /// Written to the targets.
    pub applied: Stamp,
    /// Time of the newest complete point.
    pub recoverable: TimeMark,
    /// The receiver's clock minus ours, in nanoseconds.
    pub clock_offset_ns: i64,
}

/// A wish for a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawCopyWanted", into = "RawCopyWanted")]
pub struct CopyWanted {
    /// Which volume; all of them when none is named.
    pub volume: Option<VolumeIndex>,
    /// Why, in words.
    pub reason: String,
}

/// The generation the receiver holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawGeneration", into = "RawGeneration")]
pub struct GenerationReport(pub Generation);

#[derive(Serialize, Deserialize)]
struct RawWelcome {
    group: String,
    source: String,
    generation: RawGeneration,
    incarnation: RawIncarnation,
    ring_slots: u32,
    volumes: Vec<RawVolume>,
}

#[derive(Serialize, Deserialize)]
struct RawVolumes {
    volumes: Vec<RawVolume>,
}

#[derive(Serialize, Deserialize)]
struct RawVolume {
    index: u16,
    name: String,
    size_bytes: u64,
    sector_bytes: u32,
    identity: String,
}

#[derive(Serialize, Deserialize)]
struct RawIncarnation {
    counter: u64,
    id: String,
}

#[derive(Serialize, Deserialize)]
struct RawGeneration {
    counter: u64,
    lineage: String,
}

#[derive(Serialize, Deserialize)]
struct RawLinkReport {
    state: LinkState,
    reason: String,
    peer: String,
}

#[derive(Serialize, Deserialize)]
struct RawProgress {
    durable: u64,
    settled: u64,
    applied: u64,
    recoverable_ns: u64,
    clock_offset_ns: i64,
}

#[derive(Serialize, Deserialize)]
struct RawCopyWanted {
    volume_index: Option<u16>,
    reason: String,
}

impl TryFrom<RawWelcome> for Welcome {
    type Error = &'static str;

    fn try_from(raw: RawWelcome) -> Result<Self, Self::Error> {
        if raw.ring_slots == 0 || raw.ring_slots > RING_SLOTS_MAX {
            return Err("ring_slots is out of bounds");
        }
        Ok(Self {
            group: Name::new(&raw.group).map_err(|_| "group is not a name")?,
            source: Name::new(&raw.source).map_err(|_| "source is not a name")?,
            generation: raw
                .generation
                .try_into()
                .map(|report: GenerationReport| report.0)?,
            incarnation: Incarnation {
                counter: raw.incarnation.counter,
                id: parse_id(&raw.incarnation.id)?,
            },
            ring_slots: raw.ring_slots,
            volumes: checked_volumes(raw.volumes)?,
        })
    }
}

impl From<Welcome> for RawWelcome {
    fn from(welcome: Welcome) -> Self {
        Self {
            group: welcome.group.to_string(),
            source: welcome.source.to_string(),
            generation: GenerationReport(welcome.generation).into(),
            incarnation: RawIncarnation {
                counter: welcome.incarnation.counter,
                id: id_text(welcome.incarnation.id),
            },
            ring_slots: welcome.ring_slots,
            volumes: raw_volumes(welcome.volumes),
        }
    }
}

impl TryFrom<RawVolumes> for Volumes {
    type Error = &'static str;

    fn try_from(raw: RawVolumes) -> Result<Self, Self::Error> {
        let volumes = checked_volumes(raw.volumes)?;
        Ok(Self { volumes })
    }
}

impl From<Volumes> for RawVolumes {
    fn from(table: Volumes) -> Self {
        let volumes = raw_volumes(table.volumes);
        Self { volumes }
    }
}

impl TryFrom<RawVolume> for VolumeSpec {
    type Error = &'static str;

    fn try_from(raw: RawVolume) -> Result<Self, Self::Error> {
        let spec = Self {
            index: VolumeIndex(raw.index),
            name: Name::new(&raw.name).map_err(|_| "volume is not a name")?,
            size_bytes: raw.size_bytes,
            sector_bytes: raw.sector_bytes,
            identity: raw.identity,
        };
        if !spec.is_sound() || spec.identity.len() > IDENTITY_BYTES_MAX {
            return Err("volume is not one a disk can have");
        }
        Ok(spec)
    }
}

impl TryFrom<RawGeneration> for GenerationReport {
    type Error = &'static str;

    fn try_from(raw: RawGeneration) -> Result<Self, Self::Error> {
        Ok(Self(Generation {
            counter: raw.counter,
            lineage: parse_id(&raw.lineage)?,
        }))
    }
}

impl From<GenerationReport> for RawGeneration {
    fn from(report: GenerationReport) -> Self {
        Self {
            counter: report.0.counter,
            lineage: id_text(report.0.lineage),
        }
    }
}

impl From<RawLinkReport> for LinkReport {
    fn from(raw: RawLinkReport) -> Self {
        Self {
            state: raw.state,
            reason: clean(&raw.reason),
            peer: clean(&raw.peer),
        }
    }
}

impl From<LinkReport> for RawLinkReport {
    fn from(report: LinkReport) -> Self {
        Self {
            state: report.state,
            reason: clean(&report.reason),
            peer: clean(&report.peer),
        }
    }
}

impl From<RawProgress> for Progress {
    fn from(raw: RawProgress) -> Self {
        Self {
            durable: Stamp(raw.durable),
            settled: Stamp(raw.settled),
            applied: Stamp(raw.applied),
            recoverable: TimeMark(raw.recoverable_ns),
            clock_offset_ns: raw.clock_offset_ns,
        }
    }
}

impl From<Progress> for RawProgress {
    fn from(progress: Progress) -> Self {
        Self {
            durable: progress.durable.0,
            settled: progress.settled.0,
            applied: progress.applied.0,
            recoverable_ns: progress.recoverable.0,
            clock_offset_ns: progress.clock_offset_ns,
        }
    }
}

impl From<RawCopyWanted> for CopyWanted {
    fn from(raw: RawCopyWanted) -> Self {
        Self {
            volume: raw.volume_index.map(VolumeIndex),
            reason: clean(&raw.reason),
        }
    }
}

impl From<CopyWanted> for RawCopyWanted {
    fn from(wanted: CopyWanted) -> Self {
        Self {
            volume_index: wanted.volume.map(|index| index.0),
            reason: clean(&wanted.reason),
        }
    }
}

fn checked_volumes(raw: Vec<RawVolume>) -> Result<Vec<VolumeSpec>, &'static str> {
    if raw.len() > VOLUMES_MAX {
        return Err("more volumes than a group can have");
    }
    raw.into_iter().map(VolumeSpec::try_from).collect()
}

fn raw_volumes(volumes: Vec<VolumeSpec>) -> Vec<RawVolume> {
    let raw = |spec: VolumeSpec| RawVolume {
        index: spec.index.0,
        name: spec.name.to_string(),
        size_bytes: spec.size_bytes,
        sector_bytes: spec.sector_bytes,
        identity: spec.identity,
    };
    volumes.into_iter().map(raw).collect()
}

/// A 128-bit id as JSON has it: a text of hexadecimal digits, which no reader rounds.
fn id_text(id: u128) -> String {
    format!("{id:032x}")
}

fn parse_id(text: &str) -> Result<u128, &'static str> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        return Err("id is not 32 hexadecimal digits");
    }
    u128::from_str_radix(text, 16).map_err(|_| "id is not 32 hexadecimal digits")
}

/// A text that can be shown and logged: of bounded length, one line, no control characters.
pub(super) fn clean(text: &str) -> String {
    let cut = text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len()));
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text[..cut].chars().map(shown).collect()
}
