//! Moving the application's bytes through the char device (`UBLK_F_USER_COPY`).
//!
//! Plain calls, not operations of the io_uring: those would be punted to worker threads and cost
//! half the requests per second.
//!
//! Holds the only `unsafe` of the device: libublk keeps the descriptor private, and the driver lets
//! it be opened only once.

#![allow(unsafe_code)]

use libublk::io::{UblkDev, UblkIOCtx};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// The char device of a running device.
#[derive(Clone, Copy, Debug)]
pub(super) struct CharDevice<'d> {
    fd: BorrowedFd<'d>,
}

impl<'d> CharDevice<'d> {
    /// That of `dev`.
    pub(super) fn of(dev: &'d UblkDev) -> Self {
        // SAFETY: libublk puts the descriptor of its open char device first and closes it when
        // `dev` is dropped, which the lifetime rules out while we use it. Needed because the file
        // itself is private and cannot be opened a second time.
        let fd = unsafe { BorrowedFd::borrow_raw(dev.tgt.fds[0]) };
        Self { fd }
    }

    /// Reads what the application writes under `tag`; the error is an errno.
    pub(super) fn read(self, qid: u16, tag: u16, bytes: &mut [u8]) -> Result<(), i32> {
        let mut done = 0;
        while done < bytes.len() {
            let position = UblkIOCtx::ublk_user_copy_pos(qid, tag, done as u32);
            done += moved(rustix::io::pread(self.fd, &mut bytes[done..], position))?;
        }
        Ok(())
    }

    /// Gives the application that reads under `tag` its bytes.
    pub(super) fn write(self, qid: u16, tag: u16, bytes: &[u8]) -> Result<(), i32> {
        let mut done = 0;
        while done < bytes.len() {
            let position = UblkIOCtx::ublk_user_copy_pos(qid, tag, done as u32);
            done += moved(rustix::io::pwrite(self.fd, &bytes[done..], position))?;
        }
        Ok(())
    }
}

/// Bytes moved; moving none is an error, being interrupted is not.
fn moved(result: Result<usize, Errno>) -> Result<usize, i32> {
    match result {
        Ok(0) => Err(libc::EIO),
        Ok(bytes) => Ok(bytes),
        Err(Errno::INTR | Errno::AGAIN) => Ok(0),
        Err(_) => Err(libc::EIO),
    }
}
