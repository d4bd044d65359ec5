//! The wall clock.

use wire::TimeMark;

/// The wall clock as a time mark.
pub(crate) fn wall_clock() -> TimeMark {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    TimeMark(since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }))
}
