//! Settling: the chain of settle marks, from arrival to durable.

use super::violation::Violation;
use std::collections::BTreeSet;
use wire::limits::SETTLE_VOIDS_MAX;
use wire::{SettleMark, Stamp};

/// Most void stamps received and not yet journaled.
const VOIDS_MAX: usize = 1 << 20;

/// Marks received, journaled, durable: each a place up to which the chain is whole.
#[derive(Debug)]
pub(super) struct Settling {
    received: Stamp,
    journaled: Stamp,
    durable: Stamp,
    /// Void stamps in `(journaled, received]`.
    voids: BTreeSet<Stamp>,
}

impl Settling {
    pub(super) fn new(settled: Stamp) -> Self {
        let (received, journaled, durable) = (settled, settled, settled);
        Self {
            received,
            journaled,
            durable,
            voids: BTreeSet::new(),
        }
    }

    pub(super) fn durable(&self) -> Stamp {
        self.durable
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.journaled > self.durable
    }

    /// Takes a mark; one that says nothing new is let pass.
    pub(super) fn receive(&mut self, mark: &SettleMark) -> Result<(), Violation> {
        if mark.upto <= self.received {
            return Ok(());
        }
        if mark.after != self.received {
            let (after, expected) = (mark.after, self.received);
            return Err(Violation::SettleHole { after, expected });
        }
        if self.voids.len() + mark.voids.len() > VOIDS_MAX {
            return Err(Violation::TooManyVoids);
        }
        self.voids.extend(&mark.voids);
        self.received = mark.upto;
        Ok(())
    }

    /// One mark for all that was received and lies below `limit`; one at a time.
    pub(super) fn due(&mut self, limit: Stamp) -> Option<SettleMark> {
        let mut upto = self.received.min(limit);
        if self.is_under_way() || upto <= self.journaled {
            return None;
        }
        let mut voids: Vec<Stamp> = self.voids.range(..=upto).copied().collect();
        if voids.len() > SETTLE_VOIDS_MAX {
            voids.truncate(SETTLE_VOIDS_MAX);
            upto = voids.last().copied().unwrap_or(upto);
        }
        let rest = self.voids.split_off(&upto.next());
        self.voids = rest;
        let after = std::mem::replace(&mut self.journaled, upto);
        Some(SettleMark { after, upto, voids })
    }

    /// The journal holds `mark`; false if it does not continue the chain.
    pub(super) fn settled(&mut self, mark: &SettleMark) -> bool {
        if mark.after > self.durable || mark.upto <= self.durable {
            return false;
        }
        self.durable = mark.upto;
        self.journaled = self.journaled.max(self.durable);
        self.received = self.received.max(self.durable);
        true
    }

    /// Forgets marks that were not journaled.
    pub(super) fn forget(&mut self) {
        self.received = self.journaled;
        self.voids.clear();
    }

    /// Nothing up to `stamp` will be settled in words.
    pub(super) fn skip_to(&mut self, stamp: Stamp) {
        self.durable = self.durable.max(stamp);
        self.journaled = self.journaled.max(stamp);
        self.received = self.received.max(stamp);
        let rest = self.voids.split_off(&stamp.next());
        self.voids = rest;
    }
}
