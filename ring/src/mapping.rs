//! One shared mapping of a file, laid out so that the kernel can back it with huge pages.
//!
//! Owned by the three maps of [`crate::map`]. Promised: the bytes from `as_ptr` on stay mapped as
//! long as the mapping lives, at an address that is a multiple of a huge page. The only references
//! it makes are to words, as atomics, and only for those it is asked for; which of them are words
//! and which are payload is its owner's to say.
//!
//! Why our own, and unsafe: a ring in pages of 4 KiB costs a sixth of the speed of a copy into it
//! (docs/benchmarks.md), a huge page is only mapped where address and offset agree, and the
//! mapping library takes the address the kernel happens to choose.

#![allow(unsafe_code)]

use crate::layout::WORD_BYTES;
use crate::sync::{AtomicU64, Ordering};
use rustix::mm::{self, MapFlags, ProtFlags};
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::slice;

/// Size of a huge page where ours run; elsewhere the alignment does no harm.
const HUGE_PAGE_BYTES: usize = 2 << 20;

const _: () = assert!(size_of::<AtomicU64>() as u64 == WORD_BYTES);
const _: () = assert!(align_of::<AtomicU64>() as u64 == WORD_BYTES);

/// A shared mapping of the first bytes of a file.
#[derive(Debug)]
pub(crate) struct Mapping {
    first: NonNull<u8>,
    bytes: usize,
}

/// Room of addresses, taken before it is known which part of it is needed.
struct Reserved {
    first: *mut u8,
    bytes: usize,
}

// SAFETY: a mapping is an address range of the process; no thread owns it.
unsafe impl Send for Mapping {}

// SAFETY: through a shared handle only addresses are handed out.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` of `file` for reading and writing.
    pub(crate) fn writable(file: impl AsFd, bytes: u64) -> io::Result<Self> {
        Self::new(file, bytes, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps `bytes` of `file` for reading only.
    pub(crate) fn read_only(file: impl AsFd, bytes: u64) -> io::Result<Self> {
        Self::new(file, bytes, ProtFlags::READ)
    }

    fn new(file: impl AsFd, bytes: u64, access: ProtFlags) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let bytes = usize::try_from(bytes).map_err(|_| too_large())?;
        let room = bytes.checked_add(HUGE_PAGE_BYTES).ok_or_else(too_large)?;
        let reserved = Reserved::new(room)?;
        let skipped_bytes = reserved.first.align_offset(HUGE_PAGE_BYTES);
        assert!(skipped_bytes + bytes <= reserved.bytes);
        let at = reserved.first.wrapping_add(skipped_bytes);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range lies within addresses reserved by us (asserted), which nobody else
        // uses, so it replaces nothing but that.
        let first = unsafe { mm::mmap(at.cast(), bytes, access, flags, file, 0) }?;
        reserved.keep(skipped_bytes, bytes);
        let first = NonNull::new(first.cast()).ok_or_else(too_large)?;
        Ok(Self { first, bytes })
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.first.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// `count` words from `first` on, which nobody uses but as atomics.
    ///
    /// Of a mapping for reading only, nothing but relaxed loads may go through them: those are the
    /// atomic accesses that are allowed on memory that cannot be written.
    pub(crate) fn words(&self, first: usize, count: usize) -> &[AtomicU64] {
        assert!(first + count <= self.bytes / WORD_BYTES as usize);
        // SAFETY: the range lies inside the mapping (asserted), which is aligned to more than a word
        // and lives as long as `self`; that these bytes are words is the caller's promise, here and
        // in every other mapping of the file.
        unsafe { slice::from_raw_parts(self.as_ptr().cast::<AtomicU64>().add(first), count) }
    }

    /// Copies the words from `first` on out, each read without order.
    pub(crate) fn copy_out(&self, first: usize, out: &mut [u64]) {
        let words = self.words(first, out.len());
        for (to, from) in out.iter_mut().zip(words) {
            *to = from.load(Ordering::Relaxed);
        }
    }

    /// Keeps the memory resident.
    pub(crate) fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is mapped as long as `self`; locking changes no byte of it.
        unsafe { mm::mlock(self.as_ptr().cast(), self.bytes) }.map_err(io::Error::from)
    }

    /// Asks the kernel to gather the memory in huge pages now, as far as it has any.
    ///
    /// By `MADV_COLLAPSE` (Linux 6.1), which needs no setting of the administrator and keeps every
    /// byte. What the kernel cannot gather stays as it was: slower and nothing else.
    pub(crate) fn gather(&self) -> io::Result<()> {
        // SAFETY: the range is mapped as long as `self`; the advice changes no byte of it.
        let result =
            unsafe { libc::madvise(self.as_ptr().cast(), self.bytes, libc::MADV_COLLAPSE) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.as_ptr(), self.bytes);
    }
}

