//! A digest that changes when somebody mounts the raw disk behind our back.
//!
//! Covers the size and the first and the last MiB: partition tables, superblocks with their mount
//! counts and generations, and the metadata of arrays and volume managers. It is a guard against
//! accidents, not against somebody who wants to deceive us.

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

/// Bytes read at either end.
const END_BYTES: u64 = 1 << 20;

impl Fingerprint {
    /// Reads both ends of `file`.
    pub(super) fn of(file: &File, size_bytes: u64) -> io::Result<Self> {
        let length = END_BYTES.min(size_bytes);
        let mut buffer = MmapMut::map_anon(length as usize)?; // page aligned, as direct I/O needs
        let mut hasher = Xxh3::new();
        hasher.update(&size_bytes.to_le_bytes());
        for offset_bytes in [0, size_bytes - length] {
            read_exactly(file, &mut buffer, offset_bytes)?;
            hasher.update(&buffer);
        }
        Ok(Self(hasher.digest128()))
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
