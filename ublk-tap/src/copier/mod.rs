//! Reading a disk into the stream: the first copy, every later one, and ranges whose write failed.
//!
//! One thread per volume. Each chunk is read while its range is held, so the record it becomes is
//! ordered among the application's writes like one of them (P3, P4), and the range is given back
//! before anything is waited for (P6). Room is claimed only while the ring is less than half full,
//! so the application always finds room first; what a dead tap had in flight takes any room while
//! it is [hurried](Copier::hurry), because the application waits for it. Nothing is read for which
//! there is no room.
//!
//! The chunk is read into memory of the copier's own and copied into the slot: a slot claimed
//! before a slow disk has answered would hold back every record behind it.
//!
//! It does not know modes, members or the link; what a copy means is the group's business.

#[cfg(test)]
mod tests;
mod worker;

use crate::disk::Disk;
use crate::ranges::{Range, RangeTable};
use ring::Ring;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use wire::VolumeIndex;

/// The copier of a volume. Dropped, it ends after the chunk in hand.
#[derive(Debug)]
pub struct Copier {
    orders: Option<Sender<Order>>,
    /// How many ranges were ordered to be read again.
    rereads_ordered: AtomicU64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What a copier works with.
pub struct CopierConfig {
    /// Number its records carry.
    pub index: VolumeIndex,
    /// The disk.
    pub disk: Arc<Disk>,
    /// Ranges of the volume, shared with its device.
    pub ranges: Arc<RangeTable>,
    /// Ring of the group.
    pub ring: Arc<Ring>,
}

/// What a copier says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopierSaid {
    /// The copy has read the whole volume.
    Copied {
        /// The volume.
        index: VolumeIndex,
        /// The run it was started as.
        run: u64,
    },
    /// A range whose write failed cannot be read.
    RereadFailed {
        /// The volume.
        index: VolumeIndex,
        /// Which and why, in words.
        words: String,
    },
}

#[derive(Debug)]
enum Order {
    Copy(u64),
    Reread(Range),
}

/// Where the ranges stand whose writes failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rereads {
    /// All of them are in the stream again, as the disk holds them.
    Done,
    /// Some are still to be read, or to find room.
    Pending,
    /// Some were given up; only a copy of the whole volume makes up for them.
    Lost,
}

/// What the group sees of a copy under way.
#[derive(Debug, Default)]
struct Shared {
    /// The run that is wanted; zero for none.
    wanted: AtomicU64,
    copied_bytes: AtomicU64,
    /// How many of the ranges ordered so far are in the stream, or were given up.
    reread: AtomicU64,
    /// Ranges take any room there is.
    is_hurried: AtomicBool,
    /// Room the range in hand has not found, in bytes; zero if it needs none.
    wanted_bytes: AtomicU32,
    /// A range was given up since the last copy began.
    is_reread_lost: AtomicBool,
    /// What holds the copy up, in words.
    trouble: Mutex<Option<String>>,
}

/// Most ranges that wait to be read again; beyond it the whole volume is to be copied (P11).
pub const REREADS_MAX: u64 = 4096;

impl Copier {
    /// Starts the thread; `tell` carries what it says.
    pub fn start(
        config: CopierConfig,
        tell: impl Fn(CopierSaid) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, inbox) = channel();
        let shared = Arc::new(Shared::default());
        let worker = worker::Worker::new(config, Arc::clone(&shared), tell)?;
        let name = "copier".to_owned();
        let thread = Builder::new()
            .name(name)
            .spawn(move || worker.run(&inbox))?;
        Ok(Self {
            orders: Some(orders),
            rereads_ordered: AtomicU64::new(0),
            shared,
            thread: Some(thread),
        })
    }

    /// Copies the whole volume, from its start, as `run`; a copy under way ends.
    pub fn copy(&self, run: u64) {
        assert!(run > 0, "run zero means none");
        self.shared.copied_bytes.store(0, Ordering::Release);
        self.shared.wanted.store(run, Ordering::Release);
        self.order(Order::Copy(run));
    }

    /// Ends the copy under way.
    pub fn cancel(&self) {
        self.shared.wanted.store(0, Ordering::Release);
    }

    /// Reads a range again whose write failed, before it goes on with a copy; ranges are read in
    /// the order of the numbers returned.
    pub fn reread(&self, range: Range) -> u64 {
        let turn = self.rereads_ordered.fetch_add(1, Ordering::AcqRel) + 1;
        self.order(Order::Reread(range));
        turn
    }

    /// Whether all of the range of that number is in the stream.
    pub fn has_reread(&self, turn: u64) -> bool {
        // In this order: what was given up is said to be lost before it is counted.
        let is_counted = self.shared.reread.load(Ordering::Acquire) >= turn;
        is_counted && !self.shared.is_reread_lost.load(Ordering::Acquire)
    }

    /// Whether ranges read again take any room there is: while no device takes writes.
    pub fn hurry(&self, is_hurried: bool) {
        self.shared.is_hurried.store(is_hurried, Ordering::Release);
    }

    /// Room in bytes that the range in hand has looked for and not found.
    pub fn wanted_bytes(&self) -> Option<u32> {
        let wanted = self.shared.wanted_bytes.load(Ordering::Acquire);
        Some(wanted).filter(|bytes| *bytes > 0)
    }

    /// Where the ranges ordered so far stand.
    pub fn rereads(&self) -> Rereads {
        match self.rereads_left() {
            _ if self.shared.is_reread_lost.load(Ordering::Acquire) => Rereads::Lost,
            0 => Rereads::Done,
            _ => Rereads::Pending,
        }
    }

    /// How many ranges wait to be read again.
    pub fn rereads_left(&self) -> u64 {
        let ordered = self.rereads_ordered.load(Ordering::Acquire);
        ordered - self.shared.reread.load(Ordering::Acquire)
    }

    /// Bytes the running or last copy has read.
    pub fn copied_bytes(&self) -> u64 {
        self.shared.copied_bytes.load(Ordering::Acquire)
    }

    /// What holds the copy up, in words.
    pub fn trouble(&self) -> Option<String> {
        self.shared
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn order(&self, order: Order) {
        let sent = self.orders.as_ref().map(|orders| orders.send(order));
        assert!(
            matches!(sent, Some(Ok(()))),
            "a copier's thread lives as long as the copier"
        );
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.cancel();
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a copier ended in a panic");
        }
    }
}
