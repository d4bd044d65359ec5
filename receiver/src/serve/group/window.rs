//! Window: how much history is kept. The base trails at the oldest retained point.
//!
//! ```text
//! base = oldest point      cutoff = newest - retain              newest point
//!   |<--- one fold step --->|<----------- the window ------------->|
//! ```
//!
//! The base sets out when a fold step has left the window: an eighth of it, at least
//! [`FOLD_STEP_BYTES_MIN`], so that overwrites fold. Sooner where room is wanted: by the journal,
//! for records in memory, or for streams. Then the window shrinks, and says so.
//!
//! Promises: the base heads only for points; what is retained is let go oldest first; the newest
//! complete point is never let go (P7).

use super::event::{Now, Output};
use super::stream::Stream;
use super::{Group, STREAMS_MAX};
use crate::points::History;
use std::time::Duration;
use wire::{Stamp, TimeMark};

/// Least that leaves the window at once, where nothing presses.
pub const FOLD_STEP_BYTES_MIN: u64 = 256 << 20;
/// Time between two looks at how far the window reaches.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same, while room is wanted.
const PRESSED_INTERVAL: Duration = Duration::from_millis(100);

/// The window of a group.
#[derive(Debug)]
pub(super) struct Window {
    /// How far back points are kept; zero: the base follows the newest.
    pub(super) retain: Duration,
    fold_step_bytes_min: u64,
    /// The journal wants this segment and older ones back.
    pressed: Option<u64>,
    /// The base goes up to here in the stream it is in; a point.
    goal: Stamp,
    next_look: Duration,
    /// Why it is shorter than wanted, while it is.
    short: Option<&'static str>,
}

/// What wants room.
struct Pressure {
    /// Everything up to here is to go.
    upto: Stamp,
    why: &'static str,
}

impl Window {
    pub(super) fn new(retain: Duration) -> Self {
        Self {
            retain,
            fold_step_bytes_min: FOLD_STEP_BYTES_MIN,
            pressed: None,
            goal: Stamp::ZERO,
            next_look: Duration::ZERO,
            short: None,
        }
    }

    #[cfg(test)]
    pub(super) fn set_fold_step(&mut self, bytes_min: u64) {
        self.fold_step_bytes_min = bytes_min;
    }

    /// The base is in another stream, or somewhere else in it.
    pub(super) fn forget_goal(&mut self) {
        (self.goal, self.next_look) = (Stamp::ZERO, Duration::ZERO);
    }

    pub(super) fn goal(&self) -> Stamp {
        self.goal
    }
}

impl Group {
    /// Nothing is to be retained, or nothing can be: the base follows the newest point.
    pub(super) fn follows(&self) -> bool {
        self.window.retain.is_zero() || self.base.point.is_none()
    }

    pub(super) fn journal_pressed(&mut self, upto: Option<u64>) {
        self.window.pressed = upto;
        self.window.next_look = Duration::ZERO;
    }

    /// Looks, now and then, how far the base is to go.
    pub(super) fn look_at_window(&mut self, now: Now) {
        if self.follows() {
            self.window.short = None;
            return;
        }
        let crowded = self.is_crowded();
        if now.up < self.window.next_look {
            return;
        }
        let pressed = crowded || self.window.pressed.is_some();
        let interval = if pressed {
            PRESSED_INTERVAL
        } else {
            LOOK_INTERVAL
        };
        self.window.next_look = now.up + interval;
        self.move_goal(now);
    }

    fn move_goal(&mut self, now: Now) {
        let cutoff = self.cutoff(now);
        let Some(stream) = self.streams.front() else {
            return;
        };
        if stream.incarnation() != self.base.incarnation {
            return;
        }
        let (from, limit) = (self.base.horizon, self.stream_end(stream));
        let history = self.history(stream);
        let aged = self.aged(stream, limit, cutoff);
        let aged = history.point_upto(aged).max(from);
        let pressure = self.pressure(stream, limit);
        let pushed = pressure.as_ref().map_or(from, |pressure| {
            let wanted = history.point_from(pressure.upto);
            let reached = if wanted <= limit {
                wanted
            } else {
                history.point_upto(pressure.upto)
            };
            reached.max(from)
        });
        let young = pushed > aged && stream.intake.mark_at(pushed) > cutoff;
        self.window.goal = aged.max(pushed);
        let why = pressure.map(|pressure| pressure.why).filter(|_| young);
        self.note_shortness(cutoff, why);
    }

