//! The seam to the devices, so that a group can be driven without a kernel that has ublk.

use crate::device::{
    Device, DeviceConfig, DeviceError, FaultList, Frontend, NbdDevice, NbdPlace, RetireError,
    Stats, StopError,
};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::Duration;

/// Kinds of front ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FrontKind {
    /// A block device; needs a kernel with ublk.
    #[default]
    Ublk,
    /// An NBD export on a Unix socket.
    Nbd,
}

/// A device that serves a volume.
pub trait Front: Send {
    /// Its block device, or its socket.
    fn path(&self) -> PathBuf;
    /// Whether its path is the same whenever the volume is added; else it is given a stable name.
    fn is_stable(&self) -> bool {
        false
    }
    /// Who has it for itself, and what to do about it.
    fn in_use_words(&self) -> String {
        let path = self.path();
        format!("{} is mounted or held; unmount it first", path.display())
    }
    /// How many queues it has.
    fn queues(&self) -> usize;
    /// What it has done so far.
    fn stats(&self) -> Stats;
    /// Changes the disk refused since this was asked last.
    fn take_faults(&self) -> FaultList;
    /// Whether somebody is cut off when the tap goes, and does not wait for the next one.
    fn has_clients(&self) -> bool {
        false
    }
    /// Keeps it from being mounted until it is stopped, or stays; asked again until it is kept. Refused
    /// while something has it for itself: a mount, a mapping, swap.
    fn hold(&mut self) -> Result<(), RetireError>;
    /// Whether it is gone without [`Front::stop`].
    fn has_ended(&self) -> bool;
    /// Has what is cached for it written, and keeps it from being mounted; asked again until done.
    fn retire(&mut self, must_be_free: bool) -> Result<(), RetireError>;
    /// It is not stopped after all.
    fn stay(&mut self);
    /// Lets what is in flight finish and takes it down; asked again until it is done.
    fn stop(&mut self, within: Duration) -> Result<(), StopError>;
}

/// Makes devices.
pub trait Fronts: Send + Sync {
    /// Whether devices of a kind can be made here at all; asked before anything is changed.
    fn check(&self, kind: FrontKind) -> Result<(), DeviceError>;
    /// Makes one.
    fn start(&self, config: DeviceConfig) -> Result<Box<dyn Front>, DeviceError>;
}

/// Devices of this host.
#[derive(Clone, Copy, Debug)]
pub struct HostFronts;

impl Fronts for HostFronts {
    fn check(&self, kind: FrontKind) -> Result<(), DeviceError> {
        if kind == FrontKind::Nbd {
            return NbdDevice::check();
        }
        let control = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(CONTROL);
        match control {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(DeviceError::NoPermission)
            }
            Err(_) => Err(DeviceError::NoDriver),
        }
    }

    fn start(&self, config: DeviceConfig) -> Result<Box<dyn Front>, DeviceError> {
        Ok(match config.frontend.clone() {
            Frontend::Ublk => Box::new(Device::start(config)?),
            Frontend::Nbd(place) => Box::new(NbdDevice::start(config, &place)?),
        })
    }
}

impl Front for Device {
    fn path(&self) -> PathBuf {
        Self::path(self)
    }

    fn queues(&self) -> usize {
        Self::queues(self)
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }

    fn take_faults(&self) -> FaultList {
        Self::take_faults(self)
    }

    fn hold(&mut self) -> Result<(), RetireError> {
        Self::hold(self)
    }

    fn has_ended(&self) -> bool {
        Self::has_ended(self)
    }

    fn retire(&mut self, must_be_free: bool) -> Result<(), RetireError> {
        Self::retire(self, must_be_free)
    }

    fn stay(&mut self) {
        Self::stay(self);
    }

    fn stop(&mut self, within: Duration) -> Result<(), StopError> {
        Self::stop(self, within)
    }
}

impl Front for NbdDevice {
    fn path(&self) -> PathBuf {
        Self::path(self).to_owned()
    }

    fn is_stable(&self) -> bool {
        true
    }

    fn in_use_words(&self) -> String {
        let path = Self::path(self).display();
        match self.client() {
            Some(pid) if pid > 0 => {
                format!("process {pid} is connected to {path}; disconnect it first")
            }
            _ => format!("a client is connected to {path}; disconnect it first"),
        }
    }

    fn queues(&self) -> usize {
        self.clients()
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }

    fn take_faults(&self) -> FaultList {
        Self::take_faults(self)
    }

    fn has_clients(&self) -> bool {
        self.client().is_some()
    }

    fn hold(&mut self) -> Result<(), RetireError> {
        match self.client() {
            Some(_) => Err(RetireError::InUse),
            None => Ok(()),
        }
    }

    fn has_ended(&self) -> bool {
        Self::has_ended(self)
    }

    fn retire(&mut self, must_be_free: bool) -> Result<(), RetireError> {
        Self::retire(self, must_be_free)
    }

    fn stay(&mut self) {
        Self::stay(self);
    }

    fn stop(&mut self, within: Duration) -> Result<(), StopError> {
        Self::stop(self, within)
    }
}

impl FrontKind {
    /// How a device of this kind is made.
    pub(super) fn with(self, place: impl FnOnce() -> NbdPlace) -> Frontend {
        match self {
            Self::Ublk => Frontend::Ublk,
            Self::Nbd => Frontend::Nbd(place()),
        }
    }
}

impl Display for FrontKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ublk => "ublk",
            Self::Nbd => "nbd",
        })
    }
}

const CONTROL: &str = "/dev/ublk-control";
