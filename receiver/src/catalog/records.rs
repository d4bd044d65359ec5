//! What the catalog holds, typed.

use crate::apply::KnownBlocks;
use crate::target::{
    Layout, LayoutError, LayoutKind, MapChange, POOL_SEGMENT_BYTES, Placement, Pool, TargetError,
    TargetIdentity, pool_bytes,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use wire::control::Hello;
use wire::{Generation, Incarnation, Name, Pin, Stamp, TimeMark, VolumeName};

/// An enrolment token, as the receiver remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The source it enrols.
    pub source: Name,
    /// Seconds since the Unix epoch from which on it is refused.
    pub expires_unix_s: u64,
    /// When it was redeemed.
    pub used_unix_s: Option<u64>,
}

/// An enrolled source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRecord {
    /// Its name.
    pub name: Name,
    /// Pin of its certificate.
    pub pin: Pin,
    /// When it was enrolled.
    pub enrolled_unix_s: u64,
    /// When it was revoked.
    pub revoked_unix_s: Option<u64>,
}

/// A group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Who may write it.
    pub generation: Generation,
}

/// A registered volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its name.
    pub name: VolumeName,
    /// The source it is copied from.
    pub source: Name,
    /// Its size.
    pub size_bytes: u64,
    /// Its logical sector.
    pub sector_bytes: u32,
    /// How it lies on its targets.
    pub kind: LayoutKind,
    /// The source's disk, once one has shown up.
    pub disk: Option<Bound>,
    /// The target disks, in layout order.
    pub targets: Vec<TargetRecord>,
}

/// The disk of a source that a volume belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its identity.
    pub identity: String,
    /// From where on.
    pub since: Since,
}

/// A place in the streams of a source. What lies up to it is none of a volume that was registered
/// later, under a name that was in use before (P13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Since {
    /// Counter of the incarnation.
    pub counter: u64,
    /// The last record that does not count.
    pub after: Stamp,
}

impl Since {
    /// From this hello on: what its source does not hold any more was for others.
    pub fn hello(hello: &Hello) -> Self {
        Self {
            counter: hello.incarnation.counter,
            after: hello.oldest.prev(),
        }
    }

    /// Whether the record lies behind it.
    pub fn admits(self, incarnation: Incarnation, stamp: Stamp) -> bool {
        (incarnation.counter, stamp) > (self.counter, self.after)
    }
}

impl VolumeRecord {
    /// What its source has of its group.
    pub fn lane(&self) -> Lane {
        Lane {
            group: self.name.group.clone(),
            source: self.source.clone(),
        }
    }

    /// How it lies on its targets by rule; a pool lies by its map.
    fn layout(&self) -> Result<Layout, LayoutError> {
        Layout::new(self.size_bytes, self.targets.len())
    }

    /// How it lies on its targets; `map` is that of a pool.
    pub fn placement(&self, map: &[MapChange]) -> Result<Placement, TargetError> {
        Ok(match self.kind {
            LayoutKind::Plain => Placement::Plain(self.layout()?),
            LayoutKind::Pool => {
                let targets = self.targets.iter();
                let disks = targets.map(|t| t.identity.size_bytes() / POOL_SEGMENT_BYTES);
                let disks: Vec<u64> = disks.collect();
                let pool = Pool::restore(self.size_bytes, &disks, map.iter().copied());
                let volume = || self.name.clone();
                Placement::Pool(pool.map_err(|bad| TargetError::Map {
                    volume: volume(),
                    bad,
                })?)
            }
        })
    }

    /// Bytes of the target with this index that are its.
    pub fn used_bytes(&self, target: usize) -> Result<u64, LayoutError> {
        match self.kind {
            LayoutKind::Plain => Ok(self.layout()?.target_bytes(target)),
            LayoutKind::Pool => Ok(pool_bytes(self.targets[target].identity.size_bytes())),
        }
    }
}

/// A target disk of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRecord {
    /// Where it was when it was added; absolute.
    pub path: PathBuf,
    /// What it is recognised by.
    pub identity: TargetIdentity,
    /// Digests of a few of its blocks at the applied stamp; none before the first step, or when
    /// a step was cut short.
    pub known: Option<KnownBlocks>,
}

/// What one source has of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// The group.
    pub group: Name,
    /// The source.
    pub source: Name,
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.group, self.source)
    }
}

/// Where the sources of a group with several were at one point together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutState {
    /// The time; all that lanes which are part did up to it is durable.
    pub at: TimeMark,
    /// The sources that are part of the cut, or were detached from it.
    pub lanes: BTreeMap<Name, Standing>,
}

impl CutState {
    /// How many sources are part of it.
    pub fn parts(&self) -> usize {
        let standings = self.lanes.values();
        let part = |one: &&Standing| matches!(one, Standing::Part(_));
        standings.filter(part).count()
    }
}

/// How a source stands to the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The cut waits for it; this is its newest point.
    Part(PointRecord),
    /// An operator has given it up, and it has not been back.
    Detached,
}

/// How far the stream of a source of a group has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// The incarnation the stamps belong to.
    pub incarnation: Incarnation,
    /// Where the base is being moved to: records up to here may be in it.
    pub horizon: Stamp,
    /// Records up to here are in the base, synced. It is at a point only when this is the horizon.
    pub applied: Stamp,
    /// Highest time mark of what is applied; never goes back, over incarnations either. All that is
    /// not applied yet lies above it.
    pub last_mark: TimeMark,
    /// The newest complete point: what the base holds once it has reached the horizon.
    pub point: Option<PointRecord>,
    /// State of each volume, as of the horizon.
    pub volumes: BTreeMap<Name, VolumeState>,
}

/// A point. While a group is frozen it outlives the incarnation it was made in (P7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointRecord {
    /// The incarnation of its stamp.
    pub incarnation: Incarnation,
    /// It is the source after this record.
    pub stamp: Stamp,
    /// Its time at the source.
    pub mark: TimeMark,
}

impl PointRecord {
    /// Whether the other one is later in the streams of the source.
    pub fn is_before(self, other: Self) -> bool {
        let place = |point: Self| (point.incarnation.counter, point.stamp);
        place(self) < place(other)
    }
}

/// Where a volume of a group stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumeState {
    /// Nothing of it has arrived.
    #[default]
    Absent,
    /// Being copied since the stamp of its `join`.
    Copying {
        /// It has never been part of a point.
        first: bool,
        /// Stamp of its `join`.
        since: Stamp,
    },
    /// Copied; part of points.
    Ready,
    /// Cleanly removed at its source; unchanged since.
    Left {
        /// Incarnation of the `leave` record.
        incarnation: Incarnation,
        /// Stamp of the `leave` record.
        stamp: Stamp,
    },
    /// Must be copied again.
    Doubt,
}
