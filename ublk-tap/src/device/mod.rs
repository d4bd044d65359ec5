//! What the application uses: `/dev/ublkbN`, or an NBD export, over a [`Disk`].
//!
//! libublk is known only in here; [`nbd`] is the other front end, for kernels without ublk. A device has one thread and one io_uring per queue; each runs a
//! `worker`, which takes requests from fetch to completion. What a worker decides is split from
//! what it does: `request` (what is asked), `progress` (what to ask of the disk next) and `extents`
//! (which memory is free) are pure, and the kernel is behind a trait.
//!
//! Contract of the application (P6): its requests wait for the disk, for overlapping requests and,
//! if they write, for room in the ring until the daemon closes it. Contract of the copy (P4): every
//! change made while the ring is open has a record, stamped before it completes.
//!
//! This module does not know receivers, modes or the shipper, and does not decide when the stream
//! is given up.

mod buffers;
mod char_device;
mod counters;
mod entry;
mod error;
mod extents;
mod hold;
mod keeper;
pub mod kernel;
pub mod link;
mod nbd;
mod params;
mod parking;
mod progress;
mod queue;
mod recover;
mod registered;
mod request;
mod retire;
#[cfg(feature = "sim")]
pub mod simulated;
mod task_ring;
mod transfer;
mod wake;
mod worker;

pub use counters::{Fault, FaultList, Stats};
pub use error::{DeviceError, RetireError, StopError};
pub use hold::hold;
pub use nbd::{NbdDevice, NbdPlace};
pub use parking::Parking;
pub use transfer::Transfer;

use crate::disk::Disk;
use crate::ranges::RangeTable;
use counters::{Counters, Faults};
use keeper::{Live, Mailbox, Message, Plan, Report};
use request::Geometry;
use retire::Retirement;
use ring::Ring;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use wire::limits::RECORD_PAYLOAD_BYTES_MAX;
use wire::{Name, VolumeIndex};

/// What a device is made of.
pub struct DeviceConfig {
    /// Group the volume is recovered with.
    pub group: Name,
    /// The volume.
    pub volume: Name,
    /// Number its records carry.
    pub index: VolumeIndex,
    /// The disk below.
    pub disk: Arc<Disk>,
    /// Ring of the group.
    pub ring: Arc<Ring>,
    /// Ranges of this volume, shared with its copier.
    pub ranges: Arc<RangeTable>,
    /// Writes of the group that wait for room.
    pub parking: Arc<Parking>,
    /// Queues and sizes.
    pub shape: Shape,
    /// What the application uses.
    pub frontend: Frontend,
    /// How its bytes are moved, if the device is a new one of the ublk driver.
    pub transfer: Transfer,
    /// The device of a dead tap to go on with, instead of a new one; the disk is ours already.
    pub recovers: Option<u32>,
}

/// What the application uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Frontend {
    /// A block device of the ublk driver.
    #[default]
    Ublk,
    /// An NBD export.
    Nbd(NbdPlace),
}

/// How many requests a device takes at once, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Queues, one thread each; the kernel makes at most one per CPU.
    pub queues: u16,
    /// Requests in flight per queue.
    pub depth: u16,
    /// Largest read or write in bytes, a multiple of 4096.
    pub io_bytes_max: u32,
}

/// A running device. Dropped, it stops by itself in the background.
#[derive(Debug)]
pub struct Device {
    live: LiveInfo,
    faults: Arc<Faults>,
    post: Sender<Message>,
    keeper: Option<JoinHandle<()>>,
    // Last: it is held until it is gone.
    retirement: Retirement,
}

#[derive(Debug)]
struct LiveInfo {
    id: u32,
    counters: Vec<Arc<Counters>>,
}

/// How long the kernel may take to make a device.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to hand over one of a dead tap; the driver is asked for 30 s.
const RECOVER_PATIENCE: Duration = Duration::from_secs(45);
/// How often a stopping device is looked at.
const STOP_INTERVAL: Duration = Duration::from_millis(5);
/// Most queues and requests per queue we ask for.
const QUEUES_MAX: u16 = 64;
const DEPTH_MAX: u16 = 1024;
/// Memory of a queue for reads: enough for one large request per tag is not needed, the rest waits.
const POOL_BYTES_MIN: usize = 4 << 20;
const POOL_BYTES_MAX: usize = 16 << 20;

