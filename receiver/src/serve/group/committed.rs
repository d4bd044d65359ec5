//! Committed: how far the catalog is known to let the base go.
//!
//! What the group believes of the base may run ahead of it: a step that failed may have written
//! for a horizon that was never seen committed. So it is committed again (P10).

use super::event::Step;
use crate::catalog::StreamState;
use wire::{Incarnation, Stamp};

/// A horizon the catalog has for certain; it may have a later one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed {
    incarnation: Incarnation,
    horizon: Stamp,
}

impl Committed {
    /// The catalog has this state.
    pub(super) fn of(state: &StreamState) -> Self {
        Self {
            incarnation: state.incarnation,
            horizon: state.horizon,
        }
    }

    /// Whether the base may be written up to the horizon of `state`.
    pub(super) fn covers(&self, state: &StreamState) -> bool {
        self.incarnation == state.incarnation && self.horizon >= state.horizon
    }

    /// Whether the step writes nothing beyond what is committed before it writes.
    pub(super) fn allows(&self, step: &Step) -> bool {
        let before = step.heading.as_ref().map_or(*self, Self::of);
        step.reached.applied <= step.reached.horizon && before.covers(&step.reached)
    }
}
