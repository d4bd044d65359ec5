//! Points: which places of a group are recoverable, and how far the base may go. Pure.
//!
//! Owned by the group's actor; fed with what became usable, in stamp order. A volume *counts* from
//! the first complete point it is part of. A point is complete when every volume that counts is
//! exact: copied to the end, or left in peace.
//!
//! ```text
//!            join             ready            leave
//!  absent ---------> copying --------> ready --------> left
//!    ^                  |                | gap, loss     | continue (same place)
//!    | gap, first copy  | gap, recopy    v               v
//!    +------------------+----------->  doubt           ready
//!                                        | join -> copying (recopy)
//! ```
//!
//! While a volume that counts is not exact the group is *frozen*: the newest complete point stays
//! where it was, what follows waits in the journal (P7). So it is while a range of a volume is
//! unknown because a write failed there ([`unknown`]). When all are exact again the point jumps;
//! the base then crosses a stretch in which no place is a point, so it sets out only for its end.
//! Before the first point there is nothing to protect: everything is applied as it comes.
//!
//! Promises: the limit never passes a frozen point; once there is a complete point there always is
//! one, unless the journal lost what the base was being moved by.
//!
//! Does not: see data, know positions in the journal, commit anything.

mod cut;
mod history;
#[cfg(test)]
mod tests;
mod unknown;

pub use cut::{Cut, Holder, Reach};
pub use history::History;

use crate::catalog::{PointRecord, VolumeState};
use crate::fold::ByteRange;
use crate::intake::Progress;
use history::Stretch;
use std::collections::{BTreeMap, VecDeque};
use wire::{Incarnation, MemberAction, Name, Stamp, TimeMark};

/// The points of one group.
#[derive(Debug)]
pub struct Points {
    incarnation: Incarnation,
    volumes: BTreeMap<Name, Volume>,
    /// Everything up to here has been seen.
    prefix: Stamp,
    mark: TimeMark,
    frozen: Option<Frozen>,
    point: Option<PointRecord>,
    history: History,
    wanted: VecDeque<Wanted>,
}

/// A volume that must be copied: the receiver cannot vouch for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The volume; none means all of the group.
    pub volume: Option<Name>,
    /// Why, in words.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Volume {
    state: VolumeState,
    /// It is, or was, part of a complete point.
    counts: bool,
    /// The first of the ranges that are unknown, if any are: a write failed there.
    unknown: Option<ByteRange>,
}

#[derive(Clone, Debug)]
struct Frozen {
    /// The last complete place of this incarnation.
    at: Stamp,
    reason: String,
}

impl Points {
    /// As the catalog has it: the states of the volumes at `horizon`, and the newest point.
    pub fn restore(
        incarnation: Incarnation,
        horizon: Stamp,
        point: Option<PointRecord>,
        states: BTreeMap<Name, VolumeState>,
    ) -> Self {
        let volume = |state| Volume {
            state,
            counts: counts_as(state),
            // No horizon lies where something is unknown.
            unknown: None,
        };
        let volumes = states
            .into_iter()
            .map(|(name, state)| (name, volume(state)));
        let mut points = Self {
            incarnation,
            volumes: volumes.collect(),
            prefix: horizon,
            mark: point.map_or(TimeMark(0), |point| point.mark),
            frozen: None,
            point,
            history: History::default(),
            wanted: VecDeque::new(),
        };
        if !points.volumes.values().any(|volume| volume.counts) {
            points.point = None;
        }
        if let Some(reason) = points.inexact() {
            points.freeze(horizon, &reason);
        }
        points
    }

