//! Going on with the device of a dead tap, whose users wait in the kernel.
//!
//! The driver hands it over when the dead process' io_urings are gone, and with them every disk
//! write that was in flight (P3). Its requests come again, in new queues, when all of these await
//! them. Size, limits and cache attributes stay as they were made.

use super::error::DeviceError;
use super::keeper::Plan;
use super::kernel;
use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::{UblkError, UblkFlags};
use std::io;

/// The control of device `id`, which now awaits new queues.
pub(super) fn control(plan: &Plan, id: u32) -> Result<UblkCtrl, DeviceError> {
    let number = i32::try_from(id).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, error);
        DeviceError::refused("find the device", source)
    })?;
    let ctrl = UblkCtrlBuilder::default()
        .name(kernel::TARGET)
        .id(number)
        .nr_queues(plan.shape.queues)
        .depth(plan.shape.depth)
        .io_buf_bytes(plan.shape.io_bytes_max)
        .ctrl_flags(kernel::FLAGS)
        .ctrl_target_flags(kernel::MARK)
        .dev_flags(UblkFlags::UBLK_DEV_F_RECOVER_DEV)
        .build()
        .map_err(|error| DeviceError::from_ublk("find the device", error))?;
    if ctrl.dev_info().ublksrv_flags != kernel::MARK {
        let source = io::Error::other("it is not ours");
        return Err(DeviceError::refused("hand the device over", source));
    }
    accepted("hand the device over", ctrl.start_user_recover())?;
    Ok(ctrl)
}

/// libublk passes "busy" on as a success.
pub(super) fn accepted(
    what: &'static str,
    answer: Result<i32, UblkError>,
) -> Result<(), DeviceError> {
    match answer {
        Ok(code) if code >= 0 => Ok(()),
        Ok(code) => Err(DeviceError::from_ublk(what, UblkError::OtherError(code))),
        Err(error) => Err(DeviceError::from_ublk(what, error)),
    }
}

/// Deletes a device that is stopped, and libublk's note of it.
pub(super) fn delete(ctrl: &UblkCtrl) {
    if let Err(error) = ctrl.del_dev_async() {
        tracing::debug!(%error, "the device is gone already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_driver_is_no_success() {
        assert!(accepted("x", Ok(0)).is_ok());
        let busy = accepted("x", Ok(-libc::EBUSY)).unwrap_err();
        assert!(busy.to_string().contains("busy"), "{busy}");
        assert!(accepted("x", Err(UblkError::QueueIsDown)).is_err());
    }
}
