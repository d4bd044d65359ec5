//! Control: the operator's verbs, over `control.sock` while `serve` runs, else directly.
//!
//! The same [`Operator`] carries out every verb in both cases; a [`Daemon`] is its live half, and
//! [`Stopped`] stands in for it. The socket takes JSON lines from root or the receiver's own user,
//! with bounds on connections, line length and time (P11).
//!
//! Promises: a refused verb has changed nothing; verbs run one after the other.

mod client;
mod daemon;
mod line;
mod message;
mod operator;
mod points;
mod server;
mod status;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientError};
pub use daemon::{Daemon, Hold, Stopped};
pub use line::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
pub use message::{JournalPlace, Request, Response, TargetInfo, VolumeAdd, VolumeInfo};
pub use operator::Operator;
pub use points::{At, Cursor, Page, Patch, PointRun};
pub use server::{CONNECTIONS_MAX, Server};
pub use status::{
    GroupStatus, JournalStatus, SourceStatus, Status, UNKNOWN_RANGES_SHOWN, UnknownRange,
    VolumeStatus, exact_time, iso_8601,
};
