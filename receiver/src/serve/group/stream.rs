//! A stream inside its group: intake, what was appended, where it began and ended.

use crate::catalog::{PointRecord, VolumeState};
use crate::intake::Intake;
use crate::points::History;
use std::collections::BTreeMap;
use wire::journal::StreamNumber;
use wire::{Incarnation, Name, Stamp};

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: StreamNumber,
    pub(super) intake: Intake,
    /// Entries appended and not durable yet.
    pub(super) pending: usize,
    /// Up to here the points know what it says already.
    pub(super) known: Stamp,
    /// Where the points were when it began; set when they came to it.
    pub(super) opening: Option<Milestone>,
    /// Where the base ends in it; set when it is closed and all of it is known.
    pub(super) ending: Option<Ending>,
}

/// How a stream ends.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// How far the base goes in it.
    pub(super) limit: Stamp,
    /// States and point there.
    pub(super) milestone: Milestone,
    /// Where the points before it are.
    pub(super) history: History,
}

/// States of the volumes and the newest point, at some place.
#[derive(Clone, Debug, Default)]
pub(super) struct Milestone {
    pub(super) states: BTreeMap<Name, VolumeState>,
    pub(super) point: Option<PointRecord>,
}

impl Stream {
    pub(super) fn new(number: StreamNumber, intake: Intake) -> Self {
        let known = Stamp::ZERO;
        Self {
            number,
            intake,
            pending: 0,
            known,
            opening: None,
            ending: None,
        }
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.intake.stream().incarnation
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.pending == 0
    }
}
