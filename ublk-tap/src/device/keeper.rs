//! The thread that makes a device, watches over its queues and takes it down.
//!
//! libublk's control commands need the thread that made the control, so one thread owns it from
//! first to last; the handle talks to it by messages.

use super::counters::Counters;
use super::error::DeviceError;
use super::progress::Ways;
use super::queue::{self, PartsWithoutBuffers, Start};
use super::wake::Waker;
use super::worker::Volume;
use super::{Shape, Transfer, kernel, params, recover};
use crate::disk::Disk;
use libublk::UblkFlags;
use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::io::UblkDev;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::thread::{Builder, JoinHandle};

/// What a device is made from.
pub(super) struct Plan {
    pub(super) group: wire::Name,
    pub(super) name: wire::Name,
    pub(super) disk: Arc<Disk>,
    pub(super) shape: Shape,
    pub(super) transfer: Transfer,
    /// The device of a dead tap to go on with.
    pub(super) recovers: Option<u32>,
    pub(super) volume: Volume,
}

/// A device that is there.
pub(super) struct Live {
    pub(super) id: u32,
    pub(super) counters: Vec<Arc<Counters>>,
}

/// What became of making it.
pub(super) type Report = Result<Live, DeviceError>;

/// What the keeper is told.
pub(super) enum Message {
    /// Take the device down.
    Stop,
    /// A queue thread runs in thread `tid`.
    Started { qid: u16, tid: i32 },
    /// A queue awaits requests.
    Ready { qid: u16 },
    /// A queue thread is at its end, well or not.
    Ended {
        qid: u16,
        result: Result<(), DeviceError>,
    },
}

/// Both ends of the keeper's mailbox.
pub(super) struct Mailbox {
    pub(super) post: Sender<Message>,
    pub(super) mail: Receiver<Message>,
}

struct Keeper {
    // Before the control: the char device is closed before the device is deleted.
    dev: Arc<UblkDev>,
    ctrl: UblkCtrl,
    queues: Vec<JoinHandle<()>>,
    roll: Roll,
    counters: Vec<Arc<Counters>>,
    mailbox: Mailbox,
    /// It was a dead tap's; libublk deletes only what it has added.
    is_recovered: bool,
}

