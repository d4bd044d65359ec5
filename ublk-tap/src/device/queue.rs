//! One queue: its thread, its io_uring, and the kernel as a [`Port`] of its worker.
//!
//! All disk I/O of a queue goes through the io_uring that serves the ublk char device: after our
//! death the kernel ends what is in flight there before a successor can start (P3). The thread
//! sleeps in that ring only; whoever wants it rings its event.
//!
//! Dying of a panic here would hang every user of the device for ever, so a panic ends the process:
//! then the kernel keeps the requests for a successor.

use super::buffers::Buffers;
use super::entry::{AbortOnPanic, PAUSE, entry_of, is_passing};
use super::progress::DiskOp;
use super::registered::{Area, Registered};
use super::request::RawRequest;
use super::task_ring;
use super::transfer::Bytes;
use super::wake::Waker;
use super::worker::{Parts, Port, Volume, Worker};
use io_uring::{opcode, squeue, types};
use libublk::io::{UblkDev, UblkIOCtx, UblkQueue, with_task_io_ring_mut};
use libublk::{UblkError, UblkIORes, sys};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// What answers arrive for, besides the kernel's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Disk = 1,
    Pause = 2,
    Bell = 3,
}

/// Everything a queue thread starts with.
pub(super) struct Start {
    pub(super) qid: u16,
    pub(super) dev: Arc<UblkDev>,
    pub(super) volume: Volume,
    pub(super) pool_bytes: usize,
    pub(super) parts: PartsWithoutBuffers,
}

/// [`Parts`], but for the memory, which is made in the thread that uses it.
pub(super) struct PartsWithoutBuffers {
    pub(super) waker: Arc<Waker>,
    pub(super) counters: Arc<super::counters::Counters>,
    pub(super) ways: super::progress::Ways,
}

/// Serves a queue until the device is stopped. `ready` is called when its requests are awaited.
pub(super) fn serve(start: Start, ready: impl FnOnce()) -> Result<(), UblkError> {
    let Start {
        qid,
        dev,
        volume,
        pool_bytes,
        parts,
    } = start;
    task_ring::prepare(&dev)?;
    let queue = UblkQueue::new(qid, &dev)?;
    let bell = parts.waker.as_raw_fd();
    let mut buffers = Buffers::new(pool_bytes)?;
    let registered = register(&volume, &mut buffers);
    // Before the queue, which the driver ends first: it writes into what it is lent.
    let bytes = Bytes::of(&dev);
    // Last of what can fail: who has asked for requests must stay to serve them.
    let queue = queue.submit_fetch_commands_unified(bytes.first())?;
    flush_fetches()?;
    let parts = Parts {
        depth: dev.dev_info.queue_depth,
        buffers,
        waker: parts.waker,
        counters: parts.counters,
        ways: parts.ways,
    };
    let port = KernelPort {
        queue: &queue,
        qid,
        bytes,
        registered,
        bell,
    };
    let mut worker = Worker::new(port, volume, parts);
    worker.port().listen();
    let guard = AbortOnPanic;
    ready();
    run(&queue, &mut worker);
    assert!(worker.is_idle(), "a stopped queue has no requests");
    std::mem::forget(guard);
    Ok(())
}

/// Hands the kernel the first command of every tag, and looks whether it took them: stopping the
/// device ends only those it has, and starting it waits for all.
fn flush_fetches() -> Result<(), UblkError> {
    loop {
        let flushed = with_task_io_ring_mut(|ring| {
            let submitted = ring.submit();
            let is_flushed = ring.submission().is_empty();
            submitted.map(|_| (is_flushed, ring.completion().next()))
        });
        match flushed {
            // Nobody uses the device yet: whatever is answered now is a refusal.
            Ok((_, Some(answer))) => return Err(UblkError::UringIOError(answer.result())),
            Ok((true, None)) => return Ok(()),
            Ok((false, None)) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(UblkError::IOError(error)),
        }
    }
}

/// Tells the kernel which memory our operations will name.
fn register(volume: &Volume, buffers: &mut Buffers) -> Registered {
    let (first, bytes) = volume.ring.payload_area();
    let areas = [Area { first, bytes }, buffers.area()];
    Registered::new(&areas).unwrap_or_else(|error| {
        tracing::warn!(%error, "buffers are not registered; requests cost a little more");
        Registered::default()
    })
}