    /// Points at or before this may go. By the source's clock, and by ours where the source's runs
    /// ahead: a clock that jumps does not let the window go.
    fn cutoff(&self, now: Now) -> TimeMark {
        let newest = self.recoverable().unwrap_or_default();
        let newest = newest.min(now.wall);
        let retain_ns = u64::try_from(self.window.retain.as_nanos()).unwrap_or(u64::MAX);
        TimeMark(newest.0.saturating_sub(retain_ns))
    }

    /// How far the records have left the window, if that is worth a step.
    fn aged(&self, stream: &Stream, limit: Stamp, cutoff: TimeMark) -> Stamp {
        let from = self.base.horizon;
        let aged = stream.intake.last_before(cutoff).unwrap_or(from);
        let aged = aged.min(limit);
        let ended = stream.ending.is_some() && aged == self.own_end(stream);
        let bytes = stream.intake.bytes_waiting_upto(aged);
        let eighth = self.window_bytes() / 8;
        let enough = bytes >= eighth.max(self.window.fold_step_bytes_min);
        if ended || enough { aged } else { from }
    }

    /// What wants room of the stream the base is in, if anything does.
    fn pressure(&self, stream: &Stream, limit: Stamp) -> Option<Pressure> {
        let later = |segment| {
            let mut later = self.streams.iter().skip(1);
            later.any(|stream| stream.intake.last_in(segment).is_some())
        };
        if let Some(segment) = self.window.pressed {
            let why = "the journal is at its bound (journal_max in receiver.toml)";
            let upto = if later(segment) {
                Some(limit)
            } else {
                stream.intake.last_in(segment)
            };
            if let Some(upto) = upto {
                let upto = upto.min(limit);
                return Some(Pressure { upto, why });
            }
        }
        if self.streams.len() > STREAMS_MAX / 2 {
            let why = "the source has begun anew too often";
            return Some(Pressure { upto: limit, why });
        }
        if let Some(upto) = self.history(stream).excess() {
            let why = "its volumes come and go, or cannot be written, too often";
            let upto = upto.min(limit);
            return Some(Pressure { upto, why });
        }
        let excess = self.records_waiting().saturating_sub(self.records_kept());
        let why = "a group retains no more records";
        let upto = Stamp(self.base.applied.0 + excess as u64).min(limit);
        self.is_crowded().then_some(Pressure { upto, why })
    }

    /// The window holds nearly all the records it may.
    fn is_crowded(&self) -> bool {
        self.records_waiting() > self.records_max - self.records_max / 8
    }

    /// How many are left when it was.
    fn records_kept(&self) -> usize {
        self.records_max - self.records_max / 4
    }

    /// Says when the window becomes shorter than wanted, and when it is whole again.
    fn note_shortness(&mut self, cutoff: TimeMark, why: Option<&'static str>) {
        if let Some(why) = why {
            if self.window.short.is_none() {
                let report = format!("group {}: the window shrinks: {why}", self.name);
                self.out.push_back(Output::Report(report));
            }
            self.window.short = Some(why);
        } else if self.window.short.is_some() && self.oldest_mark() <= cutoff {
            self.window.short = None;
            let report = format!("group {}: the window is whole again", self.name);
            self.out.push_back(Output::Report(report));
        }
    }

    /// Time of the oldest retained point.
    pub(super) fn oldest_mark(&self) -> TimeMark {
        self.base.point.map_or(TimeMark(0), |point| point.mark)
    }

    /// What is retained, from the oldest point to the newest.
    pub(super) fn window_span(&self) -> Option<Duration> {
        let newest = self.recoverable()?;
        let oldest = self.base.point?.mark;
        Some(Duration::from_nanos(newest.0.saturating_sub(oldest.0)))
    }

    /// About what it takes in the journal.
    pub(super) fn window_bytes(&self) -> u64 {
        let streams = self.streams.iter();
        streams.map(|stream| stream.intake.bytes_waiting()).sum()
    }

    /// Why it is shorter than wanted, in words.
    pub(super) fn window_text(&self) -> Option<String> {
        let why = self.window.short?;
        let hours = |span: Duration| span.as_secs_f64() / 3600.0;
        let span = self.window_span().unwrap_or_default();
        Some(format!(
            "window {:.1} h instead of {:.1} h: {why}",
            hours(span),
            hours(self.window.retain)
        ))
    }

    /// The history of a stream.
    pub(super) fn history<'a>(&'a self, stream: &'a Stream) -> &'a History {
        match &stream.ending {
            Some(ending) => &ending.history,
            None => self.points.history(),
        }
    }
}
