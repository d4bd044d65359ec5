//! The io_uring of a queue thread.
//!
//! Completions are worked off when the thread asks for them and not in between (deferred task work,
//! Linux 6.1): a request's `pread` is not interrupted by another's answer, and answers come in one
//! go. The library would do without; made first, ours is the one it takes.

use io_uring::{IoUring, cqueue, squeue};
use libublk::io::UblkDev;
use libublk::{UblkError, ublk_init_task_ring};
use std::cell::RefCell;
use std::io;

/// Makes the ring of the calling thread, with room for what `dev` was described with.
pub(super) fn prepare(dev: &UblkDev) -> Result<(), UblkError> {
    let (sq_depth, cq_depth) = (u32::from(dev.tgt.sq_depth), u32::from(dev.tgt.cq_depth));
    ublk_init_task_ring(|cell| {
        let ring = deferring(sq_depth, cq_depth).or_else(|error| {
            tracing::debug!(%error, "task work is not deferred");
            cooperating(sq_depth, cq_depth)
        });
        let ring = ring.map_err(UblkError::IOError)?;
        cell.set(RefCell::new(ring))
            .map_err(|_| UblkError::OtherError(-libc::EEXIST))
    })
}

fn deferring(sq_depth: u32, cq_depth: u32) -> io::Result<IoUring> {
    IoUring::<squeue::Entry, cqueue::Entry>::builder()
        .setup_cqsize(cq_depth)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(sq_depth)
}

/// As a kernel before 6.1 takes it.
fn cooperating(sq_depth: u32, cq_depth: u32) -> io::Result<IoUring> {
    IoUring::<squeue::Entry, cqueue::Entry>::builder()
        .setup_cqsize(cq_depth)
        .setup_coop_taskrun()
        .build(sq_depth)
}
