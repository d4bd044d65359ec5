//! Bugs planted on purpose: each must be found, or the simulation has no power.
//!
//! One switch, for the thread that runs a seed. They sit where the simulation stands in for a
//! driver, a disk or a wire, so the product has no trace of them.

use std::cell::Cell;

macro_rules! bugs {
    ($($name:ident = $words:literal,)+) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $(#[doc = $words] $name,)+
        }

        impl Bug {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What is wrong.
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }
    };
}

bugs! {
    EarlyAck = "records are called durable before the journal has them",
    JournalSyncSkipped = "the journal's files are not synced",
    DirectorySyncSkipped = "the names of the journal's files are not synced",
    TargetSyncSkipped = "targets are not synced before a step is committed",
    ReachedBeforeWritten = "a step is committed before it is written",
    HeadingSkipped = "a step is written before its horizon is committed",
    SettleMarkDropped = "a settle mark is lost on its way",
    VoidShippedAsSettled = "a settle mark leaves out what is void",
    RefusedNotReread = "what a refused write left is not read again",
    OrderSwapped = "two records of a batch change their places",
    RecordRewritten = "a record is changed on its way, checksum and all",
    OverlapCheckOff = "queues do not see each other's ranges",
    CopyWithoutRange = "the copier reads without holding the range",
    ZeroLeftOut = "a copy leaves zeroes out",
    CopyEndsEarly = "a copy leaves the last chunk out",
    IncarnationsJoined = "a new ring has the incarnation of the one before",
    CopySkippedAfterPowerCut = "after a power cut a volume is called copied at once",
    OrphanNotReread = "a recovered tap does not read again what was in flight",
    FoldAcrossPoint = "a step takes in a later record than it says",
    FoldLosesRange = "a range of a step is left out",
    FlushNotPassedOn = "a flush is answered without the disk",
    FreedTooFar = "the ring is told to free what the receiver does not have",
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug in what this thread runs from here on, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted.
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
