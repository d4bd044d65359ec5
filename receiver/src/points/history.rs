//! History: where between the base and now a point lies, and how the volumes stood there. Pure.
//!
//! Kept per incarnation for as long as the base is in it: what is behind the base is forgotten.

use crate::catalog::{PointRecord, VolumeState};
use std::collections::{BTreeMap, VecDeque};
use wire::{Name, Stamp, TimeMark};

/// Places in `(after, upto)` are no points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) after: Stamp,
    pub(super) upto: Stamp,
    /// The newest point before it.
    pub(super) kept: Option<PointRecord>,
}

impl Stretch {
    pub(super) fn holds(&self, stamp: Stamp) -> bool {
        self.after < stamp && stamp < self.upto
    }
}

/// Changes of states from which on the oldest are not retained. A volume that comes and goes
/// makes a few in a day.
pub(super) const CHANGES_MAX: usize = 1 << 16;
/// Stretches without points from which on the oldest are not retained. A disk that refuses so many
/// writes is none; of all streams together their runs fit a response of the control socket.
pub(super) const STRETCHES_MAX: usize = 1 << 12;

/// The history of one incarnation.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Stretches without a complete point that have been closed, oldest first.
    pub(super) stretches: VecDeque<Stretch>,
    /// States as they were before a change at a stamp, oldest first.
    pub(super) changes: VecDeque<(Stamp, Name, VolumeState)>,
}

impl History {
    /// Where the base must be headed to hold the records up to `end`: `end` itself, or the end of
    /// the stretch without points it lies in.
    pub fn point_from(&self, end: Stamp) -> Stamp {
        self.stretch(end).map_or(end, |stretch| stretch.upto)
    }

    /// The last point up to `end`: `end` itself, or the beginning of the stretch it lies in.
    pub fn point_upto(&self, end: Stamp) -> Stamp {
        self.stretch(end).map_or(end, |stretch| stretch.after)
    }

    /// Runs of points in `[from, upto]`, both points themselves: first and last place.
    pub fn runs(&self, from: Stamp, upto: Stamp) -> Vec<(Stamp, Stamp)> {
        let mut runs = Vec::new();
        let mut first = from;
        for stretch in &self.stretches {
            if stretch.upto <= from || stretch.upto > upto {
                continue;
            }
            if stretch.after >= first {
                runs.push((first, stretch.after));
            }
            first = stretch.upto;
        }
        runs.push((first, upto));
        runs
    }

    /// Turns the states after all changes into those at `stamp`.
    pub fn go_back(&self, states: &mut BTreeMap<Name, VolumeState>, stamp: Stamp) {
        let later = self.changes.iter().rev().take_while(|(at, ..)| *at > stamp);
        for (_, name, before) in later {
            states.insert(name.clone(), *before);
        }
    }

    /// Stretches without a point: the time of the point before, if there is one, and both ends.
    pub fn stretches(&self) -> impl DoubleEndedIterator<Item = (Option<TimeMark>, Stamp, Stamp)> {
        let stretches = self.stretches.iter();
        stretches.map(|stretch| {
            let kept = stretch.kept.map(|point| point.mark);
            (kept, stretch.after, stretch.upto)
        })
    }

    /// With too many changes of states, or stretches: the place from which on there are half as
    /// many.
    pub fn excess(&self) -> Option<Stamp> {
        let change = over(self.changes.len(), CHANGES_MAX);
        let change = change.and_then(|at| Some(self.changes.get(at)?.0));
        let stretch = over(self.stretches.len(), STRETCHES_MAX);
        let stretch = stretch.and_then(|at| Some(self.stretches.get(at)?.upto));
        change.max(stretch)
    }

    /// The base has reached `applied`: what lies before it need not be remembered.
    pub fn applied(&mut self, applied: Stamp) {
        let changes = self.changes.partition_point(|(at, ..)| *at <= applied);
        self.changes.drain(..changes);
        let behind = |stretch: &Stretch| stretch.upto <= applied;
        let stretches = self.stretches.partition_point(behind);
        self.stretches.drain(..stretches);
    }

    /// The volume holds nothing any more.
    pub fn remove(&mut self, volume: &Name) {
        self.changes.retain(|(_, name, _)| name != volume);
    }

    fn stretch(&self, end: Stamp) -> Option<&Stretch> {
        let behind = |stretch: &Stretch| stretch.upto <= end;
        let at = self.stretches.partition_point(behind);
        self.stretches.get(at).filter(|stretch| stretch.holds(end))
    }
}

/// Of too many, in order, the one after which half as many are left as there may be.
fn over(count: usize, max: usize) -> Option<usize> {
    Some(count.checked_sub(max)? + max / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(stretches: &[(u64, u64)]) -> History {
        let stretches = stretches.iter().map(|(after, upto)| Stretch {
            after: Stamp(*after),
            upto: Stamp(*upto),
            kept: None,
        });
        History {
            stretches: stretches.collect(),
            changes: VecDeque::new(),
        }
    }

    #[test]
    fn every_place_is_a_point_or_between_the_two_that_are_named() {
        let history = history(&[(3, 6), (8, 9), (12, 20)]);
        let is_point = |stamp| !matches!(stamp, 4..=5 | 13..=19);
        for stamp in 0..25 {
            let (before, after) = (
                history.point_upto(Stamp(stamp)).0,
                history.point_from(Stamp(stamp)).0,
            );
            assert!(is_point(before) && is_point(after), "{stamp}");
            let between = before + 1..after;
            assert!(between.into_iter().all(|place| !is_point(place)), "{stamp}");
            assert_eq!(before == after, is_point(stamp), "{stamp}");
        }
    }

    #[test]
    fn a_history_with_too_many_changes_says_from_where_on_it_has_few() {
        let mut history = history(&[]);
        let volume = Name::new("data").unwrap();
        for stamp in 1..CHANGES_MAX as u64 {
            let change = (Stamp(stamp), volume.clone(), VolumeState::Ready);
            history.changes.push_back(change);
        }
        assert_eq!(history.excess(), None);
        let last = Stamp(CHANGES_MAX as u64);
        history
            .changes
            .push_back((last, volume, VolumeState::Ready));
        let excess = history.excess().unwrap();
        history.applied(excess);
        assert!(history.changes.len() <= CHANGES_MAX / 2);
    }

    #[test]
    fn a_history_with_too_many_stretches_says_from_where_on_it_has_few() {
        let stretches = |count: u64| -> Vec<(u64, u64)> {
            (1..=count).map(|at| (at * 10, at * 10 + 5)).collect()
        };
        let max = STRETCHES_MAX as u64;
        assert_eq!(history(&stretches(max - 1)).excess(), None);
        let mut history = history(&stretches(max));
        let excess = history.excess().unwrap();
        assert_eq!(history.point_from(excess), excess, "a point");
        history.applied(excess);
        assert!(history.stretches.len() <= STRETCHES_MAX / 2);
    }

    #[test]
    fn runs_of_points_leave_the_stretches_out() {
        let history = history(&[(3, 6), (12, 20)]);
        let runs = |from, upto| -> Vec<(u64, u64)> {
            let runs = history.runs(Stamp(from), Stamp(upto));
            runs.into_iter().map(|(a, b)| (a.0, b.0)).collect()
        };
        assert_eq!(runs(1, 25), [(1, 3), (6, 12), (20, 25)]);
        assert_eq!(runs(3, 12), [(3, 3), (6, 12)]);
        assert_eq!(runs(6, 7), [(6, 7)]);
    }
}
