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
    /// What of a dead tap waits for it, until it is served.
    pub(super) waits: Option<Waits>,
    pub(super) copier: Option<Copier>,
    pub(super) front: Option<Box<dyn Front>>,
    pub(super) link: PathBuf,
    /// What the state said before it was added; put back if its device cannot be made.
    pub(super) before: Option<Registered>,
    /// Why it was copied when it was added; that may be over before it is live.
    pub(super) copied: Option<String>,
    /// Who added it, until it is live.
    pub(super) asker: Option<ReplyTo>,
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
    /// The device went away under us.
    pub(super) is_gone: bool,
    /// Its device could not be made: it was not added.
    pub(super) has_failed: bool,
}

impl Tapped {
    pub(super) fn new(adding: Adding, opened: Opened) -> Self {
        Self {
            name: adding.volume,
            path: adding.path,
            disk: opened.disk,
            ranges: Arc::new(RangeTable::new()),
            shape: adding.shape,
            kind: adding.kind,
            waits: None,
            copier: None,
            front: None,
            link: PathBuf::new(),
            before: opened.before,
            copied: match opened.start {
                Start::Join(reason) => Some(reason),
                _ => None,
            },
            asker: Some(adding.reply),
            stats: Stats::default(),
            rate: Rate::default(),
            size: SizeWatch::default(),
            uncaptured_before: 0,
            faults: 0,
            is_in_doubt: false,
            is_gone: false,
            has_failed: false,
        }
    }

    /// A volume of a dead tap.
    pub(super) fn reopened(reopened: Reopened) -> Self {
        Self {
            name: reopened.name,
            path: reopened.path,
            disk: reopened.disk,
            ranges: Arc::new(RangeTable::new()),
            shape: reopened.shape,
            kind: reopened.waits.kind(),
            waits: Some(reopened.waits),
            copier: None,
            front: None,
            link: PathBuf::new(),
            before: None,
            copied: None,
            asker: None,
            stats: Stats::default(),
            rate: Rate::default(),
            size: SizeWatch::default(),
            uncaptured_before: 0,
            faults: 0,
            is_in_doubt: false,
            is_gone: false,
            has_failed: false,
        }
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

    /// Whether its device is still to be made, or to be gone on with.
    pub(super) fn is_starting(&self) -> bool {
        self.front.is_none() && (self.asker.is_some() || self.waits.is_some())
    }

    /// Takes note of what the device and the copier have done; whether more writes failed than
    /// could be noted.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        if let Some(copier) = &self.copier {
            self.rate.sample(now, copier.copied_bytes());
        }
        let Some(front) = &self.front else {
            return false;
        };
        self.stats = front.stats();
        if front.has_ended() && !self.is_gone {
            tracing::error!(volume = %self.name, "the device was deleted by somebody else");
            self.is_gone = true;
        }
        let list = front.take_faults();
        self.reread(list)
    }

    /// Asks the device to stop. Once it has, its last faults are taken.
    pub(super) fn stop(&mut self) {
        let Some(front) = &mut self.front else { return };
        if front.stop(Duration::ZERO).is_err() {
            return;
        }
        self.stats = front.stats();
        let list = front.take_faults();
        self.front = None;
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
        if let Some(front) = &self.front {
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
