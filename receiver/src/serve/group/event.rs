//! What a group is told, and what it asks for.

use crate::catalog::{PointRecord, Since, StreamState};
use crate::control::At;
use crate::fold::{Extent, RecordAt};
use crate::journal::{Durable, Entry};
use bytes::Bytes;
use std::time::Duration;
use wire::control::{Control, Heartbeat, Hello};
use wire::journal::StreamNumber;
use wire::{Generation, Incarnation, Name, RecordHeader, SettleMark, Stamp, TimeMark};

/// Number of a session; never used twice by one process.
pub type SessionId = u64;
/// Number of a hold; never used twice by one process.
pub type HoldId = u64;

/// The time, twice: what clocks show, and what only goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The receiver's clock.
    pub wall: TimeMark,
    /// Since the process began.
    pub up: Duration,
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A source says hello; the catalog has nothing against it.
    Hello(SessionId, Box<Admitted>),
    /// Verified records of one batch.
    Records(SessionId, Vec<(RecordHeader, Bytes)>),
    /// A settle mark.
    Settle(SessionId, SettleMark),
    /// A sign of life.
    Heartbeat(SessionId, Heartbeat),
    /// The session is over.
    Ended(SessionId),
    /// The source may no longer speak; its session ends with these words.
    Dismissed(String),
    /// The journal holds these entries of a stream.
    Durable(StreamNumber, Vec<Durable>),
    /// The journal has failed, in words.
    JournalFailed(String),
    /// The journal has room for records, or not.
    JournalRoom(bool),
    /// The journal runs out of room: it wants this segment and older ones back, or none any more.
    JournalPressed(Option<u64>),
    /// A job has ended.
    Job(JobOutcome),
    /// A volume was registered; why its targets cannot be written, if they cannot.
    Added(Name, Registered),
    /// A volume is to be forgotten.
    Removing(Name),
    /// It is to be kept after all, unless it is forgotten already.
    Keep(Name),
    /// The base is to rest, and the records above it up to a point of the volume are to stay.
    Hold(HoldId, Name, At),
    /// It need not any more.
    Release(HoldId),
    /// There are other sources of the group; they all have a point at this time, and at none later.
    Cut(Option<TimeMark>),
    /// The others go on without this source, in these words.
    LetGo(String),
    /// The receiver stops: the base goes as far as it may, then rests.
    Stop,
    /// Time passes; comes at least each second.
    Tick,
}

/// A hello and what the catalog adds to it.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// What the source said.
    pub hello: Hello,
    /// The group's generation.
    pub generation: Generation,
    /// A number for its stream, should it be a new one.
    pub number: StreamNumber,
}

/// A volume of the group, as registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Its size.
    pub size_bytes: u64,
    /// Its logical sector.
    pub sector_bytes: u32,
    /// Why its targets cannot be written.
    pub refused: Option<Unopened>,
    /// From where on records of its name are its own; nowhere before its disk has shown up.
    pub since: Option<Since>,
}

impl Registered {
    /// Whether a record of its name is its own.
    pub(super) fn takes(&self, incarnation: Incarnation, stamp: Stamp) -> bool {
        self.since
            .is_some_and(|since| since.admits(incarnation, stamp))
    }
}

/// Targets that were not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// Why, in words.
    pub reason: String,
    /// They are only away, or do not answer: the journal goes on without them. Of others than the
    /// volume was given nothing is believed, and its source is refused (P13).
    pub away: bool,
}

impl Unopened {
    /// For a reason that is no disk's.
    pub fn of(reason: impl ToString) -> Self {
        let (reason, away) = (reason.to_string(), false);
        Self { reason, away }
    }
}

/// Something for the group's own thread, which may block. One at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Commit a state: the base rests, the stream has changed.
    Commit(StreamState),
    /// Move the base.
    Step(Step),
    /// Open the targets of all volumes anew.
    Reopen,
}

/// One step of the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is left of the records of each volume, in disk order.
    pub changes: Vec<(Name, Vec<Extent>)>,
    /// Committed before anything is written, if the horizon moves.
    pub heading: Option<StreamState>,
    /// Committed when all is written and synced.
    pub reached: StreamState,
    /// What the step after it will most likely change, if that is a full one; else nothing. Good
    /// for loading ahead: what will be applied is said by that step.
    pub next: Vec<(Name, Vec<Extent>)>,
}

/// How a job has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Done and committed.
    Done,
    /// A record it needs is damaged; nothing was written.
    Damaged {
        /// Where the record should be.
        at: RecordAt,
        /// In words.
        reason: String,
    },
    /// A target cannot take the step; nothing of it was committed or written.
    NotBegun(String),
    /// A target does not take writes; the horizon was committed, what it holds of the step is not
    /// known.
    Target(String),
    /// The targets were opened anew, but for those of these volumes.
    Reopened(Vec<(Name, Unopened)>),
    /// It failed, and will go on failing until a restart.
    Failed(String),
}

/// Something is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Journal these.
    Append(Vec<Entry>),
    /// The journal need not keep what lies up to here.
    Applied(StreamNumber, Stamp),
    /// The journal need not keep anything of the stream.
    Retire(StreamNumber),
    /// Do this, then tell.
    Job(Job),
    /// Say this to the source.
    Say(SessionId, Control),
    /// Say why, and end the session.
    End(SessionId, String),
    /// The hold is in force, or refused in words.
    Held(HoldId, Result<PointRecord, String>),
    /// The volume is no longer touched.
    Removed(Name),
    /// The volume is not forgotten, in words.
    Kept(Name, String),
    /// An operator should hear of this.
    Report(String),
    /// The base rests for good.
    Stopped,
}
