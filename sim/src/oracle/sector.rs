//! A sector that says what it is: volume, place, number of the write, checksum.
//!
//! A sector that lies elsewhere than it should, is stale, torn or changed is known by itself. The
//! number of a write is never used twice, in no life of the host, so it is a generation as well.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;
/// What a sector of zeroes holds.
pub const ZERO: u64 = 0;
/// What a sector holds that was full of data before the tap came.
pub const INITIAL: u64 = 1;
/// What a sector holds that nobody wrote.
pub const GARBAGE: u64 = u64::MAX;

const MAGIC: u32 = 0x5EC7_0125;
const HEAD_BYTES: usize = 24;
const TAIL: usize = SECTOR_BYTES - 8;

/// Fills `bytes`, whole sectors from `sector` of `volume` on, with write number `content`.
pub fn fill(bytes: &mut [u8], volume: usize, sector: usize, content: u64) {
    bytes.fill(0);
    if content == ZERO {
        return;
    }
    for (nth, bytes) in bytes.chunks_exact_mut(SECTOR_BYTES).enumerate() {
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&(volume as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&((sector + nth) as u64).to_le_bytes());
        bytes[16..HEAD_BYTES].copy_from_slice(&content.to_le_bytes());
        let sum = xxh3_64(&bytes[..HEAD_BYTES]).to_le_bytes();
        bytes[HEAD_BYTES..HEAD_BYTES + 8].copy_from_slice(&sum);
        bytes[TAIL..].copy_from_slice(&sum);
    }
}

/// What one sector holds that lies at `sector` of `volume`: a write's number, [`ZERO`] or
/// [`GARBAGE`].
pub fn read(bytes: &[u8], volume: usize, sector: usize) -> u64 {
    assert_eq!(bytes.len(), SECTOR_BYTES, "one sector at a time");
    let word = |at: usize| {
        bytes[at..]
            .first_chunk()
            .map(|word| u64::from_le_bytes(*word))
    };
    let or = |part: &[u8]| part.iter().fold(0, |all, byte| all | byte);
    if or(&bytes[HEAD_BYTES + 8..TAIL]) != 0 {
        return GARBAGE;
    }
    if or(&bytes[..HEAD_BYTES + 8]) == 0 && or(&bytes[TAIL..]) == 0 {
        return ZERO;
    }
    let sum = Some(xxh3_64(&bytes[..HEAD_BYTES]));
    let place = u64::from(MAGIC) | (volume as u64) << 32;
    let is_whole = word(HEAD_BYTES) == sum && word(TAIL) == sum;
    let is_here = word(0) == Some(place) && word(8) == Some(sector as u64);
    match word(16) {
        Some(content) if is_whole && is_here => content,
        _ => GARBAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_is_known_where_it_belongs_and_nowhere_else() {
        let mut bytes = [0; 2 * SECTOR_BYTES];
        fill(&mut bytes, 1, 7, 42);
        let (first, second) = bytes.split_at(SECTOR_BYTES);
        assert_eq!((read(first, 1, 7), read(second, 1, 8)), (42, 42));
        assert_eq!((read(first, 0, 7), read(first, 1, 8)), (GARBAGE, GARBAGE));
        assert_eq!(read(&[0; SECTOR_BYTES], 3, 9), ZERO);
        for bit in 0..SECTOR_BYTES * 8 {
            let mut bad = first.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bad, 1, 7), GARBAGE, "bit {bit}");
        }
    }
}
