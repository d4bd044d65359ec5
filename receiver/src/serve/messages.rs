//! What the threads of a group are told, and how they are reached.

use super::group::{Event, Job, SessionId, Unopened};
use super::line::Line;
use super::room::Room;
use crate::catalog::{PointRecord, VolumeRecord};
use crate::control::{At, Cursor, GroupStatus, Page, PointRun};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender, SyncSender};
use tokio::sync::OwnedSemaphorePermit;
use wire::control::{Hello, Refusal};
use wire::{Name, RecordHeader, VolumeName};

/// What came of a hold.
pub(super) type Held = Result<PointRecord, String>;
/// What came of a removal.
pub(super) type Removed = Result<(), String>;

/// What a group's actor is told.
#[derive(Debug)]
pub enum Told {
    /// Something happened.
    Event(Event),
    /// The same, from a source; it may send the next one when the permit is dropped.
    Heard(Event, OwnedSemaphorePermit),
    /// Verified records of a batch, and the room they take until they are durable.
    Records(SessionId, Vec<(RecordHeader, Bytes)>, Room),
    /// A session may be spoken to here from now on.
    Attach(SessionId, Arc<Line>),
    /// Would this hello be refused?
    Probe(Box<Hello>, tokio::sync::oneshot::Sender<Option<Refusal>>),
    /// What is the group's status?
    Status(SyncSender<GroupStatus>),
    /// The base is to rest; the answer says where.
    Hold(u64, Name, At, SyncSender<Held>),
    /// Which points are retained?
    Points(SyncSender<Vec<PointRun>>),
    /// The next records between the base and the point that is held.
    Page(u64, Option<Cursor>, SyncSender<Option<Page>>),
    /// The volume is to be forgotten; answered when it is not touched any more, or is kept.
    Remove(Name, SyncSender<Removed>),
    /// Come to rest, answer, and end.
    Stop(SyncSender<()>),
}

/// Something for the worker.
#[derive(Debug)]
pub(super) enum Work {
    /// Do this, then tell.
    Job(Box<Job>),
    /// Open the targets of a volume.
    Add(Box<VolumeRecord>, SyncSender<Result<(), Unopened>>),
    /// Close them.
    Remove(VolumeName, Option<SyncSender<Removed>>),
}

/// How a group is reached.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) tell: Sender<Told>,
    pub(super) work: Sender<Work>,
}

impl Handle {
    /// Has the worker open a volume's targets.
    pub(super) fn open(&self, record: &VolumeRecord) -> Result<(), Unopened> {
        let (answer, answered) = mpsc::sync_channel(1);
        let _ = self.work.send(Work::Add(Box::new(record.clone()), answer));
        answered
            .recv()
            .unwrap_or_else(|_| Err(Unopened::of("the worker of the group is gone")))
    }
}