/// Makes the device, reports, and returns when it is gone.
pub(super) fn keep(plan: &Plan, mailbox: Mailbox, report: &SyncSender<Report>) {
    let mut keeper = match Keeper::new(plan, mailbox) {
        Ok(keeper) => keeper,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    match keeper.start(plan) {
        Ok(live) => match report.send(Ok(live)) {
            Ok(()) => {
                keeper.wait();
                keeper.end();
            }
            // It has taken too long, and nobody hears it any more.
            Err(_) => keeper.give_up(),
        },
        Err(error) => {
            // Told last: who hears it may end the process, and leave the device half made.
            keeper.give_up();
            let _ = report.send(Err(error));
        }
    }
}

impl Keeper {
    fn new(plan: &Plan, mailbox: Mailbox) -> Result<Self, DeviceError> {
        kernel::prepare()?;
        let ctrl = match plan.recovers {
            Some(id) => recover::control(plan, id)?,
            None => control(plan)?,
        };
        let init = |dev: &mut UblkDev| {
            describe(dev, plan);
            Ok(())
        };
        let dev = UblkDev::new(kernel::TARGET.to_owned(), init, &ctrl)
            .map_err(|error| DeviceError::from_ublk("open the new device", error))?;
        let dev = Arc::new(dev);
        Ok(Self {
            dev,
            ctrl,
            queues: Vec::new(),
            roll: Roll::default(),
            counters: Vec::new(),
            mailbox,
            is_recovered: plan.recovers.is_some(),
        })
    }

    fn start(&mut self, plan: &Plan) -> Result<Live, DeviceError> {
        let mut qids = 0..self.dev.dev_info.nr_hw_queues;
        let spawned = qids.try_for_each(|qid| self.spawn(qid, plan));
        // Also after a failure: see there.
        let awaited = self.await_queues();
        spawned.and(awaited)?;
        let started = self.ctrl.start_dev(&self.dev);
        recover::accepted("start the device", started)?;
        let id = self.dev.dev_info.dev_id;
        if !self.is_recovered {
            kernel::use_no_scheduler(id);
        }
        Ok(Live {
            id,
            counters: self.counters.clone(),
        })
    }

    fn spawn(&mut self, qid: u16, plan: &Plan) -> Result<(), DeviceError> {
        let counters = Arc::new(Counters::default());
        let waker = Waker::new().map_err(|error| DeviceError::refused("make an event", error))?;
        let traits = plan.disk.traits();
        let start = Start {
            qid,
            dev: Arc::clone(&self.dev),
            volume: plan.volume.clone(),
            pool_bytes: plan.shape.pool_bytes(),
            parts: PartsWithoutBuffers {
                waker: Arc::new(waker),
                counters: Arc::clone(&counters),
                ways: Ways {
                    punch: traits.punch,
                    zero_range: true,
                },
            },
        };
        let post = self.mailbox.post.clone();
        let name = format!("ublk{}q{qid}", self.dev.dev_info.dev_id);
        let thread = Builder::new()
            .name(name)
            .spawn(move || queue_thread(start, &post));
        let thread = thread.map_err(|error| DeviceError::refused("start a thread", error))?;
        self.queues.push(thread);
        self.roll.starting.insert(qid);
        self.counters.push(counters);
        Ok(())
    }

    /// Waits until every queue awaits requests or has ended.
    ///
    /// The driver starts a device only when all its queues wait for requests. And it stops only
    /// those that do: one that asks for its first requests after that would wait for ever.
    fn await_queues(&mut self) -> Result<(), DeviceError> {
        while !self.roll.is_complete() {
            let Ok(message) = self.mailbox.mail.recv() else {
                break; // not while we hold the other end ourselves
            };
            if let Message::Started { qid, tid } = message {
                self.ctrl.set_thread_affinity(qid, tid);
                let configured = self.ctrl.configure_queue(&self.dev, qid, tid);
                if let Err(error) = configured {
                    let error = DeviceError::from_ublk("configure a queue", error);
                    self.roll.fail(error);
                }
            } else {
                self.roll.hear(message);
            }
        }
        self.roll.failure.take().map_or(Ok(()), Err)
    }

    /// Returns when the device is to be taken down, or is gone already.
    fn wait(&self) {
        match self.mailbox.mail.recv() {
            Ok(Message::Ended { .. }) => tracing::error!("the device was deleted by somebody else"),
            _ => tracing::debug!("stopping the device"),
        }
    }

    /// It is not served. One of a dead tap has users, who wait for a tap that can: taking it down
    /// would fail their writes. The kernel takes it back when this process ends.
    fn give_up(self) {
        if self.is_recovered {
            std::mem::forget(self);
        } else {
            self.end();
        }
    }

    /// Lets what is in flight finish, then takes the device down.
    fn end(mut self) {
        if let Err(error) = self.ctrl.kill_dev() {
            tracing::debug!(%error, "the device was down already");
        }
        for thread in self.queues.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a queue thread ended in a panic");
            }
        }
        // Removes libublk's own note of the device; the device itself goes with the control.
        if let Err(error) = self.ctrl.stop_dev() {
            tracing::debug!(%error, "the device was down already");
        }
        if self.is_recovered {
            // The char device first, as with one we have added.
            let Self { dev, ctrl, .. } = self;
            drop(dev);
            recover::delete(&ctrl);
        }
    }
}

/// Which queues are still on their way. Pure.
#[derive(Debug, Default)]
struct Roll {
    starting: BTreeSet<u16>,
    /// The first thing that went wrong.
    failure: Option<DeviceError>,
}

impl Roll {
    fn is_complete(&self) -> bool {
        self.starting.is_empty()
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Started { .. } => {}
            Message::Ready { qid } => {
                self.starting.remove(&qid);
            }
            Message::Ended { qid, result } => {
                self.starting.remove(&qid);
                self.fail(result.err().unwrap_or_else(stopped_early));
            }
            Message::Stop => self.fail(stopped_early()),
        }
    }

    fn fail(&mut self, error: DeviceError) {
        self.failure.get_or_insert(error);
    }
}

fn stopped_early() -> DeviceError {
    let source = std::io::Error::other("stopped while starting");
    DeviceError::refused("start the device", source)
}

