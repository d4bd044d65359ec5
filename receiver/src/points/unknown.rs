//! What a failed write has left behind holds the points until it is known again. Pure.
//!
//! Part of [`Points`]. A volume some range of which is unknown is not exact, just as one that is
//! being copied: the newest complete point stays before the failed write, and status names the
//! range. The source reads it again and sends a copy at once, so this is over as soon as it came;
//! a source that cannot read it gives the stream up and copies the volume.

use super::{Points, Volume, inexact_state};
use crate::catalog::VolumeState;
use crate::fold::ByteRange;
use crate::points::Wanted;
use wire::{Name, Stamp};

impl Volume {
    /// Whether a range of it is unknown that its copy, if one runs, has not passed over.
    pub(super) fn is_held(&self) -> bool {
        let part = matches!(self.state, VolumeState::Ready | VolumeState::Copying { .. });
        part && self.unknown.is_some()
    }
}

impl Points {
    /// Whether a range of the volume, which was copied, is unknown.
    pub fn is_unknown(&self, name: &Name) -> bool {
        self.volumes.get(name).is_some_and(Volume::is_held)
    }

    /// A write of the volume failed at `stamp`, and what it holds in `range` is unknown.
    pub(super) fn open_range(&mut self, stamp: Stamp, name: &Name, range: ByteRange) {
        // Others are copied as a whole before they count.
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.unknown = Some(range);
            if volume.is_held() {
                self.freeze(stamp.prev(), &words(name, range));
            }
        }
    }

    /// All of the volume is known again.
    pub(super) fn close_ranges(&mut self, name: &Name) {
        let Some(volume) = self.volumes.get_mut(name) else {
            return;
        };
        let was_held = volume.is_held();
        volume.unknown = None;
        if was_held && let (Some(reason), Some(frozen)) = (self.inexact(), &mut self.frozen) {
            frozen.reason = reason;
        }
    }

    /// There were too many ranges to remember.
    pub(super) fn give_up_ranges(&mut self, stamp: Stamp, name: &Name) {
        let Some(volume) = self.volumes.get_mut(name) else {
            return;
        };
        let (was_held, counts) = (volume.is_held(), volume.counts);
        volume.unknown = None;
        if !was_held {
            return;
        }
        let reason = format!("volume {name} has too many ranges whose writes failed at its source");
        self.change(stamp, name.clone(), inexact_state(counts));
        self.wanted.push_back(Wanted {
            volume: Some(name.clone()),
            reason,
        });
    }

    pub(super) fn forget_ranges(&mut self) {
        for volume in self.volumes.values_mut() {
            volume.unknown = None;
        }
    }
}

pub(super) fn words(name: &Name, range: ByteRange) -> String {
    format!(
        "volume {name} is unknown in {range}: a write failed there at its source, and it was not \
         read again yet"
    )
}
