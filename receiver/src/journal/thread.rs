//! The writer's thread, and the handle everyone else has.
//!
//! Who appends bounds the queue: a batch carries whatever its room was paid with, dropped once the
//! batch is durable. The sink is called on this thread and must not block.

use super::entry::{Durable, Entry};
use super::error::JournalError;
use super::store::Store;
use super::writer::Writer;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use wire::Stamp;
use wire::journal::{JournalId, StreamNumber};

/// How often a full journal looks whether there is room again.
const FULL_RETRY: Duration = Duration::from_millis(500);

/// Takes what the journal has to tell, on its thread.
pub trait Sink: Send {
    /// These are durable, in order.
    fn durable(&mut self, entries: Vec<(StreamNumber, Durable)>);
    /// Records are to be taken, or not to be.
    fn room(&mut self, room: bool);
    /// Room runs out: this segment and older ones are wanted back; none when there is enough.
    fn pressed(&mut self, upto: Option<u64>);
    /// Nothing will become durable any more.
    fn failed(&mut self, reason: &str);
}

/// Entries appended together.
pub struct Batch {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Dropped when all of them are durable, or never will be.
    pub hold: Option<Box<dyn Any + Send>>,
}

/// The journal's state, for status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of all its segments.
    pub bytes: u64,
    /// Bound on them.
    pub bytes_max: u64,
    /// Number of segments.
    pub segments: u64,
    /// No room for records.
    pub full: bool,
    /// Why it has failed.
    pub failed: Option<String>,
}

/// A running journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    facts: Mutex<Facts>,
    thread: Mutex<Option<JoinHandle<()>>>,
    id: JournalId,
    segment_bytes: u64,
}

#[derive(Default)]
struct Inbox {
    batches: VecDeque<Batch>,
    applied: BTreeMap<StreamNumber, Stamp>,
    retired: Vec<StreamNumber>,
    stop: bool,
}

impl Journal {
    /// Starts the thread.
    pub fn start<S>(writer: Writer<S>, sink: Box<dyn Sink>) -> io::Result<Self>
    where
        S: Store + 'static,
        S::Segment: 'static,
    {
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            facts: Mutex::default(),
            thread: Mutex::default(),
            id: writer.id(),
            segment_bytes: writer.segment_bytes(),
        });
        let mut driver = Driver {
            shared: Arc::clone(&shared),
            writer,
            sink,
            queue: VecDeque::new(),
            holds: VecDeque::new(),
            full: false,
            pressed: None,
        };
        driver.publish(None);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || driver.run())?;
        *lock(&shared.thread) = Some(thread);
        Ok(Self { shared })
    }

    /// Queues entries; the sink is told when they are durable.
    pub fn append(&self, batch: Batch) {
        lock(&self.shared.inbox).batches.push_back(batch);
        self.shared.wake.notify_one();
    }

    /// Records of the stream up to `applied` are in the base, durably.
    pub fn applied(&self, stream: StreamNumber, applied: Stamp) {
        lock(&self.shared.inbox).applied.insert(stream, applied);
        self.shared.wake.notify_one();
    }

    /// Nothing of the stream is needed any more.
    pub fn retire(&self, stream: StreamNumber) {
        lock(&self.shared.inbox).retired.push(stream);
        self.shared.wake.notify_one();
    }

    /// Writes what is queued, as far as there is room, and ends the thread.
    pub fn stop(&self) {
        lock(&self.shared.inbox).stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = lock(&self.shared.thread).take() {
            // A panic of the thread has been reported by its hook.
            let _ = thread.join();
        }
    }

    /// How it is.
    pub fn facts(&self) -> Facts {
        lock(&self.shared.facts).clone()
    }

    /// Its id.
    pub fn id(&self) -> JournalId {
        self.shared.id
    }

    /// Size of its segments.
    pub fn segment_bytes(&self) -> u64 {
        self.shared.segment_bytes
    }
}

