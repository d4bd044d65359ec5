//! A client as the worker's [`Port`]: its requests come from the ledger, their bytes from memory.

use super::ledger::Ledger;
use super::payload::Pool;
use super::uring::Uring;
use crate::device::entry::entry_of;
use crate::device::progress::DiskOp;
use crate::device::registered::Areas;
use crate::device::request::RawRequest;
use crate::device::worker::Port;

/// The client above, the disk below.
pub(super) struct ClientPort {
    pub(super) uring: Uring,
    pub(super) ledger: Ledger,
    pub(super) pool: Pool,
    /// Memory the io_uring knows.
    pub(super) areas: Areas,
}

impl Port for ClientPort {
    /// From the socket into memory of the connection, and from there.
    fn copies_in(&self) -> u64 {
        2
    }

    fn request(&self, tag: u16) -> RawRequest {
        self.ledger.raw(tag)
    }

    fn copy_in(&mut self, tag: u16, bytes: &mut [u8]) -> Result<(), i32> {
        bytes.copy_from_slice(self.ledger.written(tag));
        Ok(())
    }

    fn copy_out(&mut self, tag: u16, bytes: &[u8]) -> Result<(), i32> {
        self.ledger
            .read_into(tag, &mut self.pool)
            .copy_from_slice(bytes);
        Ok(())
    }

    fn issue(&mut self, tag: u16, op: DiskOp, memory: *mut u8) {
        self.uring.start(entry_of(op, memory, &self.areas), tag);
    }

    fn complete(&mut self, tag: u16, result: i32) {
        self.ledger.end(tag, result);
    }

    fn pause(&mut self) {
        self.uring.pause();
    }
}
