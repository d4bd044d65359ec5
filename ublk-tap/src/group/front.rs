//! The seam to the devices, so that a group can be driven without a kernel that has ublk.

use crate::device::{Device, DeviceConfig, DeviceError, FaultList, RetireError, Stats, StopError};
use std::path::PathBuf;
use std::time::Duration;

/// A device that serves a volume.
pub trait Front: Send {
    /// Its block device.
    fn path(&self) -> PathBuf;
    /// How many queues it has.
    fn queues(&self) -> usize;
    /// What it has done so far.
    fn stats(&self) -> Stats;
    /// Changes the disk refused since this was asked last.
    fn take_faults(&self) -> FaultList;
    /// Whether something has it for itself: a mount, a mapping, swap.
    fn is_claimed(&self) -> bool;
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
    /// Whether devices can be made here at all; asked before anything is changed.
    fn check(&self) -> Result<(), DeviceError>;
    /// Makes one.
    fn start(&self, config: DeviceConfig) -> Result<Box<dyn Front>, DeviceError>;
}

/// Devices of the ublk driver.
#[derive(Clone, Copy, Debug)]
pub struct Ublk;

impl Fronts for Ublk {
    fn check(&self) -> Result<(), DeviceError> {
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
        Ok(Box::new(Device::start(config)?))
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

    fn is_claimed(&self) -> bool {
        Self::is_claimed(self)
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

const CONTROL: &str = "/dev/ublk-control";
