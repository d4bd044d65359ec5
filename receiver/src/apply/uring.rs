//! A real target disk: one OS thread, one tokio-uring runtime, one open target.
//!
//! The thread owns the file. It takes a batch, keeps at most [`IN_FLIGHT_MAX`] operations in
//! flight, waits for all of them, syncs the data and reads the known blocks back. An operation is
//! never dropped while it runs: its buffer belongs to the kernel until it has ended.
//!
//! Does not: order batches of several disks (the applier does), retry a failed operation (P10).

use super::disk::{Disk, DiskBatch, DiskError};
use super::known::{KnownBlocks, known_ranges};
use super::zeroing::Zeroing;
use crate::fold::{ByteRange, DiskWrite};
use crate::target::OpenTarget;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::sync::mpsc as jobs;
use tokio::task::JoinSet;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::File;

/// Most operations in flight on one disk.
pub const IN_FLIGHT_MAX: usize = 32;

type Outcome = Result<KnownBlocks, DiskError>;

/// A batch and where its outcome goes.
struct Job {
    batch: DiskBatch,
    reply: mpsc::Sender<Outcome>,
}

/// A target disk written with io_uring.
#[derive(Debug)]
pub struct UringDisk {
    path: Arc<str>,
    jobs: Option<jobs::UnboundedSender<Job>>,
    running: Option<mpsc::Receiver<Outcome>>,
    failed: Option<DiskError>,
    thread: Option<JoinHandle<()>>,
}

impl UringDisk {
    /// Starts the thread of an open target.
    pub fn spawn(target: OpenTarget) -> io::Result<Self> {
        let path: Arc<str> = target.path.display().to_string().into();
        let (sender, receiver) = jobs::unbounded_channel();
        let (ready_sender, ready) = mpsc::channel();
        let name: Arc<str> = path.clone();
        let thread = std::thread::Builder::new()
            .name("apply".into())
            .spawn(move || run(target, name, receiver, ready_sender))?;
        let disk = Self {
            path,
            jobs: Some(sender),
            running: None,
            failed: None,
            thread: Some(thread),
        };
        ready
            .recv()
            .map_err(|_| io::Error::other("the writer thread ended at once"))??;
        Ok(disk)
    }

    fn fail(&mut self, error: DiskError) -> DiskError {
        self.failed = Some(error.clone());
        error
    }

    fn gone(&self) -> DiskError {
        DiskError::Gone {
            path: self.path.clone(),
        }
    }
}

impl Disk for UringDisk {
    fn start(&mut self, batch: DiskBatch) -> Result<(), DiskError> {
        assert!(self.running.is_none(), "one batch at a time");
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let (reply, running) = mpsc::channel();
        self.running = Some(running);
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(Job { batch, reply }).is_ok());
        if sent {
            Ok(())
        } else {
            Err(self.fail(self.gone()))
        }
    }

    fn finish(&mut self) -> Outcome {
        let running = self.running.take();
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let outcome = running.and_then(|running| running.recv().ok());
        outcome
            .unwrap_or_else(|| Err(self.gone()))
            .map_err(|error| self.fail(error))
    }
}

impl Drop for UringDisk {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(target_path = %self.path, "the writer thread panicked");
        }
    }
}

/// The thread: a runtime, then jobs until the other side hangs up.
fn run(
    target: OpenTarget,
    path: Arc<str>,
    mut jobs: jobs::UnboundedReceiver<Job>,
    ready: mpsc::Sender<io::Result<()>>,
) {
    let mut builder = tokio_uring::builder();
    builder.entries(2 * IN_FLIGHT_MAX as u32);
    let runtime = match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let used_bytes = target.used_bytes;
    runtime.block_on(async {
        let file = File::from_std(target.file);
        let writer = Rc::new(Writer {
            file,
            path,
            used_bytes,
            zeroing: Cell::default(),
        });
        drop(ready.send(Ok(())));
        while let Some(job) = jobs.recv().await {
            let outcome = writer.clone().batch(job.batch).await;
            drop(job.reply.send(outcome));
        }
        if let Some(writer) = Rc::into_inner(writer)
            && let Err(error) = writer.file.close().await
        {
            tracing::warn!(target_path = %writer.path, %error, "closing the target failed");
        }
    });
}

/// The file and what was learnt about it.
struct Writer {
    file: File,
    path: Arc<str>,
    used_bytes: u64,
    zeroing: Cell<Zeroing>,
}

/// The writes of a batch not yet started, and whether one has failed.
struct Queue {
    writes: RefCell<std::vec::IntoIter<DiskWrite>>,
    stop: Cell<bool>,
    arena: Bytes,
}

impl Writer {
    /// Writes a batch, syncs, and reads the known blocks.
    async fn batch(self: Rc<Self>, batch: DiskBatch) -> Outcome {
        let count = batch.writes.len();
        let writes = RefCell::new(batch.writes.into_iter());
        let queue = Rc::new(Queue {
            writes,
            stop: Cell::new(false),
            arena: batch.arena,
        });
        let mut workers = JoinSet::new();
        for _ in 0..count.min(IN_FLIGHT_MAX) {
            workers.spawn_local(self.clone().work(queue.clone()));
        }
        let mut outcome = Ok(());
        while let Some(done) = workers.join_next().await {
            let gone = || DiskError::Gone {
                path: self.path.clone(),
            };
            let done = done.unwrap_or_else(|_| Err(gone()));
            outcome = outcome.and(done);
        }
        outcome?;
        if count > 0 {
            self.file
                .sync_data()
                .await
                .map_err(|error| self.failed("sync", error))?;
        }
        self.known()
            .await
            .map_err(|error| self.failed("read", error))
    }

    /// One of the workers: takes writes until none is left, or one has failed.
    async fn work(self: Rc<Self>, queue: Rc<Queue>) -> Result<(), DiskError> {
        loop {
            let next = queue.writes.borrow_mut().next();
            let Some(write) = next.filter(|_| !queue.stop.get()) else {
                return Ok(());
            };
            if let Err(error) = self.write(write, &queue.arena).await {
                queue.stop.set(true);
                return Err(error);
            }
        }
    }

    async fn write(&self, write: DiskWrite, arena: &Bytes) -> Result<(), DiskError> {
        assert!(
            write.range.end_bytes() <= self.used_bytes,
            "a write past the end of a target"
        );
        match write.arena() {
            Some(part) => {
                let data = arena.slice(part);
                let (done, _) = self.file.write_all_at(data, write.range.offset_bytes).await;
                done.map_err(|error| self.failed("write", error))
            }
            None => {
                let done = super::zeroing::zero(&self.file, &self.zeroing, write.range).await;
                done.map_err(|error| self.failed("zero", error))
            }
        }
    }

    async fn known(&self) -> io::Result<KnownBlocks> {
        let mut blocks = [const { Vec::new() }; 4];
        for (block, range) in blocks.iter_mut().zip(known_ranges(self.used_bytes)) {
            *block = self.read(range).await?;
        }
        Ok(KnownBlocks::of(&blocks))
    }

    /// Reads a few sectors through an aligned buffer.
    async fn read(&self, range: ByteRange) -> io::Result<Vec<u8>> {
        let len = range.len_bytes as usize;
        let buffer = vec![0; 2 * len.next_power_of_two()];
        let start = buffer.as_ptr().align_offset(len.next_power_of_two());
        let part = buffer.slice(start..start + len);
        let (done, part) = self.file.read_exact_at(part, range.offset_bytes).await;
        done.map(|()| part.to_vec())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> DiskError {
        DiskError::Io {
            action,
            path: self.path.clone(),
            source: Arc::new(source),
        }
    }
}
