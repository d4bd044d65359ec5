//! What `status --json` prints. The names are an interface: documented, added to, never renamed.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};
use wire::{Stamp, TimeMark};

/// The receiver as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether `serve` runs.
    pub running: bool,
    /// Address served on.
    pub listen: String,
    /// The journal.
    pub journal: JournalStatus,
    /// What has failed for all groups, in words.
    pub error: Option<String>,
    /// Enrolled sources, by name.
    pub sources: Vec<SourceStatus>,
    /// Groups, by name.
    pub groups: Vec<GroupStatus>,
}

/// The journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Bytes of its segments.
    pub bytes: u64,
    /// The bound on them.
    pub bytes_max: u64,
    /// How many segments.
    pub segments: u64,
}

/// A source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name.
    pub source: String,
    /// Pin of its certificate, in hexadecimal.
    pub pin: String,
    /// `enrolled` or `revoked`.
    pub state: String,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// The source of its volumes.
    pub source: String,
    /// Whether the source has a session now.
    pub connected: bool,
    /// Counter of its generation.
    pub generation: u64,
    /// The incarnation of the source's ring, `COUNTER-ID`; none before the first session.
    pub incarnation: Option<String>,
    /// Newest stamp captured at the source, as it last said.
    pub captured: Option<u64>,
    /// Newest stamp received, contiguously.
    pub sent: Option<u64>,
    /// Stamps up to here are settled at the source, and the mark for it is durable here.
    pub settled: u64,
    /// Stamps up to here are durable in the journal.
    pub durable: u64,
    /// Stamps up to here are on the targets, synced.
    pub applied: u64,
    /// Bytes received or announced that are not durable yet.
    pub lag_bytes: u64,
    /// Age of the oldest write not yet durable here: what would be lost now. Without a session: the
    /// time since the source was last known to have written nothing more.
    pub lag_seconds: f64,
    /// Time of the newest complete point, ISO 8601; none before the first.
    pub recoverable_to: Option<String>,
    /// How long ago that was; none before the first, or while nothing runs.
    pub recoverable_age_seconds: Option<f64>,
    /// Stamp of the newest complete point.
    pub recoverable_stamp: u64,
    /// What keeps the newest point from moving on, in words, if anything does.
    pub held_by: Option<String>,
    /// The source's clock minus the receiver's, by its heartbeats; none without a session.
    pub clock_offset_seconds: Option<f64>,
    /// Time of the oldest point that can be had, ISO 8601; none before the first.
    pub recoverable_from: Option<String>,
    /// How many points can be had.
    pub points: u64,
    /// Time from the oldest to the newest of them.
    pub window_seconds: Option<f64>,
    /// About what their records take in the journal.
    pub window_bytes: u64,
    /// The window asked for, `retain` in the settings.
    pub retain_seconds: u64,
    /// `waiting`, `first copy`, `async`, `frozen`, `behind`, `refused`, `failed` or `stopped`.
    pub mode: String,
    /// Why, in words, where there is something to say.
    pub reason: Option<String>,
    /// Its volumes, by name.
    pub volumes: Vec<VolumeStatus>,
    /// Of a group with several sources each of them, as if it were a group of its own; stamps, and
    /// what belongs to one session, are said there only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Self>,
    /// In there: `part` of the group's points; `apart`: not yet, or not any more; `detached`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its name inside the group.
    pub volume: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its logical sector.
    pub sector_bytes: u32,
    /// `absent`, `copying`, `ready`, `unknown`, `left`, `doubt` or `refused`.
    pub state: String,
    /// Why, in words, where there is something to say.
    pub reason: Option<String>,
    /// Bytes of the running copy that have arrived.
    pub copied_bytes: u64,
    /// Bytes in ranges whose write failed at the source and that were not read again yet.
    pub unknown_bytes: u64,
    /// The first [`UNKNOWN_RANGES_SHOWN`] of these ranges.
    pub unknown: Vec<UnknownRange>,
    /// Its target disks.
    pub targets: Vec<String>,
    /// Room of its pool; none if it has none.
    pub pool_bytes: Option<u64>,
    /// How much of it is taken.
    pub pool_used_bytes: Option<u64>,
}

/// A range of a volume, what it holds being unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownRange {
    /// Its first byte.
    pub offset_bytes: u64,
    /// How many.
    pub length_bytes: u64,
}

/// Most unknown ranges of a volume that status lists.
pub const UNKNOWN_RANGES_SHOWN: usize = 16;

const ISO: EncodedConfig = iso(3);
const ISO_EXACT: EncodedConfig = iso(9);

const fn iso(decimal_digits: u8) -> EncodedConfig {
    let decimal_digits = std::num::NonZeroU8::new(decimal_digits);
    let precision = TimePrecision::Second { decimal_digits };
    Config::DEFAULT.set_time_precision(precision).encode()
}

impl GroupStatus {
    /// Says what the newest complete point is: its stamp and mark, at time `now` of the source.
    pub fn set_recoverable(&mut self, stamp: Stamp, mark: TimeMark, now: TimeMark) {
        self.recoverable_stamp = stamp.0;
        self.recoverable_to = Some(iso_8601(mark));
        self.recoverable_age_seconds = Some(now.0.saturating_sub(mark.0) as f64 / 1e9);
    }
}

/// A time mark as ISO 8601 in UTC, to the millisecond.
pub fn iso_8601(mark: TimeMark) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(mark.0));
    let text = time.ok().and_then(|time| time.format(&Iso8601::<ISO>).ok());
    text.unwrap_or_else(|| format!("{} ns", mark.0))
}

/// The same to the nanosecond: it names this mark and no other.
pub fn exact_time(mark: TimeMark) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(mark.0));
    let text = time
        .ok()
        .and_then(|time| time.format(&Iso8601::<ISO_EXACT>).ok());
    text.unwrap_or_else(|| format!("{} ns", mark.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_mark_is_shown_in_iso_8601() {
        let mark = TimeMark(1_795_262_400_123_456_789);
        assert_eq!(iso_8601(mark), "2026-11-21T12:00:00.123Z");
        assert_eq!(exact_time(mark), "2026-11-21T12:00:00.123456789Z");
    }

    #[test]
    fn the_documented_names_are_in_the_json() {
        let group = GroupStatus {
            volumes: vec![VolumeStatus::default()],
            ..Default::default()
        };
        let status = Status {
            groups: vec![group],
            ..Status::default()
        };
        let json = serde_json::to_value(&status).unwrap();
        for name in [
            "captured",
            "settled",
            "sent",
            "durable",
            "applied",
            "lag_bytes",
            "lag_seconds",
            "recoverable_to",
            "mode",
            "reason",
        ] {
            assert!(json["groups"][0].get(name).is_some(), "{name}");
        }
    }
}
