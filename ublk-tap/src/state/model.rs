//! The state as values. Pure.

use super::codec::PATH_BYTES_MAX;
use crate::device::Shape;
use crate::group::FrontKind;
use std::path::Path;
use wire::{Generation, Incarnation, Name, Stamp, TimeMark};

/// State of a group on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The group.
    pub group: Name,
    /// The history the receiver says this group belongs to; zero before it has said.
    pub generation: Generation,
    /// The newest life of a ring; its counter was written before the ring was made.
    pub incarnation: Incarnation,
    /// Volumes this host has ever added to the group and not forgotten, by name.
    pub volumes: Vec<Registered>,
}

/// A volume and the disk it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub name: Name,
    /// Identity of its disk.
    pub identity: String,
    /// What the disk was last opened as.
    pub path: String,
    /// Size of the disk.
    pub size_bytes: u64,
    /// Logical sector of the disk.
    pub sector_bytes: u32,
    /// What it was last served by.
    pub service: Service,
    /// How it was left.
    pub rest: Rest,
}

/// How a volume is served, and whether it is again when its tap is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What the application uses.
    pub frontend: FrontKind,
    /// Queues of its device.
    pub queues: u16,
    /// Requests in flight per queue or client.
    pub depth: u16,
    /// Nobody has removed it: it comes back when the tap is run.
    pub returns: bool,
}

/// How a volume was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// With everything safe at the receiver and the disk synced.
    Clean(CleanMark),
    /// In any other way: it is copied when it comes back.
    Unclean(Unclean),
}

/// What proves that nothing needs to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanMark {
    /// The life of the ring its `leave` record is in.
    pub incarnation: Incarnation,
    /// The stamp of its `leave` record.
    pub stamp: Stamp,
    /// Fingerprint of the disk, as text.
    pub fingerprint: String,
    /// What was known of writes to the disk, as text.
    pub writes: String,
    /// When.
    pub at: TimeMark,
}

/// Why a volume is not clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unclean {
    /// It is live; found by a new tap, the last one was killed.
    Live = 1,
    /// It was removed with `--abandon`.
    Abandoned = 2,
    /// The tap was stopped before everything was safe.
    NotDrained = 3,
    /// The stream was given up and not yet copied again.
    Broken = 4,
    /// One slot of the state file was damaged: the other may be the older one.
    Doubtful = 5,
}

/// The path of a disk as it is kept; or why it cannot be, in words. Changed, it would lead to another
/// disk when it is opened again, or to none.
pub fn kept_path(path: &Path) -> Result<&str, String> {
    let shown = path.display();
    let Some(text) = path.to_str() else {
        return Err(format!(
            "the path {shown} is not UTF-8 and cannot be kept; give the disk another name"
        ));
    };
    if text.len() > PATH_BYTES_MAX {
        return Err(format!(
            "the path {shown} is longer than {PATH_BYTES_MAX} bytes and cannot be kept; use a \
             shorter one"
        ));
    }
    Ok(text)
}

impl State {
    /// The state of a group that never ran here.
    ///
    /// Its incarnation counter is `seconds` since the epoch; see [`Self::next_counter`].
    pub fn new(group: Name, seconds: u64) -> Self {
        let incarnation = Incarnation {
            counter: seconds,
            id: 0,
        };
        let (generation, volumes) = (Generation::default(), Vec::new());
        Self {
            group,
            generation,
            incarnation,
            volumes,
        }
    }

    /// Counter of the next incarnation: `seconds` since the epoch, or one more than the last where
    /// the clock is behind. So a tap whose state file was lost, or put back from an old copy, still
    /// comes after every life it ever had.
    pub fn next_counter(&self, seconds: u64) -> u64 {
        seconds.max(self.incarnation.counter + 1)
    }

    /// The volume of this name.
    pub fn volume(&self, name: &Name) -> Option<&Registered> {
        self.volumes.iter().find(|volume| volume.name == *name)
    }

    /// Enters a volume, in place of the one of the same name.
    pub fn put(&mut self, volume: Registered) {
        self.forget(&volume.name);
        self.volumes.push(volume);
        self.volumes.sort_by(|one, other| one.name.cmp(&other.name));
    }

    /// Takes back every clean mark: it may be older than what was done to the disk since.
    pub(super) fn doubt(&mut self) {
        for volume in &mut self.volumes {
            if matches!(volume.rest, Rest::Clean(_)) {
                volume.rest = Rest::Unclean(Unclean::Doubtful);
            }
        }
    }

    /// Forgets a volume; whether it was known.
    pub fn forget(&mut self, name: &Name) -> bool {
        let before = self.volumes.len();
        self.volumes.retain(|volume| volume.name != *name);
        self.volumes.len() < before
    }
}

impl Service {
    /// As a device of `shape`, until it is removed.
    pub fn of(frontend: FrontKind, shape: Shape) -> Self {
        Self {
            frontend,
            queues: shape.queues,
            depth: shape.depth,
            returns: true,
        }
    }
}

impl Unclean {
    /// The cause with this code.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        let all = [
            Self::Live,
            Self::Abandoned,
            Self::NotDrained,
            Self::Broken,
            Self::Doubtful,
        ];
        all.into_iter().find(|cause| *cause as u8 == code)
    }

    /// The cause in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Live => "not clean: the tap was killed",
            Self::Abandoned => "not clean: removed with --abandon",
            Self::NotDrained => "not clean: stopped before everything was at the receiver",
            Self::Broken => "not clean: stopped while the stream was given up",
            Self::Doubtful => "not clean: the state file was damaged",
        }
    }
}
