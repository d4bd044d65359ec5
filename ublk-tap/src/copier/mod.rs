//! Reading a disk into the stream: the first copy, every later one, and ranges whose write failed.
//!
//! One thread per volume. Each chunk is read while its range is held, so the record it becomes is
//! ordered among the application's writes like one of them (P3, P4), and the range is given back
//! before anything is waited for (P6). A copy only claims room while the ring is less than half
//! full; so the application always finds room first.
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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use wire::VolumeIndex;

/// The copier of a volume. Dropped, it ends after the chunk in hand.
#[derive(Debug)]
pub struct Copier {
    orders: Option<Sender<Order>>,
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

/// What the group sees of a copy under way.
#[derive(Debug, Default)]
struct Shared {
    /// The run that is wanted; zero for none.
    wanted: AtomicU64,
    copied_bytes: AtomicU64,
    /// What holds the copy up, in words.
    trouble: Mutex<Option<String>>,
}

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

    /// Reads a range again whose write failed, before it goes on with a copy.
    pub fn reread(&self, range: Range) {
        self.order(Order::Reread(range));
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
