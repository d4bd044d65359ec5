//! Operations of the disk as an io_uring takes them; the same for every front end.
//!
//! The disk is the second file registered with the io_uring, whatever the first one is.

use super::progress::{DiskOp, ZERO_CHUNK_BYTES};
use super::registered::Areas;
use io_uring::{opcode, squeue, types};
use std::io;

/// Index of the disk among the registered files; who asks is 0.
const DISK: types::Fixed = types::Fixed(1);
/// How long a worker pauses.
pub(super) static PAUSE: types::Timespec = types::Timespec::new().nsec(5_000_000);
/// What zeroes are written from.
static ZEROES: Zeroes = Zeroes([0; ZERO_CHUNK_BYTES as usize]);

#[repr(align(4096))]
struct Zeroes([u8; ZERO_CHUNK_BYTES as usize]);

/// The operation for the io_uring; its data is at `memory`.
pub(super) fn entry_of(op: DiskOp, memory: *mut u8, registered: &Areas) -> squeue::Entry {
    let at = |done_bytes: u32| memory.wrapping_add(done_bytes as usize);
    match op {
        DiskOp::Read {
            offset_bytes,
            done_bytes,
            length_bytes,
        } => {
            let at = at(done_bytes);
            match registered.index_of(at, length_bytes) {
                Some(index) => opcode::ReadFixed::new(DISK, at, length_bytes, index)
                    .offset(offset_bytes)
                    .build(),
                None => opcode::Read::new(DISK, at, length_bytes)
                    .offset(offset_bytes)
                    .build(),
            }
        }
        DiskOp::Write {
            offset_bytes,
            done_bytes,
            length_bytes,
            durable,
        } => {
            let at = at(done_bytes);
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            match registered.index_of(at, length_bytes) {
                Some(index) => opcode::WriteFixed::new(DISK, at, length_bytes, index)
                    .offset(offset_bytes)
                    .rw_flags(flags)
                    .build(),
                None => opcode::Write::new(DISK, at, length_bytes)
                    .offset(offset_bytes)
                    .rw_flags(flags)
                    .build(),
            }
        }
        DiskOp::WriteZeroes {
            offset_bytes,
            length_bytes,
        } => {
            let op = opcode::Write::new(DISK, ZEROES.0.as_ptr(), length_bytes);
            op.offset(offset_bytes).build()
        }
        DiskOp::Punch {
            offset_bytes,
            length_bytes,
        } => fallocate(libc::FALLOC_FL_PUNCH_HOLE, offset_bytes, length_bytes),
        DiskOp::ZeroRange {
            offset_bytes,
            length_bytes,
        } => fallocate(libc::FALLOC_FL_ZERO_RANGE, offset_bytes, length_bytes),
        DiskOp::Sync => opcode::Fsync::new(DISK)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
    }
}

fn fallocate(mode: i32, offset_bytes: u64, length_bytes: u32) -> squeue::Entry {
    let op = opcode::Fallocate::new(DISK, u64::from(length_bytes));
    op.offset(offset_bytes)
        .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
        .build()
}

/// Whether it is to be tried again.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

/// Ends the process when a panic unwinds through it.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}