    /// The next thing that became usable.
    pub fn handle(&mut self, progress: Progress) {
        match progress {
            Progress::Upto { stamp, mark } => {
                assert!(stamp >= self.prefix, "{stamp} after {}", self.prefix);
                (self.prefix, self.mark) = (stamp, self.mark.max(mark));
                self.maintain();
            }
            Progress::Member {
                stamp,
                volume,
                action,
            } => self.member(stamp, volume, action),
            Progress::Unknown {
                stamp,
                volume,
                range,
            } => self.open_range(stamp, &volume, range),
            Progress::Known { volume, .. } => self.close_ranges(&volume),
            Progress::Scattered { stamp, volume } => self.give_up_ranges(stamp, &volume),
            Progress::Gap { stamp, reason } => {
                let reason = format!("the source gave up writes before record {stamp}: {reason}");
                self.doubt_all(stamp.prev(), stamp, &reason, is_live);
            }
            Progress::Lost {
                after,
                mark,
                upto,
                reason,
            } => {
                if after < self.prefix {
                    self.go_back(after, mark);
                }
                // Who had left may have come back, written, and left again in what is lost.
                let known = |state| is_live(state) || matches!(state, VolumeState::Left { .. });
                self.doubt_all(after, upto, &reason, known);
                self.wanted.push_back(Wanted {
                    volume: None,
                    reason,
                });
            }
        }
    }

    /// The stream has ended; the next incarnation of the source begins.
    ///
    /// What the old one holds above the limit is never applied, so a volume that left above it is
    /// no longer known to be as it was.
    pub fn open(&mut self, incarnation: Incarnation) {
        let (limit, old) = (self.limit(), self.incarnation);
        for volume in self.volumes.values_mut() {
            let rests = match volume.state {
                VolumeState::Left { incarnation, stamp } => incarnation != old || stamp <= limit,
                _ => false,
            };
            if !rests {
                volume.state = if volume.counts {
                    VolumeState::Doubt
                } else {
                    VolumeState::Absent
                };
            }
        }
        self.forget_ranges();
        self.incarnation = incarnation;
        self.prefix = Stamp::ZERO;
        self.frozen = None;
        self.history = History::default();
        self.wanted.clear();
        if self.inexact().is_some() {
            let reason = format!("the source began incarnation {incarnation}");
            self.freeze(Stamp::ZERO, &reason);
        }
    }

    /// There is no complete point any more: everything begins anew.
    pub fn reset(&mut self, reason: &str) {
        for volume in self.volumes.values_mut() {
            *volume = Volume::default();
        }
        self.point = None;
        self.frozen = None;
        self.history = History::default();
        self.wanted.clear();
        self.wanted.push_back(Wanted {
            volume: None,
            reason: reason.into(),
        });
    }

    /// What follows the base is gone, and with it how the volumes went on from there: all that
    /// counts in `states` must be copied; `point` is what the base holds.
    pub fn doubt_base(
        &mut self,
        point: Option<PointRecord>,
        states: &BTreeMap<Name, VolumeState>,
        reason: &str,
    ) {
        self.reset(reason);
        for (name, state) in states {
            if counts_as(*state) {
                let volume = Volume {
                    state: VolumeState::Doubt,
                    counts: true,
                    unknown: None,
                };
                self.volumes.insert(name.clone(), volume);
            }
        }
        if self.inexact().is_some() {
            self.point = point;
            self.freeze(Stamp::ZERO, reason);
        }
    }

    /// The operator has removed the volume: it holds nothing any more.
    pub fn remove(&mut self, volume: &Name) {
        self.volumes.remove(volume);
        self.history.remove(volume);
        if !self.volumes.values().any(|volume| volume.counts) {
            self.point = None;
        }
        self.maintain();
    }

    /// The base has reached `applied`: what lies before it need not be remembered.
    pub fn applied(&mut self, applied: Stamp) {
        self.history.applied(applied);
    }

    /// A volume to be copied that was not asked for yet.
    pub fn poll_wanted(&mut self) -> Option<Wanted> {
        self.wanted.pop_front()
    }

    /// The base may go up to here, in this incarnation.
    pub fn limit(&self) -> Stamp {
        self.frozen.as_ref().map_or(self.prefix, |frozen| frozen.at)
    }

    /// Where the base must be headed to hold the records up to `end`, which is at most the limit:
    /// `end` itself, or the end of the stretch without points it lies in.
    pub fn horizon_for(&self, end: Stamp) -> Stamp {
        assert!(
            end <= self.limit(),
            "{end} is past the limit {}",
            self.limit()
        );
        self.history.point_from(end)
    }

