//! A volume as the driver holds it.

use super::clerk::Opened;
use super::core::Start;
use super::driver::Adding;
use super::front::{Front, FrontKind};
use super::rate::Rate;
use super::recovery::{Reopened, Waits};
use super::size_watch::SizeWatch;
use crate::control::ReplyTo;
use crate::copier::{Copier, REREADS_MAX, Rereads};
use crate::device::{FaultList, Shape, Stats};
use crate::disk::Disk;
use crate::ranges::{Range, RangeTable};
use crate::state::Registered;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::Name;

/// A volume and everything that belongs to it.
pub(super) struct Tapped {
    pub(super) name: Name,
    /// The disk, as the operator calls it.
    pub(super) path: PathBuf,
    pub(super) disk: Arc<Disk>,
    pub(super) ranges: Arc<RangeTable>,
    pub(super) shape: Shape,
    pub(super) kind: FrontKind,
    pub(super) life: Life,
    pub(super) copier: Option<Copier>,
    pub(super) stats: Stats,
    pub(super) rate: Rate,
    /// Whether the disk below was resized.
    pub(super) size: SizeWatch,
    /// Bytes written uncaptured before the stream was given up last.
    uncaptured_before: u64,
    /// Writes that failed, as far as they were noted.
    pub(super) faults: u64,
    /// More writes failed while the device stopped than could be noted.
    is_in_doubt: bool,
}

/// How far a volume's device has come.
pub(super) enum Life {
    /// It is to be made.
    Added(Added),
    /// That of a dead tap is to be gone on with.
    Waiting(Waits),
    /// It serves.
    Live(Box<dyn Front>),
    /// Somebody else has deleted it.
    Gone(Box<dyn Front>),
    /// It was told to stop.
    Stopping(Box<dyn Front>),
    /// It is no more, with nothing in flight.
    Stopped,
    /// It could not be made: the volume was not added. What the state said before.
    Failed(Option<Registered>),
}

/// A volume that was added, until its device is made.
pub(super) struct Added {
    /// Who waits for it.
    pub(super) asker: ReplyTo,
    /// What the state said before; put back if the device cannot be made.
    pub(super) before: Option<Registered>,
    /// Why it is copied; that may be over before it is live.
    pub(super) copied: Option<String>,
}

/// What a volume is, whatever becomes of it.
struct Basis {
    name: Name,
    path: PathBuf,
    disk: Arc<Disk>,
    shape: Shape,
    kind: FrontKind,
}

impl Basis {
    fn with(self, life: Life) -> Tapped {
        Tapped {
            name: self.name,
            path: self.path,
            disk: self.disk,
            ranges: Arc::new(RangeTable::new()),
            shape: self.shape,
            kind: self.kind,
            life,
            copier: None,
            stats: Stats::default(),
            rate: Rate::default(),
            size: SizeWatch::default(),
            uncaptured_before: 0,
            faults: 0,
            is_in_doubt: false,
        }
    }
}

impl Tapped {
    pub(super) fn new(adding: Adding, opened: Opened) -> Self {
        let basis = Basis {
            name: adding.volume,
            path: adding.path,
            disk: opened.disk,
            shape: adding.shape,
            kind: adding.kind,
        };
        basis.with(Life::Added(Added {
            asker: adding.reply,
            before: opened.before,
            copied: match opened.start {
                Start::Join(reason) => Some(reason),
                _ => None,
            },
        }))
    }

    /// A volume of a dead tap.
    pub(super) fn reopened(reopened: Reopened) -> Self {
        let basis = Basis {
            name: reopened.name,
            path: reopened.path,
            disk: reopened.disk,
            shape: reopened.shape,
            kind: reopened.waits.kind(),
        };
        basis.with(Life::Waiting(reopened.waits))
    }