impl Device {
    /// Makes the device, or goes on with that of a dead tap; when this returns, `/dev/ublkbN`
    /// serves requests.
    ///
    /// A device that cannot be gone on with is left as it is, but this process may hold it: to
    /// be tried again, the process must end.
    pub fn start(config: DeviceConfig) -> Result<Self, DeviceError> {
        config.shape.check()?;
        config.check_ring()?;
        let faults = Arc::new(Faults::default());
        let patience = match config.recovers {
            Some(_) => RECOVER_PATIENCE,
            None => START_PATIENCE,
        };
        let plan = config.into_plan(Arc::clone(&faults));
        let (post, mail) = channel();
        let (report, reported) = report();
        let mailbox = Mailbox {
            post: post.clone(),
            mail,
        };
        let keeper = Builder::new()
            .name("ublk-keeper".to_owned())
            .spawn(move || keeper::keep(&plan, mailbox, &report))
            .map_err(|error| DeviceError::refused("start a thread", error))?;
        let Live { id, counters } = await_start(&reported, &post, patience)?;
        Ok(Self {
            live: LiveInfo { id, counters },
            faults,
            post,
            keeper: Some(keeper),
            retirement: Retirement::default(),
        })
    }

    /// Number of the device.
    pub fn id(&self) -> u32 {
        self.live.id
    }

    /// Its block device.
    pub fn path(&self) -> PathBuf {
        kernel::block_path(self.live.id)
    }

    /// How many queues it has; at most as many as there are CPUs.
    pub fn queues(&self) -> usize {
        self.live.counters.len()
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        Stats::of(self.live.counters.iter().map(|queue| &**queue))
    }

    /// The changes the disk refused since this was asked last; their records are void. The ranges
    /// are to be read again and shipped as copies.
    pub fn take_faults(&self) -> FaultList {
        self.faults.take()
    }

    /// Whether it is gone without [`Self::stop`]: deleted by another tool.
    pub fn has_ended(&self) -> bool {
        self.keeper.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Keeps it from being mounted until it is stopped or [`Self::stay`] is called; asked again until
    /// it is kept. Refused while something has it for itself: a mount, a mapping, swap.
    pub fn hold(&mut self) -> Result<(), RetireError> {
        if self.has_ended() {
            return Ok(()); // nobody can mount what is gone
        }
        let path = self.path();
        self.retirement.hold(&path)
    }

    /// Has the kernel write what it caches for the device, and keeps it from being mounted until it
    /// is stopped or [`Self::stay`] is called; asked again until it is done.
    ///
    /// With `must_be_free` it is refused while something has the device for itself.
    pub fn retire(&mut self, must_be_free: bool) -> Result<(), RetireError> {
        if self.has_ended() {
            return Ok(()); // what was cached is gone with it
        }
        let path = self.path();
        self.retirement.step(&path, must_be_free)
    }

    /// It is not stopped after all.
    pub fn stay(&mut self) {
        self.retirement.undo();
    }

    /// Lets the requests in flight finish, then takes the device down.
    ///
    /// If that takes longer than `within`, it goes on in the background: ask again. Writes that wait
    /// for room in the ring are in flight; close the ring to let them go.
    pub fn stop(&mut self, within: Duration) -> Result<(), StopError> {
        let Some(keeper) = self.keeper.take() else {
            return Ok(());
        };
        // Fails only if the keeper is gone, which is what we want.
        let _ = self.post.send(Message::Stop);
        let deadline = Instant::now() + within;
        while !keeper.is_finished() {
            if Instant::now() >= deadline {
                self.keeper = Some(keeper);
                return Err(StopError::Draining);
            }
            std::thread::sleep(STOP_INTERVAL);
        }
        if keeper.join().is_err() {
            tracing::error!("the thread of a device ended in a panic");
        }
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.post.send(Message::Stop);
    }
}

/// What a keeper reports by. Handed over or not at all: one that is too late is known to be.
fn report() -> (SyncSender<Report>, Receiver<Report>) {
    sync_channel(0)
}

/// Waits for the keeper's report. A device that is made too late is taken down again.
fn await_start(
    reported: &Receiver<Report>,
    post: &Sender<Message>,
    within: Duration,
) -> Result<Live, DeviceError> {
    reported.recv_timeout(within).unwrap_or_else(|_| {
        // Fails only if the keeper is gone, which is what we want.
        let _ = post.send(Message::Stop);
        let what = "make the device";
        Err(DeviceError::TimedOut { what, within })
    })
}

impl DeviceConfig {
    /// Every request must have its record: an open ring is never bypassed (P5).
    fn check_ring(&self) -> Result<(), DeviceError> {
        if u64::from(self.shape.io_bytes_max) <= self.ring.record_bytes_max() {
            return Ok(());
        }
        Err(DeviceError::BadShape(
            "the ring is too small for the largest request; enlarge ring_bytes or lower \
             request_bytes",
        ))
    }

