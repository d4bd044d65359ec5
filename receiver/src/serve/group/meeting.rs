//! Meeting: what a source of a group with several has to do with the others. Pure.
//!
//! It says how far it reaches, and is told the cut: its points, and its base, end there. A source
//! that is alone in its group knows nothing of this.

use super::Group;
use super::event::{Job, Now, Output};
use super::stream::Stream;
use crate::journal::Entry;
use crate::points::Reach;
use std::time::Duration;
use wire::control::Control;
use wire::journal::StreamLost;
use wire::{Stamp, TimeMark};

/// Most a source's clock may be from ours for its marks to count among those of other sources.
pub const CLOCK_OFFSET_MAX: Duration = Duration::from_secs(5);
/// Most holes that are told apart; what lies before them is one.
const HOLES_MAX: usize = 256;

/// What a group knows of the cut.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// There are other sources.
    on: bool,
    /// Where they met last.
    cut: Option<TimeMark>,
    /// The latest of all times at which they did.
    latest: TimeMark,
    /// Whether the others count on nothing here to change.
    rest: Rest,
    /// All up to here is durable and settled, as it was said last.
    through: TimeMark,
    /// The newest mark there was a chance to say that of.
    seen: TimeMark,
    /// Some of what it had is lost and not copied again yet.
    lost: bool,
    /// Why it was let go; said to the source when it is back.
    farewell: Option<String>,
}

/// What the others were told of a source whose volumes have all left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    /// It can change: they wait for it.
    #[default]
    Over,
    /// It cannot: they have gone on.
    On,
    /// It can again. How far they had come by then is not known here yet.
    Ending,
}

impl Meeting {
    pub(super) fn with_others(cut: Option<TimeMark>) -> Self {
        Self {
            on: true,
            cut,
            latest: cut.unwrap_or_default(),
            ..Self::default()
        }
    }

    fn cut(&self) -> TimeMark {
        self.cut.unwrap_or_default()
    }

    /// New marks lie above this.
    pub(super) fn latest(&self) -> TimeMark {
        self.latest
    }

    /// No session begins: its records could be marked earlier than where the others are.
    pub(super) fn rests(&self) -> bool {
        self.rest != Rest::Over
    }

    pub(super) fn remember_farewell(&mut self, words: String) {
        self.farewell = Some(words);
    }

    pub(super) fn note_loss(&mut self) {
        self.lost = true;
    }
}

impl Group {
    /// The sources of the group meet there.
    pub(super) fn hear_cut(&mut self, cut: Option<TimeMark>) {
        self.meeting.on = true;
        self.meeting.cut = cut;
        self.meeting.latest = self.meeting.latest.max(self.meeting.cut());
        if self.meeting.rest == Rest::Ending {
            self.meeting.rest = Rest::Over;
        }
        self.ack_due = true;
    }

    /// The source is back, the others have been told so: [`Event::Cut`] is wanted with where they
    /// are now, whether or not it has moved.
    pub fn waits_for_cut(&self) -> bool {
        self.meeting.rest == Rest::Ending
    }

    /// Volumes that are part of points can change: not all have left, or their source is there, or
    /// something it did is not usable yet.
    fn can_change(&self) -> bool {
        if self.points.can_change() || self.session.is_some() || self.greeting.is_some() {
            return true;
        }
        self.current().is_some_and(|stream| {
            stream.incarnation() != self.points.incarnation() || !stream.intake.is_used_up()
        })
    }

    /// How far the source reaches, if there are others to meet with.
    pub fn reach(&mut self, now: Now) -> Option<Reach> {
        if !self.meeting.on {
            return None;
        }
        let frozen = self.points.frozen().is_some();
        self.meeting.lost &= frozen;
        self.note_through(now);
        let newest = self.points.point().map(|point| point.mark);
        let can_change = self.can_change();
        self.meeting.rest = match (can_change, self.meeting.rest) {
            (false, _) => Rest::On,
            (true, Rest::On) => Rest::Ending,
            (true, rest) => rest,
        };
        Some(Reach {
            has_points: self.base.point.is_some(),
            can_change,
            since: self.oldest_mark(),
            through: self.meeting.through,
            newest: self.points.point().unwrap_or_default(),
            frozen: newest.filter(|_| frozen).map(|at| at.max(self.covered)),
            holes: self.holes(),
            lost: self.meeting.lost,
            session: self.session.as_ref().map(|session| session.id),
        })
    }