    /// The history of this incarnation, as far as the base has not passed it.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// States of the volumes at `stamp`, which is at most the prefix.
    pub fn states_at(&self, stamp: Stamp) -> BTreeMap<Name, VolumeState> {
        let now = self.volumes.iter();
        let mut states: BTreeMap<_, _> = now
            .map(|(name, volume)| (name.clone(), volume.state))
            .collect();
        self.history.go_back(&mut states, stamp);
        states
    }

    /// The newest complete point.
    pub fn point(&self) -> Option<PointRecord> {
        self.point
    }

    /// Why the newest point stays where it is, if it does.
    pub fn frozen(&self) -> Option<&str> {
        self.frozen.as_ref().map(|frozen| frozen.reason.as_str())
    }

    /// Whether a volume that is part of points can change.
    pub fn can_change(&self) -> bool {
        let mut volumes = self.volumes.values();
        volumes.any(|volume| volume.counts && !matches!(volume.state, VolumeState::Left { .. }))
    }

    /// Time of the last record that was seen.
    pub fn mark(&self) -> TimeMark {
        self.mark
    }

    /// Whether the volume is part of the newest complete point.
    pub fn counts(&self, volume: &Name) -> bool {
        self.volumes.get(volume).is_some_and(|volume| volume.counts)
    }

    /// State of the volume now.
    pub fn state(&self, volume: &Name) -> VolumeState {
        self.volumes
            .get(volume)
            .map(|volume| volume.state)
            .unwrap_or_default()
    }

