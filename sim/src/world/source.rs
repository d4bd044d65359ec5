//! The source's host: its disks, and what of it survives a tap.

use super::clock::Clock;
use super::copier::Copier;
use super::pad::{Pad, Place, QueueHost};
use super::shipper::Shipper;
use crate::disk::Sectors;
use ring::Ring;
use ring::handoff::ToTap;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use ublk_tap::device::Parking;
use ublk_tap::device::simulated::{DiskRequest, Queue, Shared};
use ublk_tap::group::{Core, Orphans};
use ublk_tap::ranges::RangeTable;
use wire::{Incarnation, MemberAction, Name, Stamp, VolumeIndex, VolumeSpec};

/// Directory, disks and state of the host.
pub(super) struct Source {
    /// Where rings lie.
    pub(super) dir: tempfile::TempDir,
    /// Its disks.
    pub(super) disks: Vec<Sectors>,
    /// The incarnation on stable storage.
    pub(super) incarnation: Incarnation,
    /// How often a tap has begun.
    pub(super) life: u64,
    /// The tap, while there is one.
    pub(super) tap: Option<Tap>,
    /// Operations at the disk.
    pub(super) at_disk: BTreeMap<u64, (Place, DiskRequest)>,
    /// Number of the next one.
    pub(super) next_ticket: u64,
    /// Number of the next shipper.
    pub(super) next_shipper: u64,
    /// What is wrong with the disk.
    pub(super) refuses_writes: bool,
    /// The same for reads.
    pub(super) refuses_reads: bool,
    /// How much slower the disk is.
    pub(super) slowness: u64,
    /// A clean stop is under way, and until when it may take.
    pub(super) stopping: Option<u64>,
    /// The host has lost power since the last whole copy.
    pub(super) was_cut: bool,
    /// What the receiver has promised to hold: incarnation counter, durable, settled.
    pub(super) promised: (u64, Stamp, Stamp),
}

/// A tap at work.
pub(super) struct Tap {
    /// Its ring.
    pub(super) ring: Arc<Ring>,
    /// Writes that wait for room.
    pub(super) parking: Arc<Parking>,
    /// What decides.
    pub(super) core: Core,
    /// Its volumes.
    pub(super) volumes: Vec<Tapped>,
    /// Member records that wait for room.
    pub(super) claims: VecDeque<(VolumeIndex, MemberAction, Instant)>,
    /// Records of a dead tap whose ranges are to be read again.
    pub(super) orphans: Orphans,
    /// When devices go live although they are not.
    pub(super) recovery_ends: Instant,
    /// Durable at the receiver, as of this turn.
    pub(super) safe: Stamp,
    /// As the shipper last said.
    pub(super) durable: Stamp,
    /// Its shipper.
    pub(super) shipper: Option<Shipper>,
    /// What the shipper has said.
    pub(super) mail: VecDeque<ToTap>,
    /// The next shipper gets a page that is believed again.
    pub(super) resets: bool,
    /// When its next turn is.
    pub(super) turn_ns: u64,
}

/// A volume of a tap.
pub(super) struct Tapped {
    /// What its queues share.
    pub(super) shared: Shared,
    /// Ranges held.
    pub(super) ranges: Arc<RangeTable>,
    /// Its queues.
    pub(super) queues: Vec<Queue<QueueHost>>,
    /// Its device takes requests.
    pub(super) is_live: bool,
    /// It waits for orphans before it does.
    pub(super) waits: bool,
    /// Reads its disk into the stream.
    pub(super) copier: Copier,
}

/// The name of a volume.
pub(super) fn volume_name(volume: usize) -> Name {
    Name::new(["data", "wal"][volume]).expect("a good name")
}

/// The group.
pub(super) fn group_name() -> Name {
    Name::new("pg").expect("a good name")
}

/// The source.
pub(super) fn source_name() -> Name {
    Name::new("db1").expect("a good name")
}

/// A volume as the tap announces it.
pub(super) fn spec(volume: usize, sectors: usize) -> VolumeSpec {
    VolumeSpec {
        index: VolumeIndex(volume as u16),
        name: volume_name(volume),
        size_bytes: sectors as u64 * 512,
        sector_bytes: 512,
        identity: format!("disk{volume}"),
    }
}

