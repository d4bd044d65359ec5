//! What is said over the control socket: one JSON object per line, a request, then its response.

use super::points::{Cursor, Page, PointRun};
use super::status::Status;
use crate::failure::Exit;
use crate::target::{LayoutKind, NewTarget, TargetIdentity};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A verb of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Where everything stands.
    Status,
    /// Make an enrolment token.
    Token {
        /// The source it enrols.
        source: String,
        /// Seconds until it expires.
        expires_s: u64,
    },
    /// End a source's enrolment.
    Revoke {
        /// The source.
        source: String,
    },
    /// Register a volume.
    VolumeAdd(VolumeAdd),
    /// All volumes.
    VolumeList,
    /// Forget a volume.
    VolumeRemove {
        /// GROUP/VOLUME.
        volume: String,
    },
    /// Let the points of a group go on without a source.
    Detach {
        /// The group.
        group: String,
        /// The source.
        source: String,
    },
    /// The retained points of a group.
    Points {
        /// The group.
        group: String,
    },
    /// Hold apply of the volume's group back for as long as this connection lasts.
    Hold {
        /// GROUP/VOLUME.
        volume: String,
        /// Which point is wanted; the newest, if nothing is said.
        at: Option<String>,
    },
    /// Where the segments of a volume in a pool lie, from a page of the map on.
    Map {
        /// GROUP/VOLUME.
        volume: String,
        /// The page.
        page: u32,
    },
    /// The records between the base and the point of the volume that is held.
    Page {
        /// Where the page begins; none for the first.
        after: Option<Cursor>,
    },
}

/// A volume to register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeAdd {
    /// GROUP/VOLUME.
    pub volume: String,
    /// Its source.
    pub source: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its logical sector.
    pub sector_bytes: u32,
    /// How it is to lie on its targets.
    pub layout: LayoutKind,
    /// Its targets, in layout order.
    pub targets: Vec<NewTarget>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Response {
    /// To `status`.
    Status(Box<Status>),
    /// To `token`.
    Token {
        /// The token.
        token: String,
    },
    /// To `revoke`.
    Revoked {
        /// False if it was revoked before.
        fresh: bool,
    },
    /// To `volume-add`.
    Added(VolumeInfo),
    /// To `volume-list`.
    Volumes {
        /// By name.
        volumes: Vec<VolumeInfo>,
    },
    /// To `volume-remove`.
    Removed(VolumeInfo),
    /// To `detach`.
    Detached,
    /// To `points`: oldest first.
    Points {
        /// Runs of points.
        runs: Vec<PointRun>,
    },
    /// To `hold`.
    Held {
        /// The volume's content is that after this stamp, with the pages on top of the targets.
        stamp: u64,
        /// The time of the point, ISO 8601.
        time: String,
        /// The volume.
        volume: VolumeInfo,
        /// Where the records of the pages lie; none if there are no pages.
        journal: Option<JournalPlace>,
    },
    /// To `map`.
    Map {
        /// Segment of the volume, and its place as the catalog has it.
        map: Vec<(u64, u64)>,
        /// The page to go on with; none after the last one.
        next: Option<u32>,
    },
    /// To `page`.
    Page(Page),
    /// The verb was refused or failed; nothing was changed.
    Refused {
        /// How the command line ends.
        exit: Exit,
        /// One line: cause and next step.
        text: String,
    },
}

/// A journal that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPlace {
    /// Directory of its segments.
    pub dir: PathBuf,
    /// Its id, in hexadecimal.
    pub id: String,
    /// Size of its segments.
    pub segment_bytes: u64,
}

/// A registered volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// GROUP/VOLUME.
    pub volume: String,
    /// Its source.
    pub source: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its logical sector.
    pub sector_bytes: u32,
    /// How it lies on its targets.
    pub layout: LayoutKind,
    /// Identity of the source's disk, once one has shown up.
    pub disk: Option<String>,
    /// Its targets, in layout order.
    pub targets: Vec<TargetInfo>,
}

/// A target disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// Where it was when it was added.
    pub path: PathBuf,
    /// What it is recognised by.
    pub identity: TargetIdentity,
}