/// Tells the keeper that a queue thread is at its end, however it comes to it.
struct End {
    qid: u16,
    post: Sender<Message>,
    result: Option<Result<(), DeviceError>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let qid = self.qid;
        let result = self.result.take().unwrap_or_else(|| {
            let source = std::io::Error::other("its thread ended in a panic");
            Err(DeviceError::refused("set up a queue", source))
        });
        // The keeper outlives its queues: it joins them before it goes.
        let _ = self.post.send(Message::Ended { qid, result });
    }
}

fn queue_thread(start: Start, post: &Sender<Message>) {
    let qid = start.qid;
    let mut end = End {
        qid,
        post: post.clone(),
        result: None,
    };
    let tid = UblkCtrl::init_queue_thread(); // makes it an I/O flusher
    let _ = post.send(Message::Started { qid, tid });
    let served = queue::serve(start, || {
        let _ = post.send(Message::Ready { qid });
    });
    let failed = |error| DeviceError::from_ublk("set up a queue", error);
    end.result = Some(served.map_err(failed));
}

fn control(plan: &Plan) -> Result<UblkCtrl, DeviceError> {
    let transfer = plan.transfer.flag(kernel::features())?;
    let ctrl = UblkCtrlBuilder::default()
        .name(kernel::TARGET)
        .nr_queues(plan.shape.queues)
        .depth(plan.shape.depth)
        .io_buf_bytes(plan.shape.io_bytes_max)
        .ctrl_flags(kernel::FLAGS | transfer)
        .ctrl_target_flags(kernel::MARK)
        .dev_flags(UblkFlags::UBLK_DEV_F_ADD_DEV | UblkFlags::UBLK_DEV_F_DEL_DEV_ASYNC)
        .build()
        .map_err(|error| DeviceError::from_ublk("add a device", error))?;
    // Dropped, it takes the device down again, which has never served.
    kernel::check_recovery(ctrl.dev_info().flags)?;
    Ok(ctrl)
}

fn describe(dev: &mut UblkDev, plan: &Plan) {
    let disk = &plan.disk;
    let io_bytes_max = plan.shape.io_bytes_max;
    dev.tgt.dev_size = disk.size_bytes();
    dev.tgt.params = params::mirrored(disk.traits(), disk.size_bytes(), io_bytes_max);
    // A turn may answer every tag and ask the disk for every tag, besides its own few operations.
    let room = (2 * dev.dev_info.queue_depth + 16).next_power_of_two();
    dev.tgt.sq_depth = room;
    dev.tgt.cq_depth = 2 * room;
    dev.tgt.fds[1] = disk.as_raw_fd();
    dev.tgt.nr_fds = 2;
    dev.set_target_json(kernel::note(&plan.group, &plan.name, disk.path()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn ended(qid: u16, result: Result<(), DeviceError>) -> Message {
        Message::Ended { qid, result }
    }

    #[test]
    fn a_device_whose_queue_failed_waits_for_the_others_before_it_is_taken_down() {
        let mut roll = Roll {
            starting: BTreeSet::from([0, 1, 2]),
            failure: None,
        };
        roll.hear(Message::Started { qid: 1, tid: 7 });
        roll.hear(Message::Ready { qid: 0 });
        roll.hear(ended(1, Err(DeviceError::NoDriver)));
        roll.hear(Message::Stop);
        assert!(!roll.is_complete(), "queue 2 may be about to fetch");
        roll.hear(Message::Ready { qid: 2 });
        assert!(roll.is_complete());
        let failure = roll.failure;
        assert!(
            matches!(failure, Some(DeviceError::NoDriver)),
            "{failure:?}"
        );
    }

    #[test]
    fn a_queue_that_is_stopped_before_the_device_has_started_fails_the_start() {
        let mut roll = Roll {
            starting: BTreeSet::from([0]),
            failure: None,
        };
        roll.hear(ended(0, Ok(())));
        assert!(roll.is_complete() && roll.failure.is_some());
    }

    #[test]
    fn the_end_of_a_queue_thread_is_told_also_after_a_panic() {
        let (post, mail) = channel();
        let thread = std::thread::spawn(move || {
            let _end = End {
                qid: 3,
                post,
                result: None,
            };
            panic!("in the test");
        });
        assert!(thread.join().is_err());
        let told = mail.recv().unwrap();
        assert!(matches!(
            told,
            Message::Ended {
                qid: 3,
                result: Err(_)
            }
        ));
    }
}
