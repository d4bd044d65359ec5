//! Group: all that is decided about the volumes of one group at one source. Pure.
//!
//! Owned by the group's actor. It puts together the streams ([`crate::intake`]), their points
//! ([`crate::points`]), the session of the source, and the moves of the base. Events go in through
//! [`Group::handle`], what is to be done comes out of [`Group::poll`]; no clock, no files.
//!
//! ```text
//! hello -> old stream closed -> its last points -> new stream opened -> HelloAck
//! records, settle marks -> intake -> journal -> durable -> usable -> points -> limit
//! limit -> step: horizon committed, written, synced, applied committed -> journal freed
//! ```
//!
//! Promises: nothing is acknowledged before it is durable (P10); the base heads only for complete
//! points (P7); nothing of two incarnations is joined: the stream of the older one is applied to
//! its end, then the base changes over (P8); whatever a source sends, at worst its session ends.
//!
//! Of a group with several sources each has one of these, called its lane; they meet at a cut
//! ([`meeting`]).
//!
//! Does not: check identities (the session layer did, P13), verify payloads, write.

mod base;
mod committed;
mod event;
mod facts;
mod hello;
mod meeting;
mod offset;
mod plan;
mod restore;
mod retained;
mod session;
mod steps;
mod stream;
mod targets;
#[cfg(test)]
mod tests;
mod window;

pub use event::{
    Admitted, Event, HoldId, Job, JobOutcome, Now, Output, Registered, SessionId, Step, Unopened,
};
pub use meeting::CLOCK_OFFSET_MAX;
pub use restore::Restored;
pub use window::FOLD_STEP_BYTES_MIN;

use crate::catalog::{Lane, StreamState};
use crate::journal::{Durable, Entry};
use crate::points::{Points, Wanted};
use base::Holds;
use committed::Committed;
use hello::Greeting;
use meeting::Meeting;
use session::Session;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use stream::Stream;
use targets::Targets;
use window::Window;
use wire::journal::StreamNumber;
use wire::{Name, TimeMark};

/// Most streams of a group that wait to be applied: closed ones and the current one. Of more than
/// half of it the oldest are not retained.
pub const STREAMS_MAX: usize = 32;
/// Time between the starts of two small steps.
const STEP_INTERVAL: Duration = Duration::from_millis(20);

/// One group.
#[derive(Debug)]
pub struct Group {
    name: Name,
    source: Name,
    volumes: BTreeMap<Name, Registered>,
    points: Points,
    /// Oldest first. The base is in the first, or about to change over to it.
    streams: VecDeque<Stream>,
    /// Left behind by the base; the next change-over lets the journal forget them.
    left: Vec<StreamNumber>,
    /// Where the base is, and where it is headed: what its targets may hold.
    base: StreamState,
    /// How far the catalog is known to let it go: nothing is written beyond.
    committed: Committed,
    session: Option<Session>,
    greeting: Option<Greeting>,
    job: Option<Job>,
    next_step: Duration,
    /// Most changes of one step.
    step_changes_max: usize,
    /// Most bytes one step zeroes.
    step_zero_bytes_max: u64,
    /// Most records that may wait to be applied.
    records_max: usize,
    /// The source was told that records are held up.
    told_full: bool,
    /// A damaged record stands in the base's way until the journal says that it is lost.
    damaged: bool,
    /// Why the base no longer moves.
    failed: Option<String>,
    journal_failed: Option<String>,
    journal_full: bool,
    window: Window,
    targets: Targets,
    holds: Holds,
    meeting: Meeting,
    removing: Vec<Name>,
    wanted: VecDeque<Wanted>,
    stopping: bool,
    ack_due: bool,
    /// Clock of the newest sign of life whose promise was valid.
    heard: TimeMark,
    /// The same, for those that the newest point covers.
    covered: TimeMark,
    /// Generation counter, for status.
    generation: u64,
    out: VecDeque<Output>,
}

