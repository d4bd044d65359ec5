//! Retained points: which there are, and what makes the base one of them.
//!
//! A point is the base and all records up to it. Who wants one holds the base, finds the point, and
//! asks for the records page by page.

use super::Group;
use super::stream::Stream;
use crate::catalog::PointRecord;
use crate::control::{At, Cursor, Page, Patch, PointRun};
use crate::fold::Effect;
use wire::{Name, Stamp, TimeMark};

/// Most records of a page.
const PAGE_RECORDS_MAX: usize = 4096;

/// Points without one missing between them, of one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: PointRecord,
    pub(super) last: PointRecord,
}

impl Run {
    fn points(&self) -> u64 {
        self.last.stamp.records_since(self.first.stamp) + 1
    }
}

impl Group {
    /// Runs of retained points, oldest first.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        let Some(oldest) = self.base.point else {
            return runs;
        };
        let kept = Run {
            first: oldest,
            last: oldest,
        };
        // The journal knows nothing of its incarnation any more: it is in the base only.
        let mut streams = self.streams.iter();
        if !streams.any(|stream| stream.incarnation() == oldest.incarnation) {
            runs.push(kept);
        }
        for stream in &self.streams {
            let begins = stream.opening.is_some() || stream.incarnation() == self.base.incarnation;
            if begins {
                runs.extend(self.runs_of(stream, oldest));
            }
        }
        runs
    }

    fn runs_of(&self, stream: &Stream, oldest: PointRecord) -> Vec<Run> {
        let incarnation = stream.incarnation();
        let from = if incarnation == oldest.incarnation {
            oldest.stamp
        } else {
            Stamp::ZERO
        };
        let upto = self.limit_of(stream).max(from);
        let record = |stamp| {
            let mark = if stamp == oldest.stamp && incarnation == oldest.incarnation {
                oldest.mark
            } else {
                stream.intake.mark_at(stamp)
            };
            PointRecord {
                incarnation,
                stamp,
                mark,
            }
        };
        let runs = self.history(stream).runs(from, upto).into_iter();
        // Place zero is the last one of the incarnation before.
        let runs = runs.map(|(first, last)| (first.max(Stamp(1)), last));
        let runs = runs.filter(|(first, last)| first <= last);
        runs.map(|(first, last)| Run {
            first: record(first),
            last: record(last),
        })
        .collect()
    }

    /// How far there are points in a stream.
    pub(super) fn limit_of(&self, stream: &Stream) -> Stamp {
        let own = match &stream.ending {
            Some(ending) => ending.limit,
            None if self.points.incarnation() == stream.incarnation() => self.points.limit(),
            None => return Stamp::ZERO,
        };
        self.below_ceiling(stream, own)
    }

    /// The same, as operators see them.
    pub fn retained(&self) -> Vec<PointRun> {
        let runs = self.runs().into_iter();
        runs.map(|run| PointRun::new(run.first, run.last, run.points()))
            .collect()
    }

    /// The newest retained point that is not past `at`.
    pub(super) fn find_point(&self, at: At) -> Result<PointRecord, String> {
        let runs = self.runs();
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Err(format!("group {} has no complete point yet", self.name));
        };
        let found = match at {
            At::Oldest => Some(first.first),
            At::Newest => Some(last.last),
            At::Stamp(stamp) => {
                let holds = |run: &&Run| run.first.stamp <= stamp && stamp <= run.last.stamp;
                let run = runs.iter().rev().find(holds);
                run.map(|run| self.point_in(run, stamp))
            }
            At::Mark(mark) => {
                let run = runs.iter().rev().find(|run| run.first.mark <= mark);
                run.map(|run| self.point_at(run, mark))
            }
        };
        found.ok_or_else(|| {
            format!(
                "group {} retains no such point; `ublk-tap-receiver points {}` lists them",
                self.name, self.name
            )
        })
    }

    fn point_in(&self, run: &Run, stamp: Stamp) -> PointRecord {
        let incarnation = run.first.incarnation;
        let mut streams = self.streams.iter();
        let stream = streams.find(|stream| stream.incarnation() == incarnation);
        match stream {
            Some(stream) if stamp > run.first.stamp => PointRecord {
                incarnation,
                stamp,
                mark: stream.intake.mark_at(stamp),
            },
            _ => run.first,
        }
    }

    fn point_at(&self, run: &Run, mark: TimeMark) -> PointRecord {
        let incarnation = run.first.incarnation;
        let mut streams = self.streams.iter();
        let stream = streams.find(|stream| stream.incarnation() == incarnation);
        let last = stream.and_then(|stream| stream.intake.last_before(mark));
        let last = last.unwrap_or(run.first.stamp);
        self.point_in(run, last.clamp(run.first.stamp, run.last.stamp))
    }

    /// Whether the volume is part of the point.
    pub(super) fn is_in(&self, volume: &Name, point: PointRecord) -> bool {
        let mut streams = self.streams.iter();
        let stream = streams.find(|stream| stream.incarnation() == point.incarnation);
        let here = self.base.incarnation == point.incarnation;
        let base = self.base.point == Some(point) || (here && point.stamp <= self.base.horizon);
        let states = match stream {
            Some(stream) if !base => self.milestone_in(stream, point.stamp).states,
            _ => self.base.volumes.clone(),
        };
        states
            .get(volume)
            .is_some_and(|state| crate::points::counts_as(*state))
    }

    /// The next records that lie between the base, which rests, and the point.
    pub(super) fn page(&self, volume: &Name, point: PointRecord, after: Option<Cursor>) -> Page {
        let mut page = Page::default();
        let begin = after.unwrap_or(Cursor {
            counter: self.base.incarnation.counter,
            stamp: self.base.applied.0,
        });
        let upto = point.incarnation.counter;
        for stream in &self.streams {
            let counter = stream.incarnation().counter;
            if counter < begin.counter || counter > upto {
                continue;
            }
            let from = if counter == begin.counter {
                Stamp(begin.stamp)
            } else {
                Stamp::ZERO
            };
            let limit = if counter == upto {
                point.stamp
            } else {
                self.limit_of(stream)
            };
            for (stamp, slot) in stream.intake.records(from, limit) {
                let change = self.change(stream, stamp, slot);
                let Some((_, change)) = change.filter(|(spec, _)| spec.name == *volume) else {
                    continue;
                };
                page.patches.push(Patch {
                    stamp: stamp.0,
                    offset_bytes: change.range.offset_bytes,
                    len_bytes: change.range.len_bytes,
                    record: match change.effect {
                        Effect::Data(at) => Some((at.segment, at.offset_bytes)),
                        Effect::Zero => None,
                    },
                });
                if page.patches.len() >= PAGE_RECORDS_MAX {
                    page.next = Some(Cursor {
                        counter,
                        stamp: stamp.0,
                    });
                    return page;
                }
            }
        }
        page
    }
}
