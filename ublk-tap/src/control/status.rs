//! Status as documented names: the JSON of `status --json` is this, field for field.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wire::TimeMark;

/// Where a group stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: String,
    /// This host's name at the receiver.
    pub source: String,
    /// Life of the ring.
    pub incarnation: String,
    /// Newest stamp claimed.
    pub captured: u64,
    /// All records up to here have been answered by the disk.
    pub settled: u64,
    /// Handed to the network, as the shipper says.
    pub sent: u64,
    /// Durable at the receiver, as far as the tap has checked.
    pub durable: u64,
    /// Written to the receiver's targets.
    pub applied: u64,
    /// Bytes of the volumes not yet durable at the receiver.
    pub lag_bytes: u64,
    /// Age of the oldest change not yet durable at the receiver.
    pub lag_seconds: f64,
    /// Time of the newest complete point at the receiver, ISO 8601; none before the first.
    pub recoverable_to: Option<String>,
    /// Its age in seconds.
    pub recoverable_age_seconds: Option<f64>,
    /// `first copy`, `async`, `broken` or `stopped`.
    pub mode: String,
    /// Why, in words; empty when there is nothing to say.
    pub reason: String,
    /// `up`, `connecting`, `refused`, `down` or `unknown`.
    pub link: String,
    /// What the link has to say.
    pub link_reason: String,
    /// The receiver's address.
    pub peer: String,
    /// The receiver's clock minus ours.
    pub clock_offset_seconds: f64,
    /// Payload room of the ring.
    pub ring_bytes: u64,
    /// Of it, in use.
    pub ring_used_bytes: u64,
    /// Writes that wait for room in the ring.
    pub parked: u64,
    /// Process of the tap; zero if it does not run.
    pub pid: u32,
    /// Version of its program; empty if it does not run.
    pub version: String,
    /// The volumes.
    pub volumes: Vec<VolumeStatus>,
}

/// Where a volume stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Its block device, or its socket; none while it is not live.
    pub device: Option<String>,
    /// Its stable name.
    pub link: String,
    /// `ublk` or `nbd`; empty while it is not tapped.
    pub frontend: String,
    /// The disk below.
    pub disk: String,
    /// What identifies that disk.
    pub identity: String,
    /// Size.
    pub size_bytes: u64,
    /// `starting`, `copying`, `ready`, `broken`, `unreadable`, `leaving`, `gone` or `stopped`.
    pub state: String,
    /// Why, in words; empty when there is nothing to say.
    pub reason: String,
    /// Copies begun since the volume was added.
    pub copies: u64,
    /// Read by the running or last copy.
    pub copied_bytes: u64,
    /// All it has to read.
    pub total_bytes: u64,
    /// Bytes per second of the running copy.
    pub rate: u64,
    /// Seconds until the running copy has read everything; none if unknown.
    pub eta: Option<u64>,
    /// Queues of the device, or clients that are connected.
    pub queues: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Writes that wait for room in the ring.
    pub parked: u64,
    /// Bytes written while the stream was given up.
    pub uncaptured_bytes: u64,
    /// Requests the disk refused.
    pub disk_errors: u64,
    /// Bytes of the volume changed with a record, since the tap has its device.
    pub captured_bytes: u64,
    /// Bytes moved in memory for what was written, each time they were: by us, or by the kernel on
    /// our call.
    pub memory_copied_bytes: u64,
}

/// A time mark as ISO 8601 in UTC, to the millisecond.
pub fn iso_8601(mark: TimeMark) -> String {
    let millis = i128::from(mark.0 / 1_000_000) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(millis);
    let text = time.ok().and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{} ns", mark.0))
}
