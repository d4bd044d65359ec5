//! Probes: states that must be reached sometimes. One that never is means a blind spot.

macro_rules! probes {
    ($($name:ident = $words:literal,)+) => {
        /// A state.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Probe {
            $(#[doc = $words] $name,)+
        }

        impl Probe {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// In words.
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }
    };
}

probes! {
    WriteWaitedForRange = "a write waited for one it overlaps",
    WriteParked = "a write waited for room in the ring",
    StreamGivenUp = "a stream was given up",
    StreamReopened = "a stream was taken up again",
    Uncaptured = "a write went uncaptured",
    WriteRefused = "the disk refused a write",
    WriteTorn = "the disk refused a write and had done some of it",
    RangeReread = "a range was read again after a refused write",
    ReadFailedInCopy = "a copy could not read",
    TapRecovered = "a tap went on where a killed one was",
    OrphanFound = "a record was found whose disk write was in flight",
    OrphanForgone = "such a record was given up before its range was read again",
    SourcePowerCut = "the source lost power",
    SourceLostSectors = "the source's disk lost sectors in it",
    CleanRestart = "a tap was stopped cleanly and went on",
    ContinuedWithoutCopy = "a volume went on in a new incarnation without a copy",
    ShipperKilled = "a shipper was killed and replaced",
    Resumed = "a session resumed in the middle of a stream",
    BatchesReordered = "a batch overtook another",
    BatchTwice = "a batch came twice",
    BatchDamaged = "a damaged batch was refused",
    LateBatch = "a batch of an ended session came",
    ReceiverKilled = "the receiver was killed",
    ReceiverPowerCut = "the receiver lost power",
    CutInCommit = "the receiver lost power while its journal wrote",
    CutInStep = "the receiver died in a step of the base",
    CutInRecovery = "the receiver lost power while it recovered",
    JournalFailed = "the journal failed",
    TargetFailed = "a target refused a write",
    StepNotBegun = "there was no room for a step of the base",
    BaseMovedInMidst = "a restarted receiver found the base between two points",
    SegmentFreed = "a segment of the journal was freed",
    JournalFull = "the journal was full",
    Frozen = "a point stood still during a copy",
    IncarnationClosed = "an old incarnation was closed by a newer one",
    PointHeld = "a point was held and compared",
    OlderPointHeld = "a point older than the newest was held and compared",
    ClockWentBack = "the source's clock went back",
    LongPartition = "the link was cut for more than five seconds",
}

/// Which were reached.
#[derive(Clone, Debug)]
pub struct Reached(Vec<u64>);

impl Default for Reached {
    fn default() -> Self {
        Self(vec![0; Probe::ALL.len()])
    }
}

impl Reached {
    /// Notes one.
    pub fn reach(&mut self, probe: Probe) {
        self.0[probe as usize] += 1;
    }

    /// Adds what others reached.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }

    /// How often this one was.
    pub fn times(&self, probe: Probe) -> u64 {
        self.0[probe as usize]
    }

    /// Those never reached.
    pub fn missing(&self) -> Vec<Probe> {
        let never = |probe: &&Probe| self.0[**probe as usize] == 0;
        Probe::ALL.iter().filter(never).copied().collect()
    }
}
