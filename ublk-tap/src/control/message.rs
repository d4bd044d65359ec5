//! What is asked and answered.

use super::status::GroupStatus;
use crate::failure::Failure;
use crate::group::FrontKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A wish of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Where everything stands.
    Status,
    /// Wrap a disk.
    Add(AddRequest),
    /// Take volumes down.
    Remove(RemoveRequest),
    /// Wait until what has completed is safe.
    Barrier(BarrierRequest),
    /// Unbind the name of a volume that is not tapped from its disk.
    Forget {
        /// The volume.
        volume: String,
    },
    /// Hand over to another program. Answered only if it is not done.
    Upgrade(UpgradeRequest),
}

/// Wrap a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// The disk.
    pub disk: PathBuf,
    /// Name of the volume.
    pub volume: String,
    /// Queues; as in the settings if none.
    pub queues: Option<u16>,
    /// Requests in flight per queue; as in the settings if none.
    pub depth: Option<u16>,
    /// Ring size the operator insists on.
    pub ring_bytes: Option<u64>,
    /// What the application uses.
    pub frontend: FrontKind,
}

/// Take volumes down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// The volume; all of the group if none.
    pub volume: Option<String>,
    /// Do not wait for what the receiver does not hold yet.
    pub abandon: bool,
    /// How long to wait.
    pub timeout_ms: u64,
}

/// Wait until what has completed is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BarrierRequest {
    /// What to wait for.
    pub wait: Settling,
    /// How long to wait.
    pub timeout_ms: u64,
}

/// Hand over to another program of the tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// The program.
    pub program: PathBuf,
    /// Also where a copy begins again.
    pub force: bool,
}

/// What a barrier waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Settling {
    /// In the receiver's journal.
    Durable,
    /// Written to the receiver's targets.
    Applied,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To `status`.
    Status(Box<GroupStatus>),
    /// To `add`.
    Added(Added),
    /// To `remove`.
    Removed(Removed),
    /// To `barrier`.
    Barrier(BarrierReached),
    /// To `forget`.
    Forgotten,
    /// To any request.
    Failed(Failure),
    /// To any request that comes too late: ask the next tap.
    Ending,
}

/// A disk is wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Its block device, or its socket.
    pub device: PathBuf,
    /// Which of them.
    pub frontend: FrontKind,
    /// Its stable name.
    pub link: PathBuf,
    /// Why it is copied; nothing is if none.
    pub copy: Option<String>,
    /// The group's mode.
    pub mode: String,
}

/// Volumes are down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removed {
    /// Their names.
    pub volumes: Vec<String>,
    /// Whether all of them were left clean.
    pub clean: bool,
    /// What was given up, in words; empty if nothing was.
    pub given_up: String,
    /// They were the last, and the tap ends.
    pub is_last: bool,
}

/// Everything up to a stamp is safe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarrierReached {
    /// The stamp.
    pub stamp: u64,
    /// How long it took.
    pub seconds: f64,
}
