//! Events: what can happen next, and when.

use super::link::Mail;

/// How a tap begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Its ring and its marks are gone: all is copied.
    Anew,
    /// It was stopped cleanly: volumes go on where they left.
    Clean,
    /// The ring of a killed one is there.
    Recover,
}

/// What becomes well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heal {
    /// Writes of the source's disk.
    Writes,
    /// Its reads.
    Reads,
    /// Its speed.
    Disk,
    /// The journal's speed.
    Journal,
    /// The shipper goes on.
    Shipper,
}

/// Something happens.
#[derive(Debug)]
pub(super) enum Event {
    /// The application asks for something.
    App,
    /// The disk answers.
    Disk { life: u64, ticket: u64 },
    /// A pause of a queue is over.
    Pause {
        life: u64,
        volume: usize,
        queue: usize,
    },
    /// The tap looks around.
    Turn { life: u64 },
    /// A copier works.
    Copier { life: u64, volume: usize },
    /// A tap begins.
    StartTap(Begin),
    /// A shipper begins.
    StartShipper { life: u64 },
    /// A shipper works.
    Ship { shipper: u64 },
    /// Something arrives at the receiver.
    ToReceiver { link: u64, mail: Mail },
    /// Something arrives at the source.
    ToSource { link: u64, mail: Mail },
    /// The journal writes.
    Commit { life: u64 },
    /// The worker of the group works.
    Work { life: u64 },
    /// The group looks at the clock.
    Tick { life: u64 },
    /// A receiver begins.
    StartSite,
    /// An operator restarts it.
    RestartSite { life: u64 },
    /// Something goes wrong.
    Fault,
    /// Something is well again.
    Heal(Heal),
    /// A point is asked for and compared.
    Look,
}

impl Event {
    /// A number for its kind and whom it concerns.
    pub(super) fn kind(&self) -> u64 {
        match self {
            Self::App => 1,
            Self::Disk { ticket, .. } => 2 | ticket << 8,
            Self::Pause { volume, queue, .. } => 3 | (*volume as u64) << 8 | (*queue as u64) << 16,
            Self::Turn { life } => 4 | life << 8,
            Self::Copier { life, .. } => 5 | life << 8,
            Self::StartTap(begin) => 6 | (*begin as u64) << 8,
            Self::StartShipper { life } => 7 | life << 8,
            Self::Ship { shipper } => 8 | shipper << 8,
            Self::ToReceiver { link, .. } => 9 | link << 8,
            Self::ToSource { link, .. } => 10 | link << 8,
            Self::Commit { life } => 11 | life << 8,
            Self::Work { life } => 12 | life << 8,
            Self::Tick { life } => 13 | life << 8,
            Self::StartSite => 14,
            Self::RestartSite { life } => 15 | life << 8,
            Self::Fault => 16,
            Self::Heal(heal) => 17 | (*heal as u64) << 8,
            Self::Look => 18,
        }
    }
}
