//! Time of a run: what goes on evenly, and the clocks of the hosts, which do not.

use std::sync::OnceLock;
use std::time::{Duration, Instant};
use wire::TimeMark;

/// Wall clock of every run when it begins.
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;

/// Virtual time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// Since the run began.
    pub(super) now_ns: u64,
    /// How far the source's clock is from true time.
    pub(super) source_ns: i64,
    /// How far the receiver's is.
    pub(super) receiver_ns: i64,
}

impl Clock {
    /// Since the run began.
    pub(super) fn up(self) -> Duration {
        Duration::from_nanos(self.now_ns)
    }

    /// The same as an instant. Instants are only ever compared with each other.
    pub(super) fn instant(self) -> Instant {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        *BEGIN.get_or_init(Instant::now) + self.up()
    }

    /// What the source's clock shows.
    pub(super) fn source(self) -> TimeMark {
        TimeMark((BEGIN_NS + self.now_ns).saturating_add_signed(self.source_ns))
    }

    /// What the receiver's clock shows.
    pub(super) fn receiver(self) -> TimeMark {
        TimeMark((BEGIN_NS + self.now_ns).saturating_add_signed(self.receiver_ns))
    }
}
