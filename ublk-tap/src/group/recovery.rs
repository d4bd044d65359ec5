//! Going on where a dead tap stopped: its stream, its volumes, its devices.
//!
//! The ranges are read again for which nobody knows what the disk has done; each record of the dead
//! tap is void, and the settle mark passes it, when its own range is in the stream. The devices go
//! live when none is left, so that the application does not take the room it needs. What is left
//! after a bounded time, or finds no room at all, is void without, and its volume not whole until
//! it is read ([`Orphans`]). A volume that was whole goes on without a copy; any other joins again
//! before its device takes writes.

use super::core::{CoreEvent, Start};
use super::driver::{Driver, PendingClaim};
use super::front::FrontKind;
use super::orphans::Orphans;
use super::roster::Roster;
use super::tapped::Tapped;
use super::volume::Place;
use crate::copier::{Copier, Rereads};
use crate::device::Shape;
use crate::disk::Disk;
use crate::failure::Failure;
use ring::Orphan;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{MemberAction, Name, VolumeIndex};

/// What a dead tap left, made ready to go on.
pub struct Recovery {
    /// Who is who in the stream; empty in a new one.
    pub roster: Roster,
    /// Records whose ranges are to be read again.
    pub orphans: Vec<Orphan>,
    /// Volumes whose devices or sockets wait.
    pub volumes: Vec<Reopened>,
    /// Volumes of the stream that have neither any more.
    pub gone: Vec<Name>,
    /// Ends the process and leaves the devices to the next one.
    pub give_up: Box<dyn Fn(&Failure) + Send>,
}

/// What a dead tap has left of a volume's front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// A device of the ublk driver, with requests.
    Device(u32),
    /// A socket nobody listens at; its clients are gone, or try again.
    Socket,
}

impl Waits {
    /// Its front end.
    pub(super) fn kind(self) -> FrontKind {
        match self {
            Self::Device(_) => FrontKind::Ublk,
            Self::Socket => FrontKind::Nbd,
        }
    }

    /// The device to go on with.
    pub(super) fn device(self) -> Option<u32> {
        match self {
            Self::Device(id) => Some(id),
            Self::Socket => None,
        }
    }
}

/// A volume of a dead tap.
pub struct Reopened {
    /// Its name.
    pub name: Name,
    /// The disk, as the operator called it.
    pub path: PathBuf,
    /// The disk, ours now.
    pub disk: Arc<Disk>,
    /// What waits for it.
    pub waits: Waits,
    /// Queues and sizes, as they were.
    pub shape: Shape,
    /// How it goes on.
    pub start: Start,
}

/// A recovery under way.
pub(super) struct Recovering {
    orphans: Orphans,
    /// Volumes whose devices wait for the ranges to be read.
    waiting: Vec<VolumeIndex>,
    deadline: Instant,
    give_up: Box<dyn Fn(&Failure) + Send>,
}

/// How long the devices wait for ranges to be read again. What is left then is read meanwhile.
const REREAD_PATIENCE: Duration = Duration::from_secs(10);

impl Driver {
    /// Takes over what a dead tap left.
    pub(super) fn recover(&mut self, now: Instant, recovery: Recovery) {
        let Recovery {
            roster,
            orphans,
            volumes,
            gone,
            give_up,
        } = recovery;
        self.members = roster.members();
        self.copies.clone_from(&roster.copies);
        let mut starts = Vec::new();
        for reopened in volumes {
            let start = reopened.start.clone();
            let name = reopened.name.clone();
            match self.enter(Tapped::reopened(reopened)) {
                Ok(index) => starts.push((index, start)),
                Err((_, failure)) => {
                    tracing::error!(volume = %name, "{failure}");
                    return give_up(&failure);
                }
            }
        }
        self.recovering = Some(Recovering {
            orphans: Orphans::new(orphans),
            waiting: Vec::new(),
            deadline: now + REREAD_PATIENCE,
            give_up,
        });
        if self.ring.is_closed() {
            let words = "the tap was killed while the stream was given up".into();
            self.decide(now, CoreEvent::GaveUp { words });
        } else {
            self.leave_gone(now, &gone);
            self.reread_orphans();
        }
        for (index, start) in starts {
            let volume = self.members.name(index);
            tracing::info!(?volume, %start, "recovered");
            self.decide(now, CoreEvent::Added { index, start });
        }
    }

    /// Whether the device of a volume is to wait; it goes live by itself then.
    pub(super) fn waits_for_rereads(&mut self, index: VolumeIndex) -> bool {
        let is_recovering = self
            .tapped
            .get(&index)
            .is_some_and(|tapped| tapped.waits().is_some());
        let Some(recovering) = self.recovering.as_mut().filter(|_| is_recovering) else {
            return false;
        };
        if recovering.orphans.is_empty() {
            return false;
        }
        recovering.waiting.push(index);
        true
    }

    /// Takes the recovery under way one step further.
    pub(super) fn step_recovery(&mut self, now: Instant) {
        if self.has_orphans() {
            self.step_orphans(now);
        }
        let Some(recovering) = self.recovering.as_mut() else {
            return;
        };
        if recovering.orphans.is_empty() {
            for index in std::mem::take(&mut recovering.waiting) {
                self.start_device(index);
            }
        }
    }

    /// Whether a record of a dead tap is still open.
    pub(super) fn has_orphans(&self) -> bool {
        let mut recovering = self.recovering.iter();
        recovering.any(|recovering| !recovering.orphans.is_empty())
    }