struct Driver<S: Store> {
    shared: Arc<Shared>,
    writer: Writer<S>,
    sink: Box<dyn Sink>,
    queue: VecDeque<Entry>,
    /// For each queued batch: entries not yet durable, and what it holds.
    holds: VecDeque<(usize, Option<Box<dyn Any + Send>>)>,
    full: bool,
    pressed: Option<u64>,
}

impl<S: Store> Driver<S> {
    fn run(&mut self) {
        // A panic as well: what it leaves behind is only let go.
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let reason = match served {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the journal's thread has failed; see the log, then restart".into(),
        };
        self.publish(Some(reason.clone()));
        self.sink.failed(&reason);
        self.queue.clear();
        self.holds.clear();
        self.discard();
    }

    fn serve(&mut self) -> Result<(), JournalError> {
        let mut stuck = false;
        loop {
            let stop = self.collect(stuck);
            let committed = self.writer.commit(&mut self.queue)?;
            if !committed.entries.is_empty() {
                let count = committed.entries.len();
                self.sink.durable(committed.entries);
                self.release(count);
            }
            self.writer.maintain()?;
            // With room made just now nobody else would wake it for what found none.
            stuck = committed.no_room && self.writer.is_full();
            self.publish(None);
            if stop && (self.queue.is_empty() || stuck) {
                return Ok(());
            }
        }
    }

    /// Takes what came in; waits for it if there is nothing else to do. True if it is to stop.
    fn collect(&mut self, stuck: bool) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut inbox = lock(&shared.inbox);
        if self.queue.is_empty() || stuck {
            inbox = self.wait(&shared, inbox);
        }
        for (stream, applied) in std::mem::take(&mut inbox.applied) {
            self.writer.applied(stream, applied);
        }
        for stream in inbox.retired.drain(..) {
            self.writer.retire(stream);
        }
        for batch in inbox.batches.drain(..) {
            self.holds.push_back((batch.entries.len(), batch.hold));
            self.queue.extend(batch.entries);
        }
        inbox.stop
    }

    fn wait<'a>(
        &self,
        shared: &'a Shared,
        mut inbox: MutexGuard<'a, Inbox>,
    ) -> MutexGuard<'a, Inbox> {
        while !inbox.is_pressing() {
            if self.full {
                let waited = shared.wake.wait_timeout(inbox, FULL_RETRY);
                return waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            inbox = shared
                .wake
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inbox
    }

    /// The first `count` entries of the queue are durable.
    fn release(&mut self, mut count: usize) {
        while let Some((left, _)) = self.holds.front_mut() {
            let taken = count.min(*left);
            *left -= taken;
            count -= taken;
            if *left > 0 {
                break;
            }
            self.holds.pop_front();
        }
        assert!(count == 0, "entries became durable that nobody appended");
    }

    fn publish(&mut self, failed: Option<String>) {
        let full = self.writer.is_full();
        if full != self.full {
            self.full = full;
            self.sink.room(!full);
        }
        let pressed = self.writer.wanted_back();
        if pressed != self.pressed {
            self.pressed = pressed;
            self.sink.pressed(pressed);
        }
        *lock(&self.shared.facts) = Facts {
            bytes: self.writer.segments() * self.writer.segment_bytes(),
            bytes_max: self.writer.segments_max() * self.writer.segment_bytes(),
            segments: self.writer.segments(),
            full,
            failed,
        };
    }

    /// After a failure: whatever still comes in is let go.
    fn discard(&self) {
        let mut inbox = lock(&self.shared.inbox);
        while !inbox.stop {
            inbox.batches.clear();
            inbox.applied.clear();
            inbox.retired.clear();
            inbox = self
                .shared
                .wake
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inbox.batches.clear();
    }
}

impl Inbox {
    fn is_pressing(&self) -> bool {
        self.stop
            || !self.batches.is_empty()
            || !self.applied.is_empty()
            || !self.retired.is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
