//! A volume as the driver holds it.

use super::clerk::Opened;
use super::driver::Adding;
use super::front::Front;
use super::rate::Rate;
use crate::control::ReplyTo;
use crate::copier::Copier;
use crate::device::{FaultList, Shape, Stats};
use crate::disk::Disk;
use crate::ranges::RangeTable;
use crate::state::Registered;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use wire::Name;

/// A volume and everything that belongs to it.
pub(super) struct Tapped {
    pub(super) name: Name,
    /// The disk, as the operator calls it.
    pub(super) path: PathBuf,
    pub(super) disk: Arc<Disk>,
    pub(super) ranges: Arc<RangeTable>,
    pub(super) shape: Shape,
    pub(super) copier: Option<Copier>,
    pub(super) front: Option<Box<dyn Front>>,
    pub(super) link: PathBuf,
    /// What the state said before it was added; put back if its device cannot be made.
    pub(super) before: Option<Registered>,
    /// Who added it, until it is live.
    pub(super) asker: Option<ReplyTo>,
    pub(super) stats: Stats,
    pub(super) rate: Rate,
    /// Bytes written uncaptured before the stream was given up last.
    uncaptured_before: u64,
    /// The device went away under us.
    pub(super) is_gone: bool,
}

impl Tapped {
    pub(super) fn new(adding: Adding, opened: Opened) -> Self {
        Self {
            name: adding.volume,
            path: adding.path,
            disk: opened.disk,
            ranges: Arc::new(RangeTable::new()),
            shape: adding.shape,
            copier: None,
            front: None,
            link: PathBuf::new(),
            before: opened.before,
            asker: Some(adding.reply),
            stats: Stats::default(),
            rate: Rate::default(),
            uncaptured_before: 0,
            is_gone: false,
        }
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
        self.reread(front.take_faults())
    }

    fn reread(&self, list: FaultList) -> bool {
        let Some(copier) = &self.copier else {
            return false;
        };
        for fault in list.faults {
            let (at, bytes) = (fault.range.start_bytes(), fault.range.length_bytes());
            tracing::error!(volume = %self.name, at, bytes, errno = fault.errno, "a write failed");
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
