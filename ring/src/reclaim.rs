//! Giving memory back, and the check that makes this safe whatever the shipper writes.
//!
//! Owned by the tap. The acked word of the consumer page is a claim by an unprivileged process. It
//! is believed only when it does not go back, does not run ahead of what was captured, and every
//! record up to it is settled or void; else nothing is freed, now or later, until the tap has dealt
//! with the shipper. This is what keeps the memory of a disk write in flight from being reused (P1).

use crate::layout::{ACKED_WORD, FREED_POSITION_WORD, FREED_STAMP_WORD, SENT_WORD};
use crate::map::{PageMap, TapMap};
use crate::place::Cursor;
use crate::sync::Ordering;
use crate::sync::{Mutex, MutexGuard};
use std::sync::PoisonError;
use wire::Stamp;

/// The shipper's page says something that cannot be: the group is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckViolation {
    /// The acked cursor went back.
    #[error("shipper moved its acked cursor back from {freed} to {acked}; restart the shipper")]
    Backwards {
        /// What the page says.
        acked: Stamp,
        /// What it said before.
        freed: Stamp,
    },
    /// The acked cursor is beyond the newest record.
    #[error("shipper acked {acked} of {captured} records; restart the shipper")]
    Ahead {
        /// What the page says.
        acked: Stamp,
        /// The newest stamp.
        captured: Stamp,
    },
    /// The acked cursor covers a record the disk has not answered for.
    #[error("shipper acked {acked}, but the disk has not answered for {open}; restart the shipper")]
    Unsettled {
        /// What the page says.
        acked: Stamp,
        /// The first such record.
        open: Stamp,
    },
}

/// The one place that moves the freed cursor.
#[derive(Debug, Default)]
pub(crate) struct Reclaimer {
    /// Held while the page is judged; a violation stays until it is reset.
    violation: Mutex<Option<AckViolation>>,
}

impl Reclaimer {
    /// Frees everything the page says is acked. Returns how many records were freed.
    pub(crate) fn reclaim(&self, map: &TapMap, page: &PageMap) -> Result<u64, AckViolation> {
        let mut violation = self.lock();
        if let Some(violation) = *violation {
            return Err(violation);
        }
        // First the page, then the claims: records claimed, shipped and acked between the two loads
        // would make an honest shipper look as if it ran ahead.
        let acked = page.word(ACKED_WORD).load(Ordering::Acquire);
        let (_, claimed, freed) = map.claimed();
        match judge(acked, freed, claimed, |stamp| {
            map.state(stamp).done_as(stamp).is_some()
        }) {
            Ok(0) => Ok(0),
            Ok(count) => {
                free(map, freed, acked);
                Ok(count)
            }
            Err(found) => {
                *violation = Some(found);
                Err(found)
            }
        }
    }

    /// The violation found, if any.
    pub(crate) fn violation(&self) -> Option<AckViolation> {
        *self.lock()
    }

    /// Forgets a violation and sets the page back to what was freed.
    pub(crate) fn reset(&self, map: &TapMap, page: &PageMap) {
        let mut violation = self.lock();
        let freed = map.freed().stamp;
        page.word(SENT_WORD).store(freed, Ordering::Release);
        page.word(ACKED_WORD).store(freed, Ordering::Release);
        *violation = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<AckViolation>> {
        // The value is a plain copy that is written last: a panic elsewhere cannot have torn it.
        self.violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decides about an acked cursor: how many records it frees, or what is wrong with it. Pure.
fn judge(
    acked: u64,
    freed: Cursor,
    claimed: Cursor,
    is_done: impl Fn(u64) -> bool,
) -> Result<u64, AckViolation> {
    if acked < freed.stamp {
        return Err(AckViolation::Backwards {
            acked: Stamp(acked),
            freed: Stamp(freed.stamp),
        });
    }
    if acked > claimed.stamp {
        return Err(AckViolation::Ahead {
            acked: Stamp(acked),
            captured: Stamp(claimed.stamp),
        });
    }
    let open = (freed.stamp + 1..=acked).find(|stamp| !is_done(*stamp));
    if let Some(open) = open {
        return Err(AckViolation::Unsettled {
            acked: Stamp(acked),
            open: Stamp(open),
        });
    }
    Ok(acked - freed.stamp)
}

/// Moves the freed cursor to `acked`, whose record is done and was not freed before.
fn free(map: &TapMap, freed: Cursor, acked: u64) {
    let end = map.load_descriptor(acked).end;
    assert!(end >= freed.position, "positions only grow");
    assert!(end - freed.position <= map.layout().geometry.area_units());
    // The stamp first: whoever sees the new position, or memory given out because of it, must see
    // that the records are gone.
    map.word(FREED_STAMP_WORD).store(acked, Ordering::Release);
    map.word(FREED_POSITION_WORD).store(end, Ordering::Release);
}
