//! Cut: where the streams of several sources are at one point together. Pure.
//!
//! Each source numbers its records with times of its own, strictly rising. A *lane* is what is known
//! of one source: through when all it did is durable and settled, by its records or by a valid
//! heartbeat. The point of the group is the earliest of those times, over all lanes that are part: a
//! vector of stamps, each the last of its lane that is not later.
//!
//! ```text
//! lane a  ----------o---------o====            o records   = heartbeat
//! lane b  ---o---o------o                      lane b holds the point
//!                       ^ cut
//! ```
//!
//! Who joins, or comes back after it was detached, is part from when it has caught up with the cut:
//! until then the points of the others go on without it. Who has left in order stays part and is
//! whole at any later time: it holds nobody back. When all have, the cut is where the last one left.
//!
//! Promises: once there is a cut there is one with a point, as long as any lane that is part has; the cut is no place at which a lane that is part has no point; it never goes back but
//! by a loss, and then only to where all others still have a point: if they do not, the lane that
//! lost is no part any more. Once all lanes go on, so does the cut.
//!
//! A cut that is kept has the newest point of each lane with it: a lane that is restored with less
//! has lost some.
//!
//! Does not: count stamps, know records or sessions; correct clocks. A source whose clock is behind holds
//! the point that much.

use crate::catalog::{CutState, PointRecord, Standing};
use std::collections::BTreeMap;
use wire::{Name, TimeMark};

/// The lanes of a group and where they meet.
#[derive(Debug, Default)]
pub struct Cut {
    lanes: BTreeMap<Name, Lane>,
    at: Option<TimeMark>,
}

/// What a source has, as far as points go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// It has volumes that are part of points.
    pub has_points: bool,
    /// They can change: not all have left, or their source is there. If not, they are as they are at
    /// any time to come.
    pub can_change: bool,
    /// Time of its oldest point.
    pub since: TimeMark,
    /// All it did up to here is durable and settled.
    pub through: TimeMark,
    /// Its newest point.
    pub newest: PointRecord,
    /// Its volumes are not exact after this.
    pub frozen: Option<TimeMark>,
    /// Times between which they were not, oldest first: neither end is inside.
    pub holes: Vec<(TimeMark, TimeMark)>,
    /// Of what it had, some is lost, and not copied again yet.
    pub lost: bool,
    /// Its session now.
    pub session: Option<u64>,
}

/// What is known of one source.
#[derive(Debug, Default)]
struct Lane {
    reach: Reach,
    /// It has been at the cut since it has points: the cut waits for it.
    part: bool,
    /// An operator has given it up, while it had this session.
    detached: Option<Option<u64>>,
    /// Its newest point as it was kept, until it has that again.
    kept: Option<PointRecord>,
}

/// What keeps the cut where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The source.
    pub source: Name,
    /// Its volumes are copied again; else nothing newer was heard of it.
    pub frozen: bool,
}

impl Lane {
    fn is_awaited(&self) -> bool {
        self.reach.has_points && self.detached.is_none() && !self.part
    }

    /// The last time at which it is known to have a point.
    fn newest(&self) -> TimeMark {
        self.point_upto(self.reach.through)
    }

    /// The last time up to `mark` at which it has a point.
    fn point_upto(&self, mark: TimeMark) -> TimeMark {
        let Reach { frozen, holes, .. } = &self.reach;
        let whole = match self.reach.can_change {
            true => mark.min(self.reach.through),
            false => mark,
        };
        let mark = frozen.map_or(whole, |at| at.min(whole));
        let mut holes = holes.iter();
        let hole = holes.find(|(after, upto)| *after < mark && mark < *upto);
        hole.map_or(mark, |(after, _)| *after)
    }

    /// Takes what it has now. What lies before `at` and was once exact stays so, but for a loss:
    /// between two records nothing changed, though only the first of them is known as a point.
    fn take(&mut self, reach: Reach, at: Option<TimeMark>) {
        self.kept = self.kept.filter(|kept| reach.newest.is_before(*kept));
        if self.kept.is_some() {
            // What was restored took it for whole up to the cut.
            self.reach = Reach {
                can_change: true,
                ..reach
            };
            self.part &= self.reach.has_points;
            return;
        }
        let mut through = self.reach.through.max(reach.through);
        if self.part && !self.reach.can_change {
            // So far it was as it had left: what it does from now on is marked later.
            through = through.max(at.unwrap_or_default());
        }
        self.reach = Reach { through, ..reach };
        self.part &= self.reach.has_points;
        // Without volumes there is nothing to be let go of.
        self.detached = self.detached.filter(|_| self.reach.has_points);
        if self.part
            && !self.reach.lost
            && let Some(at) = at
        {
            let frozen = &mut self.reach.frozen;
            *frozen = frozen.map(|frozen| frozen.max(at));
            for (after, upto) in &mut self.reach.holes {
                if *after < at && at < *upto {
                    *after = at;
                }
            }
        }
        let session = self.reach.session;
        if session.is_some() && self.detached.is_some_and(|then| then != session) {
            self.detached = None;
        }
    }
}

impl Cut {
    /// As it was kept: who was part of it is awaited there.
    pub fn restore(state: CutState) -> Self {
        let lane = |standing| match standing {
            Standing::Part(newest) => Lane {
                reach: Reach {
                    has_points: true,
                    can_change: true,
                    through: state.at,
                    ..Reach::default()
                },
                part: true,
                detached: None,
                kept: Some(newest),
            },
            Standing::Detached => Lane {
                detached: Some(None),
                ..Lane::default()
            },
        };
        let lanes = state.lanes.into_iter();
        Self {
            lanes: lanes
                .map(|(source, standing)| (source, lane(standing)))
                .collect(),
            at: Some(state.at),
        }
    }

