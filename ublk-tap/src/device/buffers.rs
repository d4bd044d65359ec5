//! The memory of a queue for reads, and for writes while nothing is captured.
//!
//! One pool per queue, in memory before the first request (a page fault in the I/O path could wait
//! for the very disk we serve), of a fixed size: when it is leased out, requests wait in their order
//! and the queue goes on (P11). Page aligned, as direct I/O wants.

use super::extents::{Extent, Extents};
use super::registered::Area;
use memmap2::{MmapMut, MmapOptions};
use std::io;

/// A part of the pool, lent to one request.
#[derive(Debug)]
#[must_use = "a lease that is not given back is lost"]
pub(super) struct Lease {
    extent: Extent,
    length_bytes: usize,
}

/// The memory of one queue.
pub(super) struct Buffers {
    memory: MmapMut,
    extents: Extents,
}

/// Unit of a lease.
const UNIT_BYTES: usize = 4096;

impl Buffers {
    /// A pool of `bytes`.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let units = u32::try_from(bytes / UNIT_BYTES).map_err(io::Error::other)?;
        let memory = MmapOptions::new().len(bytes).populate().map_anon()?;
        Ok(Self {
            memory,
            extents: Extents::new(units),
        })
    }

    /// All of the memory, to be registered with the io_uring of the queue.
    pub(super) fn area(&mut self) -> Area {
        Area {
            first: self.memory.as_mut_ptr(),
            bytes: self.memory.len(),
        }
    }

    /// Lends `bytes`, or nothing while there is no room.
    pub(super) fn lend(&mut self, bytes: u32) -> Option<Lease> {
        let length_bytes = bytes as usize;
        let extent = self
            .extents
            .take(length_bytes.div_ceil(UNIT_BYTES) as u32)?;
        Some(Lease {
            extent,
            length_bytes,
        })
    }

    /// Takes a lease back. Its memory must not be in use by the kernel any more.
    pub(super) fn give_back(&mut self, lease: Lease) {
        self.extents.give(lease.extent);
    }

    /// The bytes of a lease.
    pub(super) fn bytes(&mut self, lease: &Lease) -> &mut [u8] {
        let start = lease.extent.start as usize * UNIT_BYTES;
        &mut self.memory[start..start + lease.length_bytes]
    }
}
