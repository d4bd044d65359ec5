//! A digest that changes when somebody mounts the raw disk behind our back.
//!
//! Covers the size, the first 4 MiB, the last MiB, and the first 2 MiB of every partition: partition
//! tables, superblocks with their mount counts and generations, and the metadata of arrays and
//! volume managers. It is a guard against accidents, not against somebody who wants to deceive us.

use super::partitions::{self, ReadSectors};
use super::read_exactly;
use memmap2::MmapMut;
use std::fmt;
use std::fs::File;
use std::io;
use std::str::FromStr;
use xxhash_rust::xxh3::Xxh3;

/// Digest of a disk's size and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u128);

/// Bytes read at the start: a first partition or logical volume often begins at 1 MiB.
const HEAD_BYTES: u64 = 4 << 20;
/// Bytes read at the end.
const TAIL_BYTES: u64 = 1 << 20;
/// Bytes read of each partition: also the first logical volume in it.
const PARTITION_BYTES: u64 = 2 << 20;

impl Fingerprint {
    /// Reads both ends of `file`, and the starts of its partitions.
    pub(super) fn of(file: &File, size_bytes: u64, sector_bytes: u32) -> io::Result<Self> {
        let mut disk = Aligned::new(file)?;
        let mut hasher = Xxh3::new();
        hasher.update(&size_bytes.to_le_bytes());
        let tail = size_bytes.saturating_sub(TAIL_BYTES);
        let mut parts = vec![(0, HEAD_BYTES), (tail, TAIL_BYTES)];
        let partitions = partitions::starts(&mut disk, size_bytes, sector_bytes)?;
        parts.extend(partitions.into_iter().map(|start| (start, PARTITION_BYTES)));
        for (start, length) in parts {
            let length = length.min(size_bytes - start);
            hasher.update(disk.bytes(start, length)?);
        }
        Ok(Self(hasher.digest128()))
    }
}

/// A file read through memory that direct I/O takes.
struct Aligned<'f> {
    file: &'f File,
    buffer: MmapMut,
}

impl<'f> Aligned<'f> {
    fn new(file: &'f File) -> io::Result<Self> {
        let buffer = MmapMut::map_anon(HEAD_BYTES as usize)?; // page aligned
        Ok(Self { file, buffer })
    }

    fn bytes(&mut self, offset_bytes: u64, length_bytes: u64) -> io::Result<&[u8]> {
        let bytes = &mut self.buffer[..length_bytes as usize];
        read_exactly(self.file, bytes, offset_bytes)?;
        Ok(bytes)
    }
}

impl ReadSectors for Aligned<'_> {
    fn read(&mut self, offset_bytes: u64, bytes: &mut [u8]) -> io::Result<()> {
        let found = self.bytes(offset_bytes, bytes.len() as u64)?;
        bytes.copy_from_slice(found);
        Ok(())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 32 hexadecimal digits")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let is_hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let value = is_hex.then(|| u128::from_str_radix(text, 16));
        value.and_then(Result::ok).map(Self).ok_or(NotAFingerprint)
    }
}