impl Reserved {
    fn new(bytes: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses addresses that are free.
        let first =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), flags) }?;
        Ok(Self {
            first: first.cast(),
            bytes,
        })
    }

    /// Gives back all but `bytes` after the first `skipped_bytes`.
    fn keep(self, skipped_bytes: usize, bytes: usize) {
        let end = skipped_bytes + bytes.next_multiple_of(page_bytes());
        unmap(self.first, skipped_bytes);
        unmap(self.first.wrapping_add(end), self.bytes.saturating_sub(end));
        std::mem::forget(self);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        unmap(self.first, self.bytes);
    }
}

/// Size of a page, as the C library was told it: the confined shipper may not ask again.
fn page_bytes() -> usize {
    // SAFETY: it only reads what the C library keeps.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(HUGE_PAGE_BYTES)
}

/// Gives back addresses of ours that nothing points into.
fn unmap(first: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: called for addresses mapped here and owned by the caller, who gives them up. It
        // only fails for addresses that are no whole pages, and then nothing was unmapped.
        let _ = unsafe { mm::munmap(first.cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    fn file(bytes: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    /// The mappings of this process that touch `first..first + bytes`.
    fn mapped(first: usize, bytes: usize) -> Vec<(usize, usize)> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let ranges = maps.lines().map(|line| {
            let range = line.split(' ').next().unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let parse = |text| usize::from_str_radix(text, 16).unwrap();
            (parse(from), parse(to))
        });
        ranges
            .filter(|&(from, to)| from < first + bytes && to > first)
            .collect()
    }

    #[test]
    fn a_mapping_begins_at_a_huge_page_and_is_the_file() {
        for bytes in [4096, 3 << 20, (4 << 20) + 4096] {
            let mut file = file(bytes);
            let mapping = Mapping::writable(&file, bytes).unwrap();
            assert_eq!(mapping.as_ptr() as usize % HUGE_PAGE_BYTES, 0);
            assert_eq!(mapping.len() as u64, bytes);
            let last = mapping.as_ptr().wrapping_add(bytes as usize - 1);
            // SAFETY: the last byte of a mapping that lives.
            unsafe { last.write(7) };
            let mut content = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut content).unwrap();
            assert_eq!(content.last(), Some(&7), "{bytes} bytes");
        }
    }

    #[test]
    fn what_was_reserved_around_a_mapping_is_given_back_and_so_is_the_mapping() {
        let bytes = 3 << 20;
        let mapping = Mapping::read_only(file(bytes), bytes).unwrap();
        let (first, bytes) = (mapping.as_ptr() as usize, bytes as usize);
        assert_eq!(mapped(first, bytes), [(first, first + bytes)]);
        drop(mapping);
        let ours = mapped(first, bytes);
        assert!(!ours.contains(&(first, first + bytes)), "{ours:?}");
    }

    #[test]
    fn gathering_keeps_every_byte_whatever_the_kernel_says() {
        let bytes = 4 << 20;
        let mut file = file(bytes);
        let wanted: Vec<u8> = (0..bytes).map(|byte| byte as u8).collect();
        file.write_all(&wanted).unwrap();
        let mapping = Mapping::writable(&file, bytes).unwrap();
        let _ = mapping.gather();
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, wanted);
    }
}