impl Group {
    /// Takes the next event.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Hello(session, admitted) => self.hello(session, *admitted),
            Event::Records(session, records) => self.records(session, records),
            Event::Settle(session, mark) => self.settle(session, &mark),
            Event::Heartbeat(session, beat) => self.heartbeat(now, session, beat),
            Event::Ended(session) => self.ended(session),
            Event::Dismissed(reason) => self.dismiss(&reason),
            Event::Durable(stream, entries) => self.durable(stream, entries),
            Event::JournalFailed(reason) => self.journal_failed(reason),
            Event::JournalRoom(room) => self.journal_full = !room,
            Event::JournalPressed(upto) => self.journal_pressed(upto),
            Event::Job(outcome) => self.job_ended(now, outcome),
            Event::Added(volume, registered) => self.add(volume, registered),
            Event::Removing(volume) => self.remove(volume),
            Event::Keep(volume) => self.keep(volume),
            Event::Hold(hold, volume, at) => self.holds.ask(hold, volume, at),
            Event::Release(hold) => self.holds.release(hold),
            Event::Cut(cut) => self.hear_cut(cut),
            Event::LetGo(reason) => self.let_go(reason),
            Event::Stop => self.stop(),
            Event::Tick => self.look_for_strays(now),
        }
        self.maintain(now);
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Event::Tick`] is wanted next, if earlier than each second.
    pub fn deadline(&self) -> Option<Duration> {
        let waits = self.job.is_none() && self.can_move();
        waits.then_some(self.next_step)
    }

    /// Whether the source should hear how far things are.
    pub fn ack_is_due(&self) -> bool {
        self.ack_due && self.session.is_some()
    }

    /// Whose volumes of which group these are.
    pub fn lane(&self) -> Lane {
        Lane {
            group: self.name.clone(),
            source: self.source.clone(),
        }
    }

    /// Whether more records may be taken now.
    pub fn takes_records(&self) -> bool {
        !self.journal_full && self.records_waiting() < self.records_max
    }

    /// Records in the journal that are to be applied, of all streams.
    pub(super) fn records_waiting(&self) -> usize {
        let streams = self.streams.iter();
        streams.map(|stream| stream.intake.records_waiting()).sum()
    }

    /// After every event: whatever has become possible is done.
    fn maintain(&mut self, now: Now) {
        self.feed_points();
        self.go_on_greeting(now);
        self.append_settles();
        self.ask_for_copies();
        self.move_base(now);
        self.notify_room();
        self.answer_holds();
        self.finish_stopping();
    }

    fn append(&mut self, number: StreamNumber, entries: Vec<Entry>) {
        let stream = self
            .streams
            .iter_mut()
            .find(|stream| stream.number == number);
        if let Some(stream) = stream.filter(|_| !entries.is_empty()) {
            stream.pending += entries.len();
            self.out.push_back(Output::Append(entries));
        }
    }

    fn durable(&mut self, number: StreamNumber, entries: Vec<Durable>) {
        let Some(stream) = self
            .streams
            .iter_mut()
            .find(|stream| stream.number == number)
        else {
            return;
        };
        assert!(
            stream.pending >= entries.len(),
            "the journal says more than it was told"
        );
        stream.pending -= entries.len();
        for entry in entries {
            stream.intake.durable(entry);
        }
        self.ack_due = true;
    }

    fn journal_failed(&mut self, reason: String) {
        self.end_sessions(&reason);
        self.journal_failed = Some(reason);
    }

    /// The source hears when records begin to be held up, and when that is over.
    fn notify_room(&mut self) {
        let full = !self.takes_records();
        if full == self.told_full {
            return;
        }
        self.told_full = full;
        let notice = if full {
            self.full_text()
        } else {
            String::new()
        };
        self.notify(notice);
    }

    /// The stream the source sends to now.
    fn current(&self) -> Option<&Stream> {
        self.streams.back()
    }
}
