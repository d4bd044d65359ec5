//! How the application's bytes come to us and back; fixed when a device is made.
//!
//! Either we move them ourselves, straight between the application's pages and the ring (user copy,
//! Linux 6.5 and later), or the driver moves them into memory it was given for the tag before we
//! hear of a write, and out of it when a read is completed: one copy more, and for kernels that
//! cannot do the other.
//!
//! Owned by a queue thread, like the requests. Whatever the way, the application may scribble on
//! its page meanwhile: disk and ring get the same bytes, for both are written from one copy (P1).

use super::char_device::CharDevice;
use super::error::DeviceError;
use libublk::helpers::IoBuf;
use libublk::io::{BufDesc, BufDescList, UblkDev};
use libublk::sys;
use serde::Deserialize;

/// What an operator may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transfer {
    /// User copy where the kernel has it.
    #[default]
    Auto,
    /// User copy, or no device.
    UserCopy,
    /// Through memory of the tag.
    Staged,
}

/// The bytes of one queue's requests.
pub(super) enum Bytes<'d> {
    /// In the application's pages.
    Application(CharDevice<'d>),
    /// In memory of the tag.
    Staged(Vec<IoBuf<u8>>),
}

const USER_COPY: u64 = sys::UBLK_F_USER_COPY as u64;

impl Transfer {
    /// The flag a new device is made with, on a kernel that says it has these features.
    pub(super) fn flag(self, features: Option<u64>) -> Result<u64, DeviceError> {
        match (self, features.unwrap_or(0) & USER_COPY) {
            (Self::Staged, _) | (Self::Auto, 0) => Ok(0),
            (Self::UserCopy, 0) => Err(DeviceError::NoFeature("user copy")),
            (Self::Auto | Self::UserCopy, flag) => Ok(flag),
        }
    }
}

impl<'d> Bytes<'d> {
    /// As `dev` was made, which may have been by a tap before us.
    pub(super) fn of(dev: &'d UblkDev) -> Self {
        let info = &dev.dev_info;
        if info.flags & USER_COPY != 0 {
            return Self::Application(CharDevice::of(dev));
        }
        let bytes = info.max_io_buf_bytes as usize;
        Self::Staged((0..info.queue_depth).map(|_| IoBuf::new(bytes)).collect())
    }

    /// What the driver is told when it is asked for the first requests.
    pub(super) fn first(&self) -> BufDescList<'_> {
        match self {
            Self::Application(_) => BufDescList::Slices(None),
            Self::Staged(buffers) => BufDescList::Slices(Some(buffers)),
        }
    }

    /// What it is told when it is asked for the next request under `tag`.
    pub(super) fn next(&self, tag: u16) -> BufDesc<'_> {
        match self {
            Self::Application(_) => BufDesc::Slice(&[]),
            Self::Staged(buffers) => BufDesc::Slice(&buffers[usize::from(tag)]),
        }
    }

    /// How often a byte of a write is moved until it is in the ring.
    pub(super) fn copies_in(&self) -> u64 {
        match self {
            Self::Application(_) => 1,
            Self::Staged(_) => 2,
        }
    }

    /// Takes what the application writes under `tag`; the error is an errno.
    pub(super) fn take(&self, (qid, tag): (u16, u16), bytes: &mut [u8]) -> Result<(), i32> {
        match self {
            Self::Application(chars) => chars.read(qid, tag, bytes),
            Self::Staged(buffers) => {
                bytes.copy_from_slice(&buffers[usize::from(tag)][..bytes.len()]);
                Ok(())
            }
        }
    }

    /// Gives the application that reads under `tag` its bytes.
    pub(super) fn give(&mut self, (qid, tag): (u16, u16), bytes: &[u8]) -> Result<(), i32> {
        match self {
            Self::Application(chars) => chars.write(qid, tag, bytes),
            Self::Staged(buffers) => {
                buffers[usize::from(tag)][..bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_copy_is_used_where_the_kernel_has_it_and_demanded_only_by_word() {
        let flag = |transfer: Transfer, features: Option<u64>| transfer.flag(features).ok();
        // A kernel before user copy does not say what it has.
        let (all, none) = (Some(u64::MAX), None);
        assert_eq!(flag(Transfer::Auto, all), Some(USER_COPY));
        assert_eq!(flag(Transfer::Auto, none), Some(0));
        assert_eq!(flag(Transfer::UserCopy, all), Some(USER_COPY));
        assert_eq!(flag(Transfer::UserCopy, none), None);
        assert_eq!(flag(Transfer::Auto, Some(0)), Some(0));
        assert_eq!(flag(Transfer::Staged, all), Some(0));
        assert_eq!(flag(Transfer::Staged, none), Some(0));
    }
}
