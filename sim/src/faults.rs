//! Mix: what a seed draws for its run: sizes, times, work, and which faults may happen how often.
//!
//! Varying which faults are on matters more than turning all of them on.

use crate::dice::Dice;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $weight:literal,)+) => {
        /// Something that goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $name,)+
        }

        const ALL: &[(Fault, u64)] = &[$((Fault::$name, $weight),)+];
    };
}

faults! {
    /// The tap is killed, its ring stays.
    KillTap = 3,
    /// The source's host loses power.
    CutSource = 2,
    /// The tap is stopped and started again.
    RestartTap = 2,
    /// The shipper is killed.
    KillShipper = 3,
    /// The shipper stands still for a while.
    StallShipper = 3,
    /// The receiver is killed.
    KillReceiver = 3,
    /// The receiver's host loses power.
    CutReceiver = 3,
    /// The same, at some call of its journal.
    CutInCommit = 4,
    /// The receiver dies within its next step.
    CutInStep = 4,
    /// The connection breaks.
    BreakConnection = 4,
    /// Nothing reaches the receiver.
    Mute = 3,
    /// Nothing reaches the source.
    Deaf = 3,
    /// Neither.
    Partition = 3,
    /// The source's disk refuses writes for a while.
    RefuseWrites = 3,
    /// It refuses reads.
    RefuseReads = 2,
    /// It is slow.
    SlowDisk = 3,
    /// The journal's disk is slow.
    SlowJournal = 3,
    /// The journal's disk refuses a call.
    RefuseJournal = 1,
    /// A target refuses a write.
    RefuseTarget = 2,
    /// A batch is damaged on its way.
    DamageBatch = 2,
    /// The source's clock jumps.
    StepSourceClock = 2,
    /// The receiver's clock jumps.
    StepReceiverClock = 1,
}

/// Microseconds of virtual time.
pub const US: u64 = 1_000;
/// Milliseconds of virtual time.
pub const MS: u64 = 1_000_000;
/// Seconds of virtual time.
pub const S: u64 = 1_000_000_000;

/// What a seed has drawn.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Sectors of each volume.
    pub volumes: Vec<usize>,
    /// Queues of a volume.
    pub queues: usize,
    /// Requests of a queue.
    pub depth: u16,
    /// Slots of the ring.
    pub ring_slots: u32,
    /// Payload of the ring.
    pub ring_bytes: u64,
    /// Bytes a copy reads at once.
    pub chunk_bytes: u64,
    /// Writes, discards and zeroes of the run.
    pub writes: u64,
    /// Mean time between two requests.
    pub gap_ns: u64,
    /// Most sectors of a request.
    pub request_sectors_max: u64,
    /// Of a thousand requests, how many go to a hot eighth of the volume.
    pub hot_permille: u64,
    /// Mean time of an operation of the source's disk.
    pub disk_ns: u64,
    /// One way over the network, at least.
    pub way_ns: u64,
    /// And what may be added to it.
    pub jitter_ns: u64,
    /// Of a thousand batches, how many come twice.
    pub twice_permille: u64,
    /// A write and a sync of the journal.
    pub journal_ns: u64,
    /// A step of the base.
    pub step_ns: u64,
    /// Size of a segment of the journal.
    pub segment_bytes: u64,
    /// Segments of the journal.
    pub segments: u64,
    /// How long points are retained.
    pub retain_ns: u64,
    /// How long a write may wait for room.
    pub park_ns: u64,
    /// Mean time between two faults.
    pub fault_ns: u64,
    /// The faults of the run, and how likely each is.
    pub faults: Vec<(Fault, u64)>,
}

impl Mix {
    /// Draws one.
    pub fn draw(dice: &mut Dice) -> Self {
        let volumes = (0..dice.between(1, 2)).map(|_| dice.between(8, 48) as usize * 8);
        let volumes = volumes.collect();
        let segment_bytes = 64 << (10 + dice.roll(3));
        let mut faults: Vec<_> = ALL.iter().copied().filter(|_| dice.coin()).collect();
        if dice.roll(12) == 0 {
            faults.clear();
        }
        let gap_ns = dice.spread(200 * US, 3 * MS);
        let writing_ns = gap_ns * 1100;
        let journal_bytes = match dice.roll(4) {
            0 => dice.between(512, 4096) << 10,
            _ => 64 << 20,
        };
        let segments = journal_bytes.div_ceil(segment_bytes).max(6);
        Self {
            volumes,
            queues: dice.between(1, 2) as usize,
            depth: dice.between(4, 16) as u16,
            ring_slots: 64 << dice.roll(5),
            ring_bytes: (128 << 10) << dice.roll(4),
            chunk_bytes: 4096 << dice.roll(4),
            writes: dice.between(1000, 1200),
            gap_ns,
            request_sectors_max: dice.spread(1, 16),
            hot_permille: dice.roll(900),
            disk_ns: dice.spread(20 * US, 4 * MS),
            way_ns: dice.spread(50 * US, 40 * MS),
            jitter_ns: dice.spread(10 * US, 20 * MS),
            twice_permille: dice.roll(2) * dice.roll(100),
            journal_ns: dice.spread(50 * US, 5 * MS),
            step_ns: dice.spread(50 * US, 10 * MS),
            segment_bytes,
            segments,
            retain_ns: [0, 0, 200 * MS, 2 * S, 60 * S][dice.roll(5) as usize],
            park_ns: dice.spread(20 * MS, 2 * S),
            fault_ns: dice.spread(writing_ns / 100, writing_ns / 6),
            faults,
        }
    }

    /// The next fault, if the run has any.
    pub fn fault(&self, dice: &mut Dice) -> Option<Fault> {
        let sum: u64 = self.faults.iter().map(|(_, weight)| weight).sum();
        let mut pick = dice.roll(sum);
        for &(fault, weight) in &self.faults {
            if pick < weight {
                return Some(fault);
            }
            pick -= weight;
        }
        None
    }
}
