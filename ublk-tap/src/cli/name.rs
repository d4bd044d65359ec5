//! `ublk-tap name`: which volume a device is, for the rule that has udev know its stable name.

use super::say;
use crate::device::kernel;
use crate::failure::Failure;
use std::path::Path;

/// Prints `UBLK_TAP_NAME=GROUP/VOLUME`.
pub(super) fn name(device: &Path) -> Result<(), Failure> {
    let devices = kernel::devices().into_iter();
    let ours = devices.filter(|found| found.is_ours && found.path == device);
    let names = ours.filter_map(|found| Some((found.group?, found.volume?)));
    match names.into_iter().next() {
        Some((group, volume)) => say(&format!("UBLK_TAP_NAME={group}/{volume}")),
        None => Err(Failure::refused(format!(
            "{} is not a tapped volume; see `ublk-tap list`",
            device.display()
        ))),
    }
}
