//! What is known of a change, for those who damage images.

use super::{Change, History, Moment};
use sim::oracle::ZERO;

impl History {
    /// What a sector held before a change.
    pub(crate) fn before(&self, volume: usize, sector: usize, change: Change) -> Option<u64> {
        let changes = &self.volumes[volume].changes[sector];
        let nth = changes.binary_search(&(change as u32)).ok()?;
        let before = changes[nth.checked_sub(1)?];
        Some(self.asked[before as usize].content)
    }

    /// When a change was asked for and answered.
    pub(crate) fn span(&self, change: Change) -> (Moment, Moment) {
        let asked = &self.asked[change];
        (asked.at, asked.answered)
    }

    /// Whether a change of whole sectors is expected to be whole.
    pub(crate) fn is_whole(&self, change: Change) -> bool {
        self.asked[change].is_whole
    }

    /// Whether a change stamps its sectors.
    pub(crate) fn writes(&self, change: Change) -> bool {
        self.asked[change].content != ZERO
    }

    /// The change that follows one in a sector.
    pub(crate) fn next(&self, volume: usize, sector: usize, change: Change) -> Option<Change> {
        let changes = &self.volumes[volume].changes[sector];
        let nth = changes.partition_point(|other| *other as usize <= change);
        changes.get(nth).map(|next| *next as usize)
    }
}
