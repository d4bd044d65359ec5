//! Planning a step: what it changes, and what is committed before and after it.

use super::Group;
use super::event::Step;
use super::stream::{Milestone, Stream};
use crate::catalog::{PointRecord, StreamState};
use crate::fold::{Change, Effect, Extent, Fold, FoldError, STEP_DATA_BYTES_MAX};
use crate::intake::Slot;
use crate::points::counts_as;
use std::collections::BTreeMap;
use wire::{Name, RecordKind, Stamp, TimeMark, VolumeSpec};

/// What is left of the records of a step, by volume.
type Changes = Vec<(Name, Vec<Extent>)>;
/// The same, and its last stamp.
type Folded = (Changes, Stamp);

impl Group {
    /// The next step of the base, in the stream it is in.
    pub(super) fn plan_step(&self) -> Result<Step, FoldError> {
        let limit = self.step_end();
        let ((changes, end), next) = match self.streams.front() {
            Some(stream) => self.fold_ahead(stream, limit)?,
            None => ((Vec::new(), limit), Vec::new()),
        };
        let heading = self.heading(end);
        let horizon = heading.as_ref().unwrap_or(&self.base).clone();
        Ok(Step {
            changes,
            heading,
            reached: StreamState {
                applied: end,
                last_mark: self.last_mark_at(end),
                ..horizon
            },
            next,
        })
    }

    /// The highest mark there is up to `end` of the stream the base is in. That of a horizon which
    /// is not reached yet is none of them: a start lifts all above what is applied above it.
    fn last_mark_at(&self, end: Stamp) -> TimeMark {
        let stream = self.streams.front();
        let here = stream.map(|stream| stream.intake.mark_at(end));
        self.base.last_mark.max(here.unwrap_or_default())
    }

    /// The step up to `limit`, and what the one behind it changes if that is full as well.
    fn fold_ahead(&self, stream: &Stream, limit: Stamp) -> Result<(Folded, Changes), FoldError> {
        let (changes, end) = self.fold(stream, self.base.applied, limit)?;
        if end == limit {
            return Ok(((changes, end), Vec::new()));
        }
        let (next, next_end) = self.fold(stream, end, limit)?;
        // One that is not full yet will have more in it when it is its turn.
        let next = if next_end < limit { next } else { Vec::new() };
        Ok(((changes, end), next))
    }

    /// The state to commit before the base sets out for `end`, if it is not on its way there.
    fn heading(&self, end: Stamp) -> Option<StreamState> {
        if end <= self.base.horizon {
            // After a step that failed, once more: nobody's word is taken for it that it came to that.
            let known = self.committed.covers(&self.base);
            return (!known).then(|| self.base.clone());
        }
        let stream = self.streams.front()?;
        let horizon = self.history(stream).point_from(end);
        assert!(
            horizon >= end && horizon <= self.stream_end(stream),
            "the base sets out for {end} and heads for {horizon}"
        );
        let milestone = self.milestone_in(stream, horizon);
        Some(StreamState {
            horizon,
            point: milestone.point,
            volumes: milestone.states,
            ..self.base.clone()
        })
    }

    /// States and point at `stamp` of the stream, which is at most its end.
    pub(super) fn milestone_in(&self, stream: &Stream, stamp: Stamp) -> Milestone {
        match &stream.ending {
            Some(ending) if ending.limit == stamp => ending.milestone.clone(),
            Some(ending) => {
                let mut states = ending.milestone.states.clone();
                ending.history.go_back(&mut states, stamp);
                self.milestone_of(stream, stamp, states)
            }
            None => self.milestone(stamp),
        }
    }

    /// States and point at `stamp` of the incarnation the points are in.
    pub(super) fn milestone(&self, stamp: Stamp) -> Milestone {
        let here = self.points.incarnation();
        let states = self.points.states_at(stamp);
        let mut streams = self.streams.iter();
        match streams.find(|stream| stream.incarnation() == here) {
            Some(stream) => self.milestone_of(stream, stamp, states),
            None => {
                let kept = self.base.point.filter(|_| self.base.incarnation == here);
                let point = kept.filter(|_| states.values().any(|state| counts_as(*state)));
                Milestone { states, point }
            }
        }
    }

