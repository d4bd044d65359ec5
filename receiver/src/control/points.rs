//! Retained points as operators name and see them, and the records between the base and one.

use super::status::exact_time;
use crate::catalog::PointRecord;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wire::{Stamp, TimeMark};

/// Which point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// The newest complete one.
    #[default]
    Newest,
    /// The oldest that is retained.
    Oldest,
    /// That of a record of the newest incarnation that has it.
    Stamp(Stamp),
    /// The newest that is not younger.
    Mark(TimeMark),
}

impl At {
    /// Whether this is the point, where there is no other.
    pub(super) fn is_met_by(self, point: PointRecord) -> bool {
        match self {
            Self::Newest | Self::Oldest => true,
            Self::Stamp(stamp) => point.stamp == stamp,
            Self::Mark(mark) => point.mark <= mark,
        }
    }
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let stamp = digits.then(|| text.parse::<u64>().ok()).flatten();
        match (text, stamp) {
            ("newest", _) => Ok(Self::Newest),
            ("oldest", _) => Ok(Self::Oldest),
            (_, Some(stamp)) => Ok(Self::Stamp(Stamp(stamp))),
            _ => time(text).map(Self::Mark),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Oldest => f.write_str("oldest"),
            Self::Stamp(stamp) => write!(f, "{stamp}"),
            Self::Mark(mark) => f.write_str(&exact_time(*mark)),
        }
    }
}

fn time(text: &str) -> Result<TimeMark, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    let ns = time.and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok());
    ns.map(TimeMark).ok_or_else(|| {
        format!(
            "{text:?} is not a point: write `newest`, `oldest`, a stamp, or a time such as \
             2026-11-21T12:00:00Z"
        )
    })
}

/// Points without one missing between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointRun {
    /// The incarnation of their stamps, `COUNTER-ID`.
    pub incarnation: String,
    /// Stamp of the oldest.
    pub first_stamp: u64,
    /// Its time, ISO 8601, to the nanosecond: who asks for it gets this very point.
    pub first: String,
    /// Stamp of the newest.
    pub last_stamp: u64,
    /// Its time, the same way.
    pub last: String,
    /// How many; zero in a group with several sources, where every time between the two is one, but
    /// for those at which a source had none. Nor are there stamps then.
    pub points: u64,
}

impl PointRun {
    /// The points from `first` to `last`.
    pub(crate) fn new(first: PointRecord, last: PointRecord, points: u64) -> Self {
        Self {
            incarnation: first.incarnation.to_string(),
            first_stamp: first.stamp.0,
            first: exact_time(first.mark),
            last_stamp: last.stamp.0,
            last: exact_time(last.mark),
            points,
        }
    }
}

/// Behind which record a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Counter of its incarnation.
    pub counter: u64,
    /// Its stamp.
    pub stamp: u64,
}

/// What one record does to the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Its stamp.
    pub stamp: u64,
    /// First byte on the volume.
    pub offset_bytes: u64,
    /// How many.
    pub len_bytes: u64,
    /// Segment and offset of the record in the journal; none: zeroes.
    pub record: Option<(u64, u64)>,
}

/// Records between the base and a point, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The records.
    pub patches: Vec<Patch>,
    /// Where the next page begins; none after the last one.
    pub next: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_a_run_of_points_shows_name_its_first_and_its_last() {
        let point = |ns: u64| PointRecord {
            mark: TimeMark(1_795_262_400_123_456_000 + ns),
            ..PointRecord::default()
        };
        let run = PointRun::new(point(1), point(789), 2);
        assert_eq!(run.first.parse(), Ok(At::Mark(point(1).mark)));
        assert_eq!(run.last.parse(), Ok(At::Mark(point(789).mark)));
    }

    #[test]
    fn a_point_is_named_by_a_word_a_stamp_or_a_time() {
        let mark = TimeMark(1_795_262_400_123_000_000);
        for (text, at) in [
            ("newest", At::Newest),
            ("oldest", At::Oldest),
            ("77", At::Stamp(Stamp(77))),
            ("2026-11-21T12:00:00.123000000Z", At::Mark(mark)),
        ] {
            assert_eq!(text.parse(), Ok(at));
            assert_eq!(at.to_string(), text);
        }
        assert_eq!("2026-11-21T12:00:00.123Z".parse(), Ok(At::Mark(mark)));
        let offset = "2026-11-21T13:00:00.123+01:00".parse();
        assert_eq!(offset, Ok(At::Mark(mark)));
        let between = At::Mark(TimeMark(mark.0 + 456_789));
        assert_eq!(
            between.to_string().parse(),
            Ok(between),
            "to the nanosecond"
        );
        for bad in ["", "now", "-1", "1.5", "2026-11-21", "99999999999999999999"] {
            assert!(bad.parse::<At>().is_err(), "{bad:?}");
        }
    }
}
