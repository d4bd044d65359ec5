//! The wall clock, as marks.

use std::time::{SystemTime, UNIX_EPOCH};
use wire::TimeMark;

/// The time now.
pub(crate) fn now() -> TimeMark {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimeMark(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