    fn milestone_of(
        &self,
        stream: &Stream,
        stamp: Stamp,
        states: BTreeMap<Name, crate::catalog::VolumeState>,
    ) -> Milestone {
        let incarnation = stream.incarnation();
        let opening = stream.opening.as_ref().and_then(|opening| opening.point);
        let base = self
            .base
            .point
            .filter(|_| self.base.incarnation == incarnation);
        let counts = states.values().any(|state| counts_as(*state));
        let point = if stamp > Stamp::ZERO {
            let mark = stream.intake.mark_at(stamp);
            Some(PointRecord {
                incarnation,
                stamp,
                mark,
            })
        } else {
            base.or(opening)
        };
        let point = point.filter(|_| counts);
        Milestone { states, point }
    }

    /// Folds the records after `applied`, up to `limit` or a full step.
    fn fold(&self, stream: &Stream, applied: Stamp, limit: Stamp) -> Result<Folded, FoldError> {
        let mut folds: BTreeMap<Name, Fold> = BTreeMap::new();
        let (mut left_bytes, mut zero_bytes, mut count) = (0, 0, 0);
        let mut end = limit;
        for (stamp, slot) in stream.intake.records(applied, limit) {
            let Some((spec, change)) = self.change(stream, stamp, slot) else {
                continue;
            };
            let data = matches!(change.effect, Effect::Data(_));
            let (more_bytes, zeroed_bytes) = match data {
                true => (change.range.len_bytes, 0),
                false => (0, change.range.len_bytes),
            };
            let full = count >= self.step_changes_max
                || left_bytes + more_bytes > STEP_DATA_BYTES_MAX
                || zero_bytes + zeroed_bytes > self.step_zero_bytes_max;
            // One record fits, however large.
            if full && count > 0 {
                end = stamp.prev();
                break;
            }
            count += 1;
            zero_bytes += zeroed_bytes;
            let empty = || Fold::new(spec.size_bytes, spec.sector_bytes);
            let fold = folds.entry(spec.name.clone()).or_insert_with(empty);
            left_bytes -= fold.data_bytes();
            fold.push(change)?;
            left_bytes += fold.data_bytes();
        }
        let folds = folds.into_iter();
        Ok((
            folds.map(|(name, fold)| (name, fold.finish())).collect(),
            end,
        ))
    }

    /// What a record does to which of our volumes; nothing if it is void or no data.
    pub(super) fn change<'a>(
        &self,
        stream: &'a Stream,
        stamp: Stamp,
        slot: &Slot,
    ) -> Option<(&'a VolumeSpec, Change)> {
        let effect = effect_of(slot)?;
        let spec = stream.intake.volume(slot.volume())?;
        let range = slot.range();
        let change = Change {
            stamp,
            range,
            effect,
        };
        let ours = self.is_registered(spec, stream, stamp);
        ours.then_some((spec, change))
    }

    /// Whether records of this volume are for the targets registered now. A volume that was removed
    /// and registered again has the name, perhaps another geometry, and nothing of before (P13).
    fn is_registered(&self, spec: &VolumeSpec, stream: &Stream, stamp: Stamp) -> bool {
        let registered = self.volumes.get(&spec.name);
        registered.is_some_and(|volume| {
            let same =
                (volume.size_bytes, volume.sector_bytes) == (spec.size_bytes, spec.sector_bytes);
            same && volume.takes(stream.incarnation(), stamp)
        })
    }
}

/// What a record does to its volume; nothing if it is void or no data.
fn effect_of(slot: &Slot) -> Option<Effect> {
    if slot.is_void() {
        return None;
    }
    match slot.kind() {
        RecordKind::Write | RecordKind::Copy => Some(Effect::Data(slot.at())),
        RecordKind::Discard | RecordKind::Zero => Some(Effect::Zero),
        RecordKind::Bookmark | RecordKind::Member | RecordKind::Gap | RecordKind::Void => None,
    }
}