    /// Its device, while there is one.
    pub(super) fn front(&self) -> Option<&dyn Front> {
        match &self.life {
            Life::Live(front) | Life::Gone(front) | Life::Stopping(front) => Some(&**front),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn front_mut(&mut self) -> Option<&mut Box<dyn Front>> {
        match &mut self.life {
            Life::Live(front) | Life::Gone(front) | Life::Stopping(front) => Some(front),
            _ => None,
        }
    }

    /// Who added it and still waits.
    pub(super) fn asker(self) -> Option<ReplyTo> {
        match self.life {
            Life::Added(added) => Some(added.asker),
            _ => None,
        }
    }

    /// What of a dead tap waits for it.
    pub(super) fn waits(&self) -> Option<Waits> {
        match self.life {
            Life::Waiting(waits) => Some(waits),
            _ => None,
        }
    }

    /// Whether its device is still to be made, or to be gone on with.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.life, Life::Added(_) | Life::Waiting(_))
    }

    /// Whether its device was deleted by somebody else.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.life, Life::Gone(_))
    }

    /// Notices that the disk was resized; whether something was cut off, which is in doubt from here
    /// on, also when it comes back.
    pub(super) fn watch_size(&mut self, now: Instant) -> bool {
        let disk = &self.disk;
        let cut = self
            .size
            .look(now, disk.size_bytes(), || disk.size_bytes_now());
        let Some((start, end)) = cut else {
            return false;
        };
        let sector = u64::from(self.disk.sector_bytes());
        if let Some(copier) = &self.copier {
            copier.reread(Range::new(start / sector * sector, end));
        }
        true
    }

    /// Takes note of what the device and the copier have done; whether more writes failed than
    /// could be noted.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        if let Some(copier) = &self.copier {
            self.rate.sample(now, copier.copied_bytes());
        }
        let Some(front) = self.front() else {
            return false;
        };
        let (stats, has_ended, list) = (front.stats(), front.has_ended(), front.take_faults());
        self.stats = stats;
        if has_ended {
            self.lose();
        }
        self.reread(list)
    }

    /// Its device has ended; one that was told to may.
    fn lose(&mut self) {
        self.life = match std::mem::replace(&mut self.life, Life::Stopped) {
            Life::Live(front) => {
                tracing::error!(volume = %self.name, "the device was deleted by somebody else");
                Life::Gone(front)
            }
            other => other,
        };
    }

    /// Asks the device to stop. Once it has, its last faults are taken.
    pub(super) fn stop(&mut self) {
        self.life = match std::mem::replace(&mut self.life, Life::Stopped) {
            Life::Live(front) | Life::Gone(front) => Life::Stopping(front),
            other => other,
        };
        let Life::Stopping(front) = &mut self.life else {
            return;
        };
        if front.stop(Duration::ZERO).is_err() {
            return;
        }
        self.stats = front.stats();
        let list = front.take_faults();
        self.life = Life::Stopped;
        self.is_in_doubt |= self.reread(list);
    }

    /// Where the ranges stand whose writes failed.
    pub(super) fn rereads(&self) -> Rereads {
        match &self.copier {
            _ if self.is_in_doubt => Rereads::Lost,
            Some(copier) => copier.rereads(),
            None => Rereads::Done,
        }
    }

    fn reread(&mut self, list: FaultList) -> bool {
        let before = self.faults;
        self.faults += list.faults.len() as u64 + u64::from(list.overflowed);
        let Some(copier) = &self.copier else {
            return self.faults > before;
        };
        // A disk that fails every write must not fill the log as well (P11).
        if before.checked_ilog2() != self.faults.checked_ilog2()
            && let Some(first) = list.faults.first()
        {
            let (at, bytes) = (first.range.start_bytes(), first.range.length_bytes());
            let (errno, so_far) = (first.errno, self.faults);
            tracing::error!(volume = %self.name, at, bytes, errno, so_far, "writes failed");
        }
        for fault in &list.faults {
            if copier.rereads_left() >= REREADS_MAX {
                return true;
            }
            copier.reread(fault.range);
        }
        list.overflowed
    }

    /// The stream is given up: what is written from here on is missing at the receiver.
    pub(super) fn note_loss(&mut self) {
        if let Some(front) = self.front() {
            self.stats = front.stats();
        }
        self.uncaptured_before = self.stats.uncaptured_bytes;
    }

    /// Bytes written while the stream is, or was last, given up.
    pub(super) fn lost_bytes(&self) -> u64 {
        self.stats
            .uncaptured_bytes
            .saturating_sub(self.uncaptured_before)
    }
}