    /// The incarnation the stamps belong to.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn member(&mut self, stamp: Stamp, name: Name, action: MemberAction) {
        let incarnation = self.incarnation;
        let known = self.volumes.get(&name).copied().unwrap_or_default();
        let Volume { state, counts, .. } = known;
        let next = match (action, state) {
            (MemberAction::Join, _) => {
                if counts {
                    self.freeze(stamp.prev(), &format!("volume {name} is copied again"));
                }
                VolumeState::Copying {
                    first: !counts,
                    since: stamp,
                }
            }
            (MemberAction::Ready, VolumeState::Copying { .. }) => VolumeState::Ready,
            // It left with something unknown.
            (MemberAction::Leave, VolumeState::Ready) if known.unknown.is_some() => {
                inexact_state(counts)
            }
            (MemberAction::Leave, VolumeState::Ready) => VolumeState::Left { incarnation, stamp },
            (MemberAction::Continue { incarnation, stamp }, VolumeState::Left { .. })
                if state == (VolumeState::Left { incarnation, stamp }) =>
            {
                VolumeState::Ready
            }
            (MemberAction::Continue { .. }, _) => {
                self.refuse_continue(stamp, &name, counts);
                inexact_state(counts)
            }
            // Ready or leave of a volume that is not being copied, or not copied: not exact.
            (MemberAction::Leave, VolumeState::Copying { .. }) => inexact_state(counts),
            (MemberAction::Ready | MemberAction::Leave, other) => other,
        };
        if action == MemberAction::Join
            && let Some(volume) = self.volumes.get_mut(&name)
        {
            volume.unknown = None;
        }
        self.change(stamp, name, next);
    }

    fn refuse_continue(&mut self, stamp: Stamp, name: &Name, counts: bool) {
        let reason = format!("volume {name} is not held here as the source left it");
        if counts {
            self.freeze(stamp.prev(), &reason);
        }
        self.wanted.push_back(Wanted {
            volume: Some(name.clone()),
            reason,
        });
    }

    /// Writes are missing after `after`, as found at `stamp`: nobody is exact whom they may have
    /// touched.
    fn doubt_all(
        &mut self,
        after: Stamp,
        stamp: Stamp,
        reason: &str,
        touched: impl Fn(VolumeState) -> bool,
    ) {
        let names: Vec<Name> = self.volumes.keys().cloned().collect();
        let mut doubted = false;
        for name in names {
            let Volume { state, counts, .. } = self.volumes.get(&name).copied().unwrap_or_default();
            if touched(state) {
                doubted |= counts;
                self.change(stamp, name, inexact_state(counts));
            }
        }
        if doubted {
            self.freeze(after, reason);
        }
    }

    /// What was seen above `after` turned out to have a hole: it is taken back. Who joined since
    /// joins again.
    fn go_back(&mut self, after: Stamp, mark: TimeMark) {
        let states = self.states_at(after);
        // Whoever had some is in doubt from here on.
        self.forget_ranges();
        for (name, volume) in &mut self.volumes {
            volume.state = states.get(name).copied().unwrap_or_default();
            volume.counts &= counts_as(volume.state);
        }
        self.history.changes.retain(|(stamp, ..)| *stamp <= after);
        let mut stretches = self.history.stretches.iter().copied();
        if let Some(inside) = stretches.find(|stretch| stretch.holds(after)) {
            // No place in it is a point: the newest is the one before it.
            self.freeze(inside.after, "a part of the journal is gone");
            self.point = inside.kept;
        }
        self.history
            .stretches
            .retain(|stretch| stretch.upto <= after);
        let here = self.incarnation;
        if !self.volumes.values().any(|volume| volume.counts) {
            (self.point, self.frozen) = (None, None);
        } else if let Some(point) = &mut self.point
            && point.incarnation == here
            && point.stamp > after
        {
            (point.stamp, point.mark) = (after, mark);
        }
    }

    fn change(&mut self, stamp: Stamp, name: Name, state: VolumeState) {
        let volume = self.volumes.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut volume.state, state);
        self.history.changes.push_back((stamp, name, before));
    }

    /// The newest point stays at `at`; if it lies further back already, there.
    fn freeze(&mut self, at: Stamp, reason: &str) {
        match &mut self.frozen {
            Some(frozen) => frozen.at = frozen.at.min(at),
            None => {
                self.frozen = Some(Frozen {
                    at,
                    reason: reason.into(),
                })
            }
        }
    }

    /// Thaws when everyone who counts is exact; moves the point while nothing is frozen.
    fn maintain(&mut self) {
        if let Some(frozen) = &self.frozen
            && self.inexact().is_none()
        {
            if frozen.at < self.prefix {
                self.history.stretches.push_back(Stretch {
                    after: frozen.at,
                    upto: self.prefix,
                    kept: self.point,
                });
            }
            self.frozen = None;
        }
        if self.frozen.is_some() {
            return;
        }
        for volume in self.volumes.values_mut() {
            volume.counts |= is_exact(volume.state);
        }
        if self.volumes.values().any(|volume| volume.counts) {
            let (incarnation, stamp, mark) = (self.incarnation, self.prefix, self.mark);
            self.point = Some(PointRecord {
                incarnation,
                stamp,
                mark,
            });
        }
    }

    /// Who counts and is not exact, in words.
    fn inexact(&self) -> Option<String> {
        let mut volumes = self.volumes.iter();
        volumes.find_map(|(name, volume)| match volume.unknown {
            _ if volume.counts && !is_exact(volume.state) => {
                Some(format!("volume {name} must be copied again"))
            }
            Some(range) if volume.is_held() => Some(unknown::words(name, range)),
            _ => None,
        })
    }
}

/// A volume in this state is written at its source.
fn is_live(state: VolumeState) -> bool {
    matches!(state, VolumeState::Ready | VolumeState::Copying { .. })
}

/// A volume in this state is what it was at its source.
fn is_exact(state: VolumeState) -> bool {
    matches!(state, VolumeState::Ready | VolumeState::Left { .. })
}

/// State of a volume that is not exact and not being copied.
fn inexact_state(counts: bool) -> VolumeState {
    if counts {
        VolumeState::Doubt
    } else {
        VolumeState::Absent
    }
}

/// Whether any volume counts: a point without one is none.
pub fn any_counts(states: &BTreeMap<Name, VolumeState>) -> bool {
    states.values().any(|state| counts_as(*state))
}

/// Whether a volume in this state at a complete point, or at the start of an incarnation, counts.
pub fn counts_as(state: VolumeState) -> bool {
    match state {
        VolumeState::Absent | VolumeState::Copying { first: true, .. } => false,
        VolumeState::Copying { first: false, .. }
        | VolumeState::Ready
        | VolumeState::Left { .. }
        | VolumeState::Doubt => true,
    }
}