fn run(queue: &UblkQueue<'_>, worker: &mut Worker<KernelPort<'_>>) {
    loop {
        let handle = |user_data: u64, answer: &io_uring::cqueue::Entry, _last: bool| {
            dispatch(worker, user_data, answer.result());
        };
        let turn = queue.flush_and_wake_io_tasks(handle, 1);
        worker.end_turn();
        match turn {
            Ok(_) => {}
            Err(UblkError::QueueIsDown) => return,
            Err(UblkError::IOError(error)) if is_passing(&error) => {}
            Err(error) => panic!("a queue's own io_uring failed: {error}"),
        }
    }
}

fn dispatch(worker: &mut Worker<KernelPort<'_>>, user_data: u64, result: i32) {
    let tag = UblkIOCtx::user_data_to_tag(user_data) as u16;
    match source_of(user_data) {
        None => match Command::of(result) {
            Command::Fetched => worker.fetched(tag),
            Command::Stopping => {}
            // The driver now waits for a command that will never come: whoever uses the tag would
            // hang, also through a removal. Only our death gives its requests to a successor.
            Command::Refused => panic!("the driver refused a command for tag {tag} ({result})"),
        },
        Some(Source::Disk) => worker.answered(tag, result),
        Some(Source::Pause) => worker.paused(),
        Some(Source::Bell) => {
            worker.woken();
            worker.port().listen();
        }
    }
}

/// What the driver has to say to a command of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// There is a request under its tag.
    Fetched,
    /// The device is being stopped.
    Stopping,
    /// It was not one the driver takes.
    Refused,
}

impl Command {
    fn of(result: i32) -> Self {
        match result {
            _ if result == sys::UBLK_IO_RES_OK as i32 => Self::Fetched,
            sys::UBLK_IO_RES_ABORT => Self::Stopping,
            _ => Self::Refused,
        }
    }
}

/// Our own operations carry a source; the driver's commands carry none.
fn source_of(user_data: u64) -> Option<Source> {
    if user_data & libublk::UblkUringData::Target as u64 == 0 {
        return None;
    }
    Some(match UblkIOCtx::user_data_to_op(user_data) {
        1 => Source::Disk,
        2 => Source::Pause,
        3 => Source::Bell,
        other => panic!("an answer to nothing we asked ({other})"),
    })
}

/// The kernel on both sides of a worker: application above, disk below.
struct KernelPort<'q> {
    queue: &'q UblkQueue<'q>,
    qid: u16,
    bytes: Bytes<'q>,
    registered: Registered,
    bell: i32,
}

impl KernelPort<'_> {
    /// Asks to be told when the bell rings. A poll has no memory that must outlive us.
    fn listen(&mut self) {
        let poll = opcode::PollAdd::new(types::Fd(self.bell), libc::POLLIN as u32);
        self.push(poll.build(), 0, Source::Bell);
    }

    fn push(&self, entry: squeue::Entry, tag: u16, source: Source) {
        let user_data = UblkIOCtx::build_user_data(tag, source as u32, 0, true);
        let pushed = self.queue.ublk_submit_sqe_sync(entry.user_data(user_data));
        pushed.expect("a queue's own io_uring has room for its operations");
    }
}

impl Port for KernelPort<'_> {
    fn copies_in(&self) -> u64 {
        self.bytes.copies_in()
    }

    fn request(&self, tag: u16) -> RawRequest {
        let raw = self.queue.get_iod(tag);
        RawRequest {
            op_flags: raw.op_flags,
            start_sector: raw.start_sector,
            sectors: raw.nr_sectors,
        }
    }

    fn copy_in(&mut self, tag: u16, bytes: &mut [u8]) -> Result<(), i32> {
        self.bytes.take((self.qid, tag), bytes)
    }

    fn copy_out(&mut self, tag: u16, bytes: &[u8]) -> Result<(), i32> {
        self.bytes.give((self.qid, tag), bytes)
    }

    fn issue(&mut self, tag: u16, op: DiskOp, memory: *mut u8) {
        let entry = entry_of(op, memory, self.registered.areas());
        self.push(entry, tag, Source::Disk);
    }

    fn complete(&mut self, tag: u16, result: i32) {
        let result = Ok(UblkIORes::Result(result));
        let done = self
            .queue
            .complete_io_cmd_unified(tag, self.bytes.next(tag), result);
        done.expect("the device is lent what it was made for");
    }

    fn pause(&mut self) {
        self.push(
            opcode::Timeout::new(&raw const PAUSE).build(),
            0,
            Source::Pause,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_the_driver_refuses_is_not_taken_for_a_device_that_stops() {
        assert_eq!(Command::of(0), Command::Fetched);
        assert_eq!(Command::of(-libc::ENODEV), Command::Stopping);
        for errno in [libc::EINVAL, libc::EBUSY, libc::EIO, -1] {
            assert_eq!(Command::of(-errno), Command::Refused, "{errno}");
        }
    }
}
