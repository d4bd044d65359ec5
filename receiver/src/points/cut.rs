//! Cut: where the streams of several sources are at one point together. Pure.
//!
//! Each source numbers its records with times of its own, strictly rising. A *lane* is what is known
//! of one source: through when all it did is durable and settled, by its records or by a valid
//! heartbeat. The point of the group is the earliest of those times, over all lanes that count: a
//! vector of stamps, each the last of its lane that is not later.
//!
//! ```text
//! lane a  ----------o---------o====            o records   = heartbeat
//! lane b  ---o---o------o                      lane b holds the point
//!                       ^ cut
//! ```
//!
//! Who joins, or comes back after it was detached, counts from when it has caught up with the cut:
//! until then the points of the others go on without it.
//!
//! Promises: the cut is no place at which a lane that counts has no point; it never goes back but by
//! a loss; once all lanes go on, so does it.
//!
//! Does not: know stamps, records or sessions; correct clocks. A source whose clock is behind holds
//! the point that much.

use std::collections::{BTreeMap, VecDeque};
use wire::{Name, TimeMark};

/// The lanes of a group and where they meet.
#[derive(Debug, Default)]
pub struct Cut {
    lanes: BTreeMap<Name, Lane>,
    at: Option<TimeMark>,
}

/// What is known of one source.
#[derive(Debug, Default)]
struct Lane {
    /// All it did up to here is durable and settled.
    through: TimeMark,
    /// Its volumes are not exact after this.
    frozen: Option<TimeMark>,
    /// Times between which they were not, oldest first: neither end is inside.
    holes: VecDeque<(TimeMark, TimeMark)>,
    /// It has volumes that are part of points and can change.
    counts: bool,
    /// An operator has given it up.
    detached: bool,
    /// It has been at the cut since it counts.
    caught_up: bool,
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
    /// The cut waits for it.
    fn is_part(&self) -> bool {
        self.is_wanted() && self.caught_up
    }

    fn is_wanted(&self) -> bool {
        self.counts && !self.detached
    }

    /// The last time up to `mark` at which it has a point.
    fn point_upto(&self, mark: TimeMark) -> TimeMark {
        let reach = self.frozen.map_or(self.through, |at| at.min(self.through));
        let mark = mark.min(reach);
        let mut holes = self.holes.iter();
        let hole = holes.find(|(after, upto)| *after < mark && mark < *upto);
        hole.map_or(mark, |(after, _)| *after)
    }
}

impl Cut {
    /// Whether the source has volumes that are part of points and can change.
    pub fn count(&mut self, source: &Name, counts: bool) {
        let lane = self.lanes.entry(source.clone()).or_default();
        lane.counts = counts;
        lane.caught_up &= counts;
        self.move_on();
    }

    /// All the source did up to `mark` is durable and settled.
    pub fn through(&mut self, source: &Name, mark: TimeMark) {
        let lane = self.lanes.entry(source.clone()).or_default();
        lane.through = lane.through.max(mark);
        self.move_on();
    }

    /// Volumes of the source are not exact after `at`; none: they are again.
    pub fn freeze(&mut self, source: &Name, at: Option<TimeMark>) {
        let lane = self.lanes.entry(source.clone()).or_default();
        if let (Some(after), None) = (lane.frozen, at)
            && after < lane.through
        {
            lane.holes.push_back((after, lane.through));
        }
        lane.frozen = match (lane.frozen, at) {
            (Some(before), Some(at)) => Some(before.min(at)),
            (_, at) => at,
        };
        self.move_on();
    }

    /// What the source did after `mark` is lost.
    pub fn lose(&mut self, source: &Name, mark: TimeMark) {
        let lane = self.lanes.entry(source.clone()).or_default();
        lane.through = lane.through.min(mark);
        lane.holes.retain(|(_, upto)| *upto <= mark);
        if lane.is_part() {
            self.at = self.at.map(|at| at.min(mark));
        }
        self.move_on();
    }

    /// The points go on without the source.
    pub fn detach(&mut self, source: &Name) {
        let lane = self.lanes.entry(source.clone()).or_default();
        (lane.detached, lane.caught_up) = (true, false);
        self.move_on();
    }

    /// The source is waited for again, once it has caught up.
    pub fn attach(&mut self, source: &Name) {
        if let Some(lane) = self.lanes.get_mut(source) {
            lane.detached = false;
        }
        self.move_on();
    }

    /// The base is past `mark`: what lies before it need not be remembered.
    pub fn applied(&mut self, mark: TimeMark) {
        for lane in self.lanes.values_mut() {
            while lane.holes.front().is_some_and(|(_, upto)| *upto <= mark) {
                lane.holes.pop_front();
            }
        }
    }

    /// The newest time at which all that counts is at a point.
    pub fn at(&self) -> Option<TimeMark> {
        self.at
    }

    /// Whether the source is part of the cut.
    pub fn holds(&self, source: &Name) -> bool {
        let lane = self.lanes.get(source);
        lane.is_some_and(Lane::is_part)
    }

    /// Who keeps the cut where it is: the lane that reaches least far.
    pub fn holder(&self) -> Option<Holder> {
        let counting = || {
            let lanes = self.lanes.iter();
            lanes.filter(|(_, lane)| lane.is_part())
        };
        let (source, lane) = counting().min_by_key(|(_, lane)| lane.point_upto(lane.through))?;
        let others = counting().filter(|(other, _)| *other != source);
        // Alone, or no further back than the others: nobody waits for it.
        let ahead = others
            .map(|(_, other)| other.point_upto(other.through))
            .max()?;
        (ahead > lane.point_upto(lane.through)).then(|| Holder {
            source: source.clone(),
            frozen: lane.frozen.is_some(),
        })
    }

    fn move_on(&mut self) {
        loop {
            let reached = self.meet();
            if let Some(reached) = reached {
                self.at = Some(self.at.map_or(reached, |at| at.max(reached)));
            }
            let Some(caught_up) = self.caught_up() else {
                return;
            };
            if let Some(lane) = self.lanes.get_mut(&caught_up) {
                lane.caught_up = true;
            }
        }
    }

    /// The last time at which every lane that counts has a point.
    fn meet(&self) -> Option<TimeMark> {
        let counting = || self.lanes.values().filter(|lane| lane.is_part());
        let mut mark = counting().map(|lane| lane.through).min()?;
        loop {
            let back = counting().map(|lane| lane.point_upto(mark)).min()?;
            if back == mark {
                return Some(mark);
            }
            mark = back;
        }
    }

    /// A lane that is awaited and has a point at the cut.
    fn caught_up(&self) -> Option<Name> {
        let mut awaited = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.is_wanted() && !lane.caught_up);
        let found = awaited.find(|(_, lane)| {
            let at = self.at.unwrap_or(TimeMark(0));
            lane.point_upto(at) == at
        });
        found.map(|(source, _)| source.clone())
    }
}

#[cfg(test)]
mod tests;
