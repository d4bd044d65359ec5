//! Memory the kernel knows in advance (registered buffers of the io_uring).
//!
//! Direct I/O otherwise looks up and pins the pages of every request: at 128 KiB that costs as much
//! as the copy. Registering the ring's payload area and the pool of the queue once saves it. Where
//! the kernel refuses, for want of lockable memory, requests are made the ordinary way.
//!
//! `unsafe` because the kernel will use the memory whenever an operation names it; the language
//! cannot see that.

#![allow(unsafe_code)]

use io_uring::Submitter;
use libublk::UblkError;
use libublk::io::with_task_io_ring_mut;
use std::io;

/// Memory as the kernel is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) first: *mut u8,
    pub(super) bytes: usize,
}

/// Areas an io_uring knows, in the order of their indices.
#[derive(Debug, Default)]
pub(super) struct Areas(Vec<Area>);

/// The areas registered with the io_uring libublk has for this thread.
#[derive(Debug, Default)]
pub(super) struct Registered(Areas);

/// Largest area the kernel takes as one.
const AREA_BYTES_MAX: usize = 1 << 30;

impl Areas {
    /// Registers `areas`, in pieces as large as the kernel takes.
    ///
    /// They must stay mapped until the io_uring is gone or its buffers are unregistered.
    pub(super) fn register(submitter: &Submitter<'_>, areas: &[Area]) -> io::Result<Self> {
        let pieces = areas
            .iter()
            .flat_map(|area| area.pieces())
            .collect::<Vec<_>>();
        let vectors = pieces.iter().map(Area::vector).collect::<Vec<_>>();
        // SAFETY: the areas are mapped for as long as the registration lasts, by contract.
        // Operations name parts of them only under a claim of the ring or a lease of the pool,
        // which say whose bytes they are.
        unsafe { submitter.register_buffers(&vectors) }?;
        Ok(Self(pieces))
    }

    /// Index of the area in which `bytes` from `first` lie, if in one.
    pub(super) fn index_of(&self, first: *const u8, bytes: u32) -> Option<u16> {
        let lies_in = |area: &Area| area.contains(first, bytes as usize);
        self.0.iter().position(lies_in).map(|index| index as u16)
    }
}

impl Registered {
    /// Registers `areas`, which must stay mapped until the thread ends or the value is dropped.
    pub(super) fn new(areas: &[Area]) -> io::Result<Self> {
        with_task_io_ring_mut(|ring| Areas::register(&ring.submitter(), areas)).map(Self)
    }

    /// What is registered.
    pub(super) fn areas(&self) -> &Areas {
        &self.0
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.0.0.is_empty() {
            return;
        }
        let ended = with_task_io_ring_mut(|ring| ring.submitter().unregister_buffers());
        if let Err(error) = ended.map_err(UblkError::from) {
            tracing::debug!(%error, "the io_uring keeps its buffers until its thread ends");
        }
    }
}

impl Area {
    fn pieces(&self) -> impl Iterator<Item = Self> {
        let Self { first, bytes } = *self;
        (0..bytes).step_by(AREA_BYTES_MAX).map(move |at| Self {
            first: first.wrapping_add(at),
            bytes: AREA_BYTES_MAX.min(bytes - at),
        })
    }

    fn vector(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.first.cast(),
            iov_len: self.bytes,
        }
    }

    fn contains(&self, first: *const u8, bytes: usize) -> bool {
        let at = first.addr().wrapping_sub(self.first.addr());
        at < self.bytes && bytes <= self.bytes - at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_only_where_they_lie_whole() {
        let area = |at: usize, bytes| Area {
            first: std::ptr::without_provenance_mut(at),
            bytes,
        };
        let registered = Areas(vec![area(4096, 8192), area(12288, 4096)]);
        let index = |at, bytes| registered.index_of(std::ptr::without_provenance(at), bytes);
        assert_eq!((index(4096, 8192), index(12288, 4096)), (Some(0), Some(1)));
        assert_eq!(
            (index(8192, 8192), index(0, 4096), index(16384, 1)),
            (None, None, None)
        );
    }

    #[test]
    fn an_area_is_cut_into_pieces_the_kernel_takes() {
        let area = Area {
            first: std::ptr::null_mut(),
            bytes: AREA_BYTES_MAX * 2 + 5,
        };
        let pieces = area.pieces().map(|piece| (piece.first.addr(), piece.bytes));
        let whole = AREA_BYTES_MAX;
        assert_eq!(
            Vec::from_iter(pieces),
            [(0, whole), (whole, whole), (2 * whole, 5)]
        );
    }
}
