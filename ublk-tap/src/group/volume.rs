//! A volume as the core sees it. Pure.

use super::backoff::Backoff;
use std::time::Instant;
use wire::{MemberAction, Stamp};

/// Where a volume stands in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its first member record is to be claimed; its device takes no writes yet.
    Entering(MemberAction),
    /// Its device is live, but the stream is given up: it joins when it is taken up again.
    Outside,
    /// Its `join` is to be claimed.
    Joining,
    /// It is read into the stream.
    Copying {
        /// Its newest `join`.
        join: Stamp,
    },
    /// All of it was read; its `ready` is to be claimed.
    Closing {
        /// Its newest `join`.
        join: Stamp,
    },
    /// Its `ready` is on the way to the receiver.
    Confirming {
        /// Its newest `join`.
        join: Stamp,
        /// Its `ready`.
        ready: Stamp,
    },
    /// The receiver has all of it; every change follows.
    Ready,
    /// Its device is gone; its `leave` is to be claimed.
    Leaving,
    /// Its content rests since this stamp.
    Left {
        /// Its `leave`.
        leave: Stamp,
    },
}

/// A volume and its history in this life of the tap.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) place: Place,
    /// Why it is copied, in words; empty if it is not.
    pub(super) reason: String,
    /// Number of the newest copy; what an older one reports is ignored.
    pub(super) run: u64,
    /// A copy somebody wants, and why.
    pub(super) wish: Option<String>,
    /// More writes failed than could be noted: only a copy makes it whole again.
    pub(super) is_in_doubt: bool,
    backoff: Backoff,
}

impl Place {
    /// Whether the receiver needs more than the changes that follow.
    pub fn is_copying(self) -> bool {
        matches!(
            self,
            Self::Entering(MemberAction::Join)
                | Self::Joining
                | Self::Copying { .. }
                | Self::Closing { .. }
                | Self::Confirming { .. }
        )
    }

    /// Whether it is on its way out, or gone.
    pub fn is_parting(self) -> bool {
        matches!(self, Self::Leaving | Self::Left { .. })
    }

    /// The `join` a running copy belongs to.
    pub(super) fn join(self) -> Option<Stamp> {
        match self {
            Self::Copying { join } | Self::Closing { join } | Self::Confirming { join, .. } => {
                Some(join)
            }
            _ => None,
        }
    }

    /// The member record that is waited for.
    pub(super) fn claims(self) -> Option<MemberAction> {
        match self {
            Self::Entering(action) => Some(action),
            Self::Joining => Some(MemberAction::Join),
            Self::Closing { .. } => Some(MemberAction::Ready),
            Self::Leaving => Some(MemberAction::Leave),
            _ => None,
        }
    }
}

impl Volume {
    pub(super) fn new(place: Place, reason: String) -> Self {
        Self {
            place,
            reason,
            run: 0,
            wish: None,
            is_in_doubt: false,
            backoff: Backoff::new(),
        }
    }

    /// The copy somebody wants, if it may begin now.
    pub(super) fn take_wish(&mut self, now: Instant) -> Option<String> {
        if !self.backoff.is_over(now) {
            return None;
        }
        let wish = self.wish.take()?;
        self.backoff.failed(now);
        Some(wish)
    }
}