impl Tapped {
    /// A volume over a ring.
    pub(super) fn new(
        volume: usize,
        (size_bytes, queues, depth): (u64, usize, u16),
        (ring, parking): (&Arc<Ring>, &Arc<Parking>),
        pad: &Rc<RefCell<Pad>>,
    ) -> Self {
        let ranges = Arc::new(RangeTable::new());
        let index = VolumeIndex(volume as u16);
        let shared = Shared::new(
            index,
            (size_bytes, 16 * 512),
            Arc::clone(ring),
            Arc::clone(&ranges),
            Arc::clone(parking),
        );
        let queue = |queue: usize| {
            let host = QueueHost {
                pad: Rc::clone(pad),
                ring: Arc::clone(ring),
                queue: (volume, queue),
            };
            let seen = match crate::planted::is(crate::planted::Bug::OverlapCheckOff) {
                true => shared.with_ranges(Arc::new(RangeTable::new())),
                false => shared.clone(),
            };
            Queue::new(host, &seen, depth, 64 << 10).expect("memory for a queue")
        };
        let queues = (0..queues).map(queue).collect();
        Self {
            queues,
            shared,
            ranges,
            is_live: false,
            waits: false,
            copier: Copier::default(),
        }
    }
}

impl Source {
    /// A host whose disks hold this.
    pub(super) fn new(initial: &[Vec<u64>]) -> Self {
        let disks = initial.iter().cloned().enumerate();
        Self {
            dir: tempfile::tempdir_in("/dev/shm").expect("a directory in memory"),
            disks: disks.map(|(n, live)| Sectors::new(n, live)).collect(),
            incarnation: Incarnation::default(),
            life: 0,
            tap: None,
            at_disk: BTreeMap::new(),
            next_ticket: 0,
            next_shipper: 0,
            refuses_writes: false,
            refuses_reads: false,
            slowness: 1,
            stopping: None,
            was_cut: false,
            promised: (0, Stamp::ZERO, Stamp::ZERO),
        }
    }
}

impl Tap {
    /// Bells are heard in all queues.
    pub(super) fn turn_queues(&mut self) {
        for tapped in &mut self.volumes {
            for queue in &mut tapped.queues {
                queue.turn();
            }
        }
    }

    /// Whether every volume's ranges have been read again.
    pub(super) fn is_reread(&self) -> bool {
        self.volumes.iter().all(|tapped| tapped.copier.is_reread())
    }

    /// Makes void what a dead tap has left, as the stream says what became of it; whether it is
    /// done without for some.
    pub(super) fn step_orphans(&mut self, is_late: bool) -> bool {
        let volumes = &self.volumes;
        let copier = |index: VolumeIndex| &volumes[usize::from(index.0)].copier;
        let is_read = |index, turn| copier(index).has_reread(turn);
        self.orphans.void_read(is_read);
        let held_up = self.orphans.holds_up(self.safe).filter(|(index, turn)| {
            let wanted_bytes = copier(*index).wanted_bytes();
            wanted_bytes.is_some_and(|bytes| !self.ring.has_room(bytes)) && !is_read(*index, *turn)
        });
        let is_forgone = match held_up {
            _ if is_late => self.orphans.forgo(&self.ring, |_| true),
            Some((index, _)) => self.orphans.forgo(&self.ring, |of| of == index),
            None => false,
        };
        if self.orphans.is_empty() {
            let volumes = self.volumes.iter_mut();
            volumes.for_each(|tapped| tapped.copier.hurry(false));
        }
        is_forgone
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        let mut queues = self.volumes.iter().flat_map(|tapped| &tapped.queues);
        queues.all(Queue::is_idle)
    }

    /// A member record that has its place now, if there is room.
    pub(super) fn claim(
        ring: &Ring,
        (payload, fields): (&[u8], ring::RecordFields),
        clock: Clock,
    ) -> Option<Stamp> {
        let mut claim = ring.claim(payload.len() as u32, clock.source()).ok()?;
        claim.payload_mut().copy_from_slice(payload);
        let filled = claim.fill(fields);
        let stamp = filled.stamp();
        filled.settle();
        Some(stamp)
    }
}