    /// Marks count when they are new, as far as our own clock vouches for them: one of a clock that
    /// runs ahead does not come true by waiting, for what follows it is marked later still.
    fn note_through(&mut self, now: Now) {
        let newest = self.points.mark().max(self.heard);
        if newest <= self.meeting.seen {
            return;
        }
        self.meeting.seen = newest;
        if self.clock_is_off().is_none() {
            let ahead_ns = CLOCK_OFFSET_MAX.as_nanos() as u64;
            let newest = newest.min(TimeMark(now.wall.0.saturating_add(ahead_ns)));
            self.meeting.through = self.meeting.through.max(newest);
        }
    }

    /// Why the source's marks do not count: its clock is too far off.
    pub(super) fn clock_is_off(&self) -> Option<String> {
        let offset_s = self.session.as_ref()?.clock_offset_s()?;
        let far = self.meeting.on && offset_s.abs() > CLOCK_OFFSET_MAX.as_secs_f64();
        far.then(|| {
            let side = if offset_s > 0.0 { "ahead of" } else { "behind" };
            format!(
                "the clock of source {} is {:.1} s {side} the receiver's, {} s are the most that \
                 can be compared with those of other sources; set it",
                self.source,
                offset_s.abs(),
                CLOCK_OFFSET_MAX.as_secs()
            )
        })
    }

    /// Times at which the volumes were at no point, above the base, oldest first.
    fn holes(&self) -> Vec<(TimeMark, TimeMark)> {
        let here = self.points.incarnation();
        let known = |stream: &&Stream| stream.ending.is_some() || stream.incarnation() == here;
        let mut holes = Vec::new();
        for stream in self.streams.iter().filter(known) {
            for (kept, after, upto) in self.history(stream).stretches() {
                let after = kept.unwrap_or_else(|| stream.intake.mark_at(after));
                holes.push((after, stream.intake.mark_at(upto)));
            }
        }
        let many = holes.len().saturating_sub(HOLES_MAX);
        let first = holes.first().copied();
        holes.drain(..many);
        if let (Some(hole), Some((after, _))) = (holes.first_mut(), first) {
            hole.0 = after;
        }
        holes
    }

    /// Points of the source later than this are no points of the group yet. Before its first point
    /// there is nothing the others could wait for.
    pub(super) fn ceiling(&self) -> Option<TimeMark> {
        let bound = self.meeting.on && self.base.point.is_some();
        bound.then(|| self.meeting.cut())
    }

    /// How far points of the stream, which has some up to `own`, are points of the group.
    pub(super) fn below_ceiling(&self, stream: &Stream, own: Stamp) -> Stamp {
        let Some(ceiling) = self.ceiling() else {
            return own;
        };
        let upto = stream.intake.last_before(ceiling);
        let upto = upto.map_or(Stamp::ZERO, |upto| upto.min(own));
        self.history(stream).point_upto(upto)
    }

    /// The others hold the point of the group back.
    pub(super) fn waits_for_others(&self) -> bool {
        let stream = self.streams.front();
        stream.is_some_and(|stream| self.stream_end(stream) < self.own_end(stream))
    }

    /// An operator has given the source up: what it did after the cut is given back, and its
    /// volumes are copied again when it returns.
    pub(super) fn let_go(&mut self, reason: String) {
        self.end_sessions(&reason);
        self.meeting.farewell = Some(reason.clone());
        let Some(stream) = self.streams.back() else {
            return;
        };
        let here = stream.incarnation() == self.base.incarnation;
        let after = if here {
            let heading = match &self.job {
                Some(Job::Step(step)) => step.heading.as_ref(),
                _ => None,
            };
            let heading = heading.map_or(Stamp::ZERO, |heading| heading.horizon);
            self.stream_end(stream).max(heading)
        } else {
            self.limit_of(stream)
        };
        let (number, upto) = (stream.number, stream.intake.received());
        if stream.intake.closed().is_none() && upto > after {
            let lost = StreamLost {
                after,
                upto,
                reason,
            };
            self.append(number, vec![Entry::Lost(number, lost)]);
        }
    }

    /// The source is back: it hears that it was let go.
    pub(super) fn welcome(&mut self) {
        if let (Some(reason), Some(session)) = (self.meeting.farewell.take(), &self.session) {
            let said = Control::Notice(reason);
            self.out.push_back(Output::Say(session.id, said));
        }
    }
}
