//! The ublk driver and the devices it has: ours, dead ones of ours, and others.

use super::Shape;
use super::error::DeviceError;
use libublk::ctrl::UblkCtrl;
use libublk::sys;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use wire::Name;

/// How we call ourselves towards the ublk tools.
pub(super) const TARGET: &str = "ublk-tap";
/// Kept by the kernel for us: tells our devices from others, also when the note is lost.
pub(super) const MARK: u64 = u64::from_be_bytes(*b"ublk-tap");

/// What every device of ours is made with: after our death its users wait, and their requests come
/// again.
pub(super) const FLAGS: u64 =
    (sys::UBLK_F_USER_RECOVERY | sys::UBLK_F_USER_RECOVERY_REISSUE) as u64;

const CONTROL: &str = "/dev/ublk-control";

/// A device the driver has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelDevice {
    /// Number of the device.
    pub id: u32,
    /// Its block device.
    pub path: PathBuf,
    /// Whether it serves requests.
    pub state: State,
    /// Process that serves it, or did.
    pub pid: i32,
    /// Whether we made it.
    pub is_ours: bool,
    /// Group it was made for, if ours.
    pub group: Option<Name>,
    /// Volume it was made for, if ours.
    pub volume: Option<Name>,
}

/// State of a device in the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Stopped, or never started.
    Dead,
    /// Served.
    Live,
    /// Its server died; its users wait.
    Quiesced,
    /// One that came with a newer kernel.
    Unknown,
}

/// All devices of the driver, ascending; none if there is no driver.
pub fn devices() -> Vec<KernelDevice> {
    let entries = fs::read_dir("/sys/class/ublk-char")
        .into_iter()
        .flatten()
        .flatten();
    let id = |name: &str| name.strip_prefix("ublkc")?.parse::<u32>().ok();
    let ids = entries.filter_map(|entry| id(entry.file_name().to_str()?));
    let mut devices = ids.filter_map(device).collect::<Vec<_>>();
    devices.sort_by_key(|device| device.id);
    devices
}

/// Queues and sizes of a device, as it was made.
pub fn shape(id: u32) -> Option<Shape> {
    let info = control(id)?.dev_info();
    Some(Shape {
        queues: info.nr_hw_queues,
        depth: info.queue_depth,
        io_bytes_max: info.max_io_buf_bytes,
    })
}

/// Stops and deletes a device whose server is dead; requests that wait for it end in an error.
///
/// Returns when nobody waits any more; what still has it open keeps its number until closed.
pub fn delete(id: u32) -> Result<(), DeviceError> {
    let ctrl = control(id).ok_or_else(|| {
        let source = std::io::Error::from_raw_os_error(libc::ENODEV);
        DeviceError::refused("find the device", source)
    })?;
    ctrl.kill_dev()
        .map_err(|error| DeviceError::from_ublk("stop the device", error))?;
    ctrl.del_dev_async()
        .map_err(|error| DeviceError::from_ublk("delete the device", error))?;
    Ok(())
}

/// Block device of device `id`.
pub fn block_path(id: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkb{id}"))
}

/// Checks that the driver is there, ours to use, and able.
pub(super) fn prepare() -> Result<(), DeviceError> {
    let control = fs::OpenOptions::new().read(true).write(true).open(CONTROL);
    match control.map_err(|error| error.raw_os_error()) {
        Ok(_) => {}
        Err(Some(libc::EACCES | libc::EPERM)) => return Err(DeviceError::NoPermission),
        Err(_) => return Err(DeviceError::NoDriver),
    }
    if let Some(features) = features() {
        check_recovery(features)?;
    }
    make_notes_dir();
    Ok(())
}

/// What the driver says it can do. One before Linux 6.5 says nothing: it leaves out of a device's
/// flags what it does not know.
pub(super) fn features() -> Option<u64> {
    UblkCtrl::get_features()
}

/// Refuses flags of a driver, or of a device as made, with which our death would fail requests.
pub(super) fn check_recovery(flags: u64) -> Result<(), DeviceError> {
    if flags & FLAGS == FLAGS {
        return Ok(());
    }
    Err(DeviceError::NoFeature("user recovery"))
}

/// What libublk keeps about the device beside its own.
pub(super) fn note(group: &Name, volume: &Name, disk: &Path) -> Value {
    json!({ TARGET: { "group": group.as_str(), "volume": volume.as_str(), "disk": disk } })
}

/// Requests are sorted once, by the scheduler of the disk below.
///
/// For a new device only: the kernel waits for all requests before it looks at what is written. A
/// tap killed meanwhile would wait for requests that wait for its successor, which waits for it.
pub(super) fn use_no_scheduler(id: u32) {
    let file = format!("/sys/block/ublkb{id}/queue/scheduler");
    if let Err(error) = fs::write(&file, "none") {
        tracing::debug!(%error, file, "the device keeps its scheduler");
    }
}

/// libublk would make the directory of its notes writable for everybody.
fn make_notes_dir() {
    let dir = UblkCtrl::run_dir();
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&dir);
    if let Err(error) = made {
        tracing::debug!(%error, dir, "no directory for notes about devices");
    }
}

fn control(id: u32) -> Option<UblkCtrl> {
    UblkCtrl::new_simple(i32::try_from(id).ok()?).ok()
}

fn device(id: u32) -> Option<KernelDevice> {
    let ctrl = control(id)?;
    let info = ctrl.dev_info();
    let note = ctrl.get_target_data_from_json().unwrap_or_default();
    let name = |key: &str| Name::new(note.get(TARGET)?.get(key)?.as_str()?).ok();
    Some(KernelDevice {
        id,
        path: block_path(id),
        state: state(info.state),
        pid: info.ublksrv_pid,
        is_ours: info.ublksrv_flags == MARK,
        group: name("group"),
        volume: name("volume"),
    })
}

fn state(state: u16) -> State {
    match u32::from(state) {
        sys::UBLK_S_DEV_DEAD => State::Dead,
        sys::UBLK_S_DEV_LIVE => State::Live,
        sys::UBLK_S_DEV_QUIESCED => State::Quiesced,
        _ => State::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_whose_requests_would_fail_with_us_is_refused() {
        assert!(check_recovery(u64::MAX).is_ok());
        assert!(check_recovery(FLAGS).is_ok());
        for missing in [sys::UBLK_F_USER_RECOVERY, sys::UBLK_F_USER_RECOVERY_REISSUE] {
            assert!(check_recovery(!u64::from(missing)).is_err());
        }
    }
}
