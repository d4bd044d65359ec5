//! Known blocks: what a target is recognised by before the first write after a start (P13).
//!
//! After every step the digests of a few blocks are noted beside the applied stamp. When a target
//! is opened again and they differ, someone else has written it: nothing may be applied on top.
//! The blocks are those a mount changes: where ext4, xfs and btrfs keep their superblocks, the
//! middle, and the end.

use crate::fold::ByteRange;
use xxhash_rust::xxh3::xxh3_64;

/// Length of a known block.
pub const KNOWN_BLOCK_BYTES: u64 = 4096;

/// How many blocks are looked at.
pub const KNOWN_BLOCKS: usize = 4;

/// Digests of the known blocks of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownBlocks(pub [u64; KNOWN_BLOCKS]);

/// Where the known blocks of a target with `used_bytes` bytes of ours lie.
pub fn known_ranges(used_bytes: u64) -> [ByteRange; KNOWN_BLOCKS] {
    assert!(used_bytes > 0, "an empty target has no blocks");
    let len_bytes = used_bytes.min(KNOWN_BLOCK_BYTES);
    let last = used_bytes - len_bytes;
    let middle = last / 2 / KNOWN_BLOCK_BYTES * KNOWN_BLOCK_BYTES;
    [0, last.min(64 << 10), middle, last].map(|offset_bytes| ByteRange {
        offset_bytes,
        len_bytes,
    })
}

impl KnownBlocks {
    /// The digests of the blocks read at [`known_ranges`], in that order.
    pub fn of<T: AsRef<[u8]>>(blocks: &[T; KNOWN_BLOCKS]) -> Self {
        Self(std::array::from_fn(|index| xxh3_64(blocks[index].as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_blocks_lie_inside_every_target_on_whole_sectors() {
        for used_bytes in [512, 4096, 4608, 65_536, 66_048, 1 << 20, (1 << 40) + 512] {
            for range in known_ranges(used_bytes) {
                assert!(range.end_bytes() <= used_bytes, "{range} of {used_bytes}");
                assert_eq!(range.offset_bytes % 512 + range.len_bytes % 512, 0);
            }
        }
    }
}