    /// What is to be kept; nothing before there is a cut.
    pub fn state(&self) -> Option<CutState> {
        let standing = |lane: &Lane| match lane {
            Lane { part: true, .. } => Some(Standing::Part(lane.kept.unwrap_or(lane.reach.newest))),
            Lane {
                detached: Some(_), ..
            } => Some(Standing::Detached),
            _ => None,
        };
        let lanes = self.lanes.iter();
        let lanes = lanes.filter_map(|(source, lane)| Some((source.clone(), standing(lane)?)));
        Some(CutState {
            at: self.at?,
            lanes: lanes.collect(),
        })
    }

    /// A source has come this far.
    pub fn report(&mut self, source: &Name, reach: Reach) {
        let at = self.at;
        let lane = self.lanes.entry(source.clone()).or_default();
        lane.take(reach, at);
        if lane.part {
            self.look_at_loss(source);
        }
        self.move_on();
    }

    /// The points go on without the source, until it has a new session and has caught up.
    pub fn detach(&mut self, source: &Name) {
        if let Some(lane) = self.lanes.get_mut(source) {
            lane.part = false;
            lane.detached = Some(lane.reach.session);
        }
        self.move_on();
    }

    /// The newest time at which all that is part is at a point.
    pub fn at(&self) -> Option<TimeMark> {
        self.at
    }

    /// The last time up to `mark` at which all that is part has a point.
    pub fn upto(&self, mark: TimeMark) -> Option<TimeMark> {
        let found = self.meet(mark.min(self.at?))?;
        (found >= self.floor()?).then_some(found)
    }

    /// The first time at which all that is part has a point.
    pub fn oldest(&self) -> Option<TimeMark> {
        let mut mark = self.floor()?;
        let holes = || self.parts().flat_map(|(_, lane)| lane.reach.holes.iter());
        while let Some((_, upto)) = holes().find(|(after, upto)| *after < mark && mark < *upto) {
            mark = *upto;
        }
        (mark <= self.at?).then_some(mark)
    }

    /// Whether the source is part of the cut.
    pub fn holds(&self, source: &Name) -> bool {
        self.lanes.get(source).is_some_and(|lane| lane.part)
    }

    /// Whether an operator has given it up and it has not been back.
    pub fn is_detached(&self, source: &Name) -> bool {
        let lane = self.lanes.get(source);
        lane.is_some_and(|lane| lane.detached.is_some())
    }

    /// Who keeps the cut where it is: the lane that reaches least far.
    pub fn holder(&self) -> Option<Holder> {
        let changing = self.parts().filter(|(_, lane)| lane.reach.can_change);
        let (source, lane) = changing.min_by_key(|(_, lane)| lane.newest())?;
        let others = self.parts().filter(|(other, _)| *other != source);
        // Alone, or no further back than the others: nobody waits for it.
        let ahead = others.map(|(_, other)| other.newest()).max()?;
        (ahead > lane.newest()).then(|| Holder {
            source: source.clone(),
            frozen: lane.reach.frozen.is_some(),
        })
    }

    fn parts(&self) -> impl Iterator<Item = (&Name, &Lane)> {
        self.lanes.iter().filter(|(_, lane)| lane.part)
    }

    /// Before this somebody has no point any more.
    fn floor(&self) -> Option<TimeMark> {
        self.parts().map(|(_, lane)| lane.reach.since).max()
    }

    /// A lane that has lost what it had at the cut takes it back, or is no part any more.
    fn look_at_loss(&mut self, source: &Name) {
        let (Some(at), Some(lane)) = (self.at, self.lanes.get(source)) else {
            return;
        };
        let left = lane.point_upto(at);
        if left == at {
            return;
        }
        if self.floor().is_some_and(|floor| left >= floor) {
            self.at = Some(left);
        } else if let Some(lane) = self.lanes.get_mut(source) {
            lane.part = false;
        }
    }

    fn move_on(&mut self) {
        loop {
            if let Some(reached) = self.meet(TimeMark(u64::MAX)) {
                self.at = Some(self.at.map_or(reached, |at| at.max(reached)));
            }
            let Some(next) = self.caught_up() else {
                return;
            };
            if let Some(lane) = self.lanes.get_mut(&next) {
                lane.part = true;
                self.at.get_or_insert_with(|| lane.newest());
            }
        }
    }

    /// The last time up to `mark` at which every lane that is part has a point.
    fn meet(&self, mark: TimeMark) -> Option<TimeMark> {
        let back = |mark| self.parts().map(|(_, lane)| lane.point_upto(mark)).min();
        let mut mark = back(mark.min(self.ceiling()?))?;
        while let Some(earlier) = back(mark).filter(|earlier| *earlier < mark) {
            mark = earlier;
        }
        Some(mark)
    }

    /// There is nothing to be known of later times: of those who can change, or else of all.
    fn ceiling(&self) -> Option<TimeMark> {
        let reaches = || self.parts().map(|(_, lane)| &lane.reach);
        let changing = reaches().filter(|reach| reach.can_change);
        let changing = changing.map(|reach| reach.through).min();
        let last = reaches().map(|reach| reach.through).max();
        changing.or_else(|| last.max(last.and(self.at)))
    }

    /// A lane that is awaited and has a point at the cut.
    fn caught_up(&self) -> Option<Name> {
        let mut lanes = self.lanes.iter();
        let found = lanes.find(|(_, lane)| {
            let there = |at| lane.reach.since <= at && lane.point_upto(at) == at;
            lane.is_awaited() && self.at.is_none_or(there)
        });
        found.map(|(source, _)| source.clone())
    }
}

#[cfg(test)]
mod tests;
