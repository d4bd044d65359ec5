//! A volume served over NBD on a Unix socket, for hosts whose kernel has no ublk.
//!
//! A thread listens; each client has a thread, an io_uring and a worker of its own. What can be
//! decided without I/O is apart: `negotiate` (what both can do), `requests` (what is asked),
//! `ledger` (which request waits for what), `replies` (the answers), `intake` (whole requests from
//! bytes). The path of a change behind them is the worker's, the same as that of a ublk queue:
//! range, place in the ring, bytes, disk, settled, answered.
//!
//! Contract of flushes: a flush syncs the disk itself, so it covers what completed on any
//! connection. Contract of the end: what was taken from a client is finished on the disk and in the
//! ring, whatever becomes of the client.
//!
//! This module does not know the group, and does not decide who may be removed.

mod allocation;
mod intake;
mod ledger;
mod listener;
mod negotiate;
mod outbox;
mod payload;
mod port;
mod replies;
mod requests;
mod roster;
mod session;
#[cfg(test)]
mod tests;
mod uring;
mod wire;

use super::counters::{FaultList, Faults, Stats};
use super::error::{DeviceError, RetireError, StopError};
use super::params::punches;
use super::wake::Waker;
use super::worker::Volume;
use super::{DeviceConfig, STOP_INTERVAL, Shape};
use crate::disk::{Disk, Traits};
use negotiate::Export;
use roster::Roster;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use uring::Uring;
use wire::can;

/// Where a volume is served, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdPlace {
    /// The socket.
    pub socket: PathBuf,
    /// Who may connect besides root: members of this group.
    pub group: Option<u32>,
}

/// A volume served over NBD. Dropped, it stops by itself in the background.
#[derive(Debug)]
pub struct NbdDevice {
    path: PathBuf,
    roster: Arc<Roster>,
    faults: Arc<Faults>,
    bell: Arc<Waker>,
    listener: Option<JoinHandle<()>>,
}

/// What every client's thread needs.
struct Plan {
    volume: Volume,
    disk: Arc<Disk>,
    shape: Shape,
    export: Export,
    can_trim: bool,
}

/// Memory of a client for reads on their way from the disk, and for writes without a record.
const POOL_BYTES: usize = 4 << 20;

impl NbdDevice {
    /// Whether this kernel has what is needed.
    pub fn check() -> Result<(), DeviceError> {
        Uring::probe().map_err(DeviceError::NoUring)
    }

    /// Serves the volume at `place`; when this returns, clients are taken.
    pub fn start(config: DeviceConfig, place: &NbdPlace) -> Result<Self, DeviceError> {
        config.shape.check()?;
        config.check_ring()?;
        Self::check()?;
        let faults = Arc::new(Faults::default());
        let traits = *config.disk.traits();
        let plan = Plan {
            export: Export {
                name: config.volume.to_string(),
                description: format!("{}/{}", config.group, config.volume),
                size_bytes: config.disk.size_bytes(),
                sector_bytes: traits.sector_bytes,
                preferred_bytes: preferred_bytes(&traits),
                flags: flags_of(&traits),
            },
            can_trim: punches(&traits),
            disk: Arc::clone(&config.disk),
            shape: config.shape,
            volume: config.volume_of(Arc::clone(&faults)),
        };
        let failed = |error| DeviceError::refused("serve NBD", error);
        let bell = Arc::new(Waker::new().map_err(failed)?);
        let roster = Arc::new(Roster::default());
        let listener = listener::start(place, plan, Arc::clone(&roster), Arc::clone(&bell))?;
        Ok(Self {
            path: place.socket.clone(),
            roster,
            faults,
            bell,
            listener: Some(listener),
        })
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.roster.len()
    }

    /// What they have done so far, those included that are gone.
    pub fn stats(&self) -> Stats {
        self.roster.stats()
    }

    /// The changes the disk refused since this was asked last; their records are void.
    pub fn take_faults(&self) -> FaultList {
        self.faults.take()
    }

    /// The process of a client that is connected, zero if it has no number here: what it holds of
    /// the volume in its memory, or has mounted, cannot be seen from here.
    pub fn client(&self) -> Option<i32> {
        self.roster.anybody()
    }

    /// Whether nobody can connect any more, without [`Self::stop`]: somebody removed the socket.
    pub fn has_ended(&self) -> bool {
        let is_ending = self.roster.ends().load(Ordering::Acquire);
        let can_connect = self.is_listening() && self.path.exists();
        !(is_ending || can_connect)
    }

    fn is_listening(&self) -> bool {
        let listener = self.listener.as_ref();
        listener.is_some_and(|listener| !listener.is_finished())
    }

    /// Lets no new client in until [`Self::stay`]; with `must_be_free`, refused while there is one.
    pub fn retire(&self, must_be_free: bool) -> Result<(), RetireError> {
        self.roster.shut(true);
        if must_be_free && self.client().is_some() {
            self.roster.shut(false);
            return Err(RetireError::InUse);
        }
        Ok(())
    }

    /// It is not stopped after all.
    pub fn stay(&self) {
        self.roster.shut(false);
    }

    /// Answers what is in flight, refuses what comes after, and parts with every client; asked
    /// again until it is done.
    pub fn stop(&mut self, within: Duration) -> Result<(), StopError> {
        self.end();
        let deadline = Instant::now() + within;
        while self.roster.len() > 0 || self.is_listening() {
            if Instant::now() >= deadline {
                return Err(StopError::Draining);
            }
            std::thread::sleep(STOP_INTERVAL);
        }
        if let Some(listener) = self.listener.take()
            && listener.join().is_err()
        {
            tracing::error!("the thread that listens for NBD ended in a panic");
        }
        Ok(())
    }

    fn end(&self) {
        self.roster.end();
        self.bell.wake();
    }
}

impl Drop for NbdDevice {
    fn drop(&mut self) {
        self.end();
    }
}

/// The protocol wants a power of two, no larger than a request.
fn preferred_bytes(traits: &Traits) -> u32 {
    let bytes = traits.physical_bytes.max(4096).checked_next_power_of_two();
    bytes.map_or(wire::PAYLOAD_BYTES_MAX, |bytes| {
        bytes.min(wire::PAYLOAD_BYTES_MAX)
    })
}

/// What an export over this disk can do. Flushes and FUA are always offered: both reach the disk,
/// or are no work where it has no cache.
fn flags_of(traits: &Traits) -> u16 {
    let bit = |on: bool, bit: u16| if on { bit } else { 0 };
    can::HAS_FLAGS
        | can::FLUSH
        | can::FUA
        | can::WRITE_ZEROES
        | can::MULTI_CONN
        | bit(punches(traits), can::TRIM)
        | bit(traits.rotational, can::ROTATIONAL)
}