    /// What its workers share.
    fn volume_of(&self, faults: Arc<Faults>) -> worker::Volume {
        let geometry = Geometry {
            size_bytes: self.disk.size_bytes(),
            sector_bytes: self.disk.sector_bytes(),
            io_bytes_max: self.shape.io_bytes_max,
        };
        worker::Volume {
            index: self.index,
            geometry,
            ring: Arc::clone(&self.ring),
            ranges: Arc::clone(&self.ranges),
            parking: Arc::clone(&self.parking),
            faults,
        }
    }

    fn into_plan(self, faults: Arc<Faults>) -> Plan {
        let volume = self.volume_of(faults);
        Plan {
            group: self.group,
            name: self.volume,
            disk: self.disk,
            shape: self.shape,
            transfer: self.transfer,
            recovers: self.recovers,
            volume,
        }
    }
}

impl Shape {
    /// Memory a queue has for reads and uncaptured writes.
    fn pool_bytes(&self) -> usize {
        let all = usize::from(self.depth) * self.io_bytes_max as usize;
        all.clamp(POOL_BYTES_MIN, POOL_BYTES_MAX)
    }

    fn check(&self) -> Result<(), DeviceError> {
        if self.queues == 0 || self.queues > QUEUES_MAX {
            return Err(DeviceError::BadShape("queues must be 1 to 64"));
        }
        if self.depth == 0 || self.depth > DEPTH_MAX {
            return Err(DeviceError::BadShape("depth must be 1 to 1024"));
        }
        let is_paged = self.io_bytes_max.is_multiple_of(4096) && self.io_bytes_max > 0;
        if !is_paged || self.io_bytes_max > RECORD_PAYLOAD_BYTES_MAX {
            return Err(DeviceError::BadShape(
                "a request must be whole pages, at most 1 MiB",
            ));
        }
        Ok(())
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            queues: 1,
            depth: 128,
            io_bytes_max: 512 << 10,
        }
    }
}

/// Makes the calling thread one whose memory never waits for I/O, and so all that it starts from
/// here on: for whoever starts a thread that a completion depends on.
pub fn become_io_flusher() -> io::Result<()> {
    Ok(rustix::process::configure_io_flusher_behavior(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::RingConfig;
    use wire::Incarnation;

    #[test]
    fn a_ring_that_cannot_take_every_request_is_refused_before_a_device_is_made() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let config = RingConfig {
            slots: 64,
            payload_bytes: 256 << 10,
        };
        let incarnation = Incarnation { counter: 1, id: 1 };
        let ring = Ring::create(dir.path(), incarnation, config).unwrap();
        assert!(ring.record_bytes_max() < u64::from(Shape::default().io_bytes_max));
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let disk = Disk::open(file.path(), Duration::ZERO).unwrap();
        let refused = Device::start(DeviceConfig {
            group: Name::new("g").unwrap(),
            volume: Name::new("v").unwrap(),
            index: VolumeIndex(0),
            disk: Arc::new(disk),
            ring: Arc::new(ring),
            ranges: Arc::new(RangeTable::new()),
            parking: Arc::new(Parking::new()),
            shape: Shape::default(),
            frontend: Frontend::Ublk,
            transfer: Transfer::default(),
            recovers: None,
        });
        let error = refused.unwrap_err();
        assert!(matches!(error, DeviceError::BadShape(_)), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_device_that_is_not_made_in_time_is_told_to_go() {
        let (post, mail) = channel();
        let (report, reported) = report();
        let error = await_start(&reported, &post, Duration::ZERO);
        assert!(matches!(error, Err(DeviceError::TimedOut { .. })));
        assert!(matches!(mail.try_recv(), Ok(Message::Stop)));
        drop(report);
        let error = await_start(&reported, &post, Duration::from_secs(9));
        assert!(error.is_err(), "a keeper that is gone reports nothing");
    }

    #[test]
    fn a_keeper_knows_that_its_report_came_too_late() {
        let (post, _mail) = channel();
        let (report, reported) = report();
        let live = Live {
            id: 1,
            counters: Vec::new(),
        };
        assert!(await_start(&reported, &post, Duration::ZERO).is_err());
        let keeper = std::thread::spawn(move || report.send(Ok(live)).is_err());
        // It finds somebody there who no longer listens, or will soon find nobody.
        std::thread::sleep(STOP_INTERVAL);
        drop(reported);
        assert!(keeper.join().unwrap());
    }
}
