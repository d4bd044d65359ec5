//! How the bytes of a volume lie on its targets: by rule (`plain`) or by map (`pool`). Pure.

use super::layout::Layout;
use super::pool::{MapChange, POOL_SEGMENT_BYTES, Pool, PoolFull, PoolPlan};
use crate::fold::{ByteRange, Extent, Placed};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayoutKind {
    /// One target: byte-identical to the source. Several: stripes.
    #[default]
    Plain,
    /// Segments, allocated on first write over disks of any size.
    Pool,
}

impl fmt::Display for LayoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Pool => "pool",
        })
    }
}

impl FromStr for LayoutKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "plain" => Ok(Self::Plain),
            "pool" => Ok(Self::Pool),
            _ => Err(format!("{text:?} is not a layout; write `plain` or `pool`")),
        }
    }
}

/// Where an open volume lies.
#[derive(Clone, Debug)]
pub enum Placement {
    /// By rule.
    Plain(Layout),
    /// By map.
    Pool(Pool),
}

impl Placement {
    /// Size of the volume.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Plain(layout) => layout.size_bytes(),
            Self::Pool(pool) => pool.size_bytes(),
        }
    }

    /// Number of targets.
    pub fn targets(&self) -> usize {
        match self {
            Self::Plain(layout) => layout.targets(),
            Self::Pool(pool) => pool.disks(),
        }
    }

    /// Lays out a step: what is written where, by disk and offset, and how the map changes by it.
    pub fn plan(&self, extents: &[Extent]) -> Result<PoolPlan, PoolFull> {
        match self {
            Self::Plain(layout) => Ok(PoolPlan {
                placed: placed(layout, extents),
                changes: Vec::new(),
            }),
            Self::Pool(pool) => pool.plan(extents),
        }
    }

    /// What was planned is written, synced and committed.
    pub fn commit(&mut self, changes: &[MapChange]) {
        match self {
            Self::Plain(_) => assert!(changes.is_empty(), "a plain volume has no map"),
            Self::Pool(pool) => pool.commit(changes),
        }
    }

    /// The parts of a range, in its order, with disk and offset; none: it reads as zeroes.
    pub fn parts(&self, range: ByteRange) -> Vec<(ByteRange, Option<(usize, u64)>)> {
        match self {
            Self::Plain(layout) => layout
                .parts(range)
                .map(|part| (part.range, Some((part.target, part.offset_bytes))))
                .collect(),
            Self::Pool(pool) => pool.parts(range).collect(),
        }
    }
}

/// Where the pieces of a step lie by rule: in disk order on every disk, if they are in order.
pub(crate) fn placed(layout: &Layout, extents: &[Extent]) -> Vec<Placed> {
    let pieces = extents.iter().flat_map(|extent| {
        layout.parts(extent.range).map(|part| Placed {
            disk: part.target,
            offset_bytes: part.offset_bytes,
            range: part.range,
            content: extent.content,
        })
    });
    pieces.collect()
}

/// Bytes of a pool's disk that hold segments.
pub fn pool_bytes(disk_bytes: u64) -> u64 {
    disk_bytes / POOL_SEGMENT_BYTES * POOL_SEGMENT_BYTES
}