    fn step_orphans(&mut self, now: Instant) {
        let Some(recovering) = &mut self.recovering else {
            return;
        };
        let orphans = &mut recovering.orphans;
        let copier = |index| self.tapped.get(&index).and_then(|it| it.copier.as_ref());
        // A range that cannot be read gives the stream up, and that makes its orphan void.
        let is_read = |index, turn| copier(index).is_some_and(|it| it.has_reread(turn));
        let finds_no_room = |index| {
            let wanted_bytes = copier(index).and_then(Copier::wanted_bytes);
            wanted_bytes.is_some_and(|bytes| !self.ring.has_room(bytes))
        };
        let mut is_less = orphans.void_read(is_read);
        if now >= recovering.deadline {
            is_less |= orphans.forgo(&self.ring, |_| true);
        } else if let Some((index, turn)) = orphans.holds_up(self.safe)
            && finds_no_room(index)
            && !is_read(index, turn)
        {
            is_less |= orphans.forgo(&self.ring, |of| of == index);
        }
        if is_less {
            self.orphans_went();
        }
    }

    fn orphans_went(&self) {
        self.ring.notify_consumer();
        if !self.has_orphans() {
            self.hurry_copiers(false);
        }
    }

    fn hurry_copiers(&self, is_hurried: bool) {
        let copiers = self.tapped.values().filter_map(|it| it.copier.as_ref());
        copiers.for_each(|copier| copier.hurry(is_hurried));
    }

    /// Whether no device of a dead tap is held back.
    pub(super) fn has_recovered(&self) -> bool {
        self.recovering
            .as_ref()
            .is_none_or(|it| it.waiting.is_empty())
    }

    /// The device of a dead tap cannot be gone on with. Whoever uses it still waits: the process
    /// ends, and with it nothing of what it could leave to the next one.
    ///
    /// Returns whether it was one.
    pub(super) fn not_recovered(&self, index: VolumeIndex, failure: &Failure) -> bool {
        let tapped = self.tapped.get(&index);
        let is_recovering = tapped.is_some_and(|tapped| tapped.waits().is_some());
        if let Some(recovering) = self.recovering.as_ref().filter(|_| is_recovering) {
            (recovering.give_up)(failure);
        }
        is_recovering
    }

    /// The stream is given up, and with it what the dead tap's writes may have done.
    pub(super) fn give_up_orphans(&mut self) {
        if let Some(recovering) = &mut self.recovering {
            recovering.orphans.give_up();
            self.orphans_went();
        }
    }

    /// Notes in the ring which volumes need no copy if we die now. What the dead tap has noted
    /// stands while its orphans do: a successor finds them too.
    pub(super) fn note_whole(&self) {
        if self.has_orphans() {
            return;
        }
        let is_whole = |(index, tapped): (&VolumeIndex, &Tapped)| {
            self.core.place(*index) == Some(Place::Ready)
                && !self.core.is_in_doubt(*index)
                && tapped.rereads() == Rereads::Done
        };
        let whole = |entry| Some(entry).filter(|entry| is_whole(*entry)).map(|(i, _)| i);
        let is_usable = self.is_roster_saved && !self.ring.is_closed();
        let volumes = self.tapped.iter().filter(|_| is_usable);
        self.ring.set_whole(volumes.filter_map(whole).fold(0, with));
    }

    /// A volume is about to join: from here on it needs a copy if we die.
    pub(super) fn note_join(&self, index: VolumeIndex, action: MemberAction) {
        if action == MemberAction::Join {
            let mask = with(0, &index);
            self.ring.set_whole(self.ring.whole() & !mask);
            self.ring.end_doubt(index);
        }
    }

    /// Keeps the volume table for a successor.
    pub(super) fn save_roster(&mut self) {
        let copies = self.tapped.keys();
        let copies: Vec<(u16, u64)> = copies
            .map(|index| (index.0, self.core.copies(*index)))
            .filter(|(_, copies)| *copies > 0)
            .collect();
        self.copies.extend(copies);
        let roster = Roster {
            volumes: self.members.specs().to_vec(),
            copies: self.copies.clone(),
        };
        let path = self.dirs.roster(&self.group);
        let saved = roster.save(&path, self.ring.incarnation());
        if let Err(error) = &saved {
            tracing::warn!(%error, path = %path.display(), "if the tap dies, all is copied again");
        }
        self.is_roster_saved = saved.is_ok();
        if saved.is_err() {
            self.ring.set_whole(0);
        }
    }

    fn reread_orphans(&mut self) {
        self.hurry_copiers(self.has_orphans());
        let Some(recovering) = &mut self.recovering else {
            return;
        };
        recovering.orphans.order(|index, range| {
            let copier = self.tapped.get(&index)?.copier.as_ref()?;
            Some(copier.reread(range))
        });
    }

    /// They died with the tap while they came or went.
    fn leave_gone(&mut self, now: Instant, gone: &[Name]) {
        let index_of = |name: &Name| {
            let mut specs = self.members.specs().iter();
            specs.find(|spec| spec.name == *name).map(|spec| spec.index)
        };
        let gone: Vec<VolumeIndex> = gone.iter().filter_map(index_of).collect();
        for index in gone {
            self.claims.push_back(PendingClaim {
                index,
                action: MemberAction::Leave,
                since: now,
            });
        }
        self.claim_members(now);
    }
}

/// The volumes with one more. One that has no bit is never whole.
fn with(volumes: u64, index: &VolumeIndex) -> u64 {
    volumes | 1_u64.checked_shl(u32::from(index.0)).unwrap_or(0)
}
