//! Where partitions begin, read off the disk itself: GPT, or MBR with its extended ones. Pure.
//!
//! A filesystem in a partition notes its mounts at the partition's start, not at the disk's. The
//! kernel knows partitions of some block devices only, and of files none. What is no table has no
//! partitions; what is damaged has those that can be made out.
//!
//! Promises: every start lies on the disk; at most [`PARTITIONS_MAX`], found with as many reads.

use std::collections::BTreeSet;
use std::io;

/// Most partitions looked for.
pub(super) const PARTITIONS_MAX: usize = 128;

/// Reads a sector's worth of bytes at an offset; all of it is on the disk.
pub(super) trait ReadSectors {
    /// Fills `bytes` from `offset_bytes`.
    fn read(&mut self, offset_bytes: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// First bytes of all partitions, in disk order.
pub(super) fn starts(
    disk: &mut impl ReadSectors,
    size_bytes: u64,
    sector_bytes: u32,
) -> io::Result<Vec<u64>> {
    let sector = u64::from(sector_bytes);
    let mut table = Table {
        disk,
        sector,
        sectors: size_bytes / sector,
        found: BTreeSet::new(),
    };
    table.look()?;
    let starts = table.found.iter().map(|lba| lba * sector);
    Ok(starts.take(PARTITIONS_MAX).collect())
}

const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];
const MBR_ENTRIES_AT: usize = 446;
const MBR_ENTRY_BYTES: usize = 16;
const TYPE_PROTECTIVE: u8 = 0xee;
const TYPES_EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const GPT_MAGIC: &[u8] = b"EFI PART";
const GPT_ENTRY_BYTES: u64 = 128;

struct Table<'d, D> {
    disk: &'d mut D,
    sector: u64,
    sectors: u64,
    found: BTreeSet<u64>,
}

/// An entry of an MBR, or of one of the records an extended partition is a chain of.
#[derive(Clone, Copy)]
struct Entry {
    kind: u8,
    start: u64,
}

impl<D: ReadSectors> Table<'_, D> {
    fn look(&mut self) -> io::Result<()> {
        let Some(entries) = self.boot_record(0)? else {
            return Ok(());
        };
        for entry in entries {
            match entry.kind {
                TYPE_PROTECTIVE => self.gpt()?,
                kind if TYPES_EXTENDED.contains(&kind) => self.extended(entry.start)?,
                _ => self.take(entry.start),
            }
        }
        Ok(())
    }

    /// Used entries of the boot record at `lba`; none if there is no such record.
    fn boot_record(&mut self, lba: u64) -> io::Result<Option<Vec<Entry>>> {
        let Some(bytes) = self.sector(lba)? else {
            return Ok(None);
        };
        if bytes[510..512] != MBR_SIGNATURE {
            return Ok(None);
        }
        let entries = bytes[MBR_ENTRIES_AT..510].chunks_exact(MBR_ENTRY_BYTES);
        let entries = entries.map(|entry| Entry {
            kind: entry[4],
            start: number(&entry[8..12]),
        });
        Ok(Some(entries.filter(|entry| entry.kind != 0).collect()))
    }

    /// Each record of the chain has a partition, placed from the record, and the next record, placed
    /// from the chain's start.
    fn extended(&mut self, first: u64) -> io::Result<()> {
        let mut at = first;
        for _ in 0..PARTITIONS_MAX {
            let Some(entries) = self.boot_record(at)? else {
                break;
            };
            let mut next = None;
            for entry in entries {
                if TYPES_EXTENDED.contains(&entry.kind) {
                    next = first.checked_add(entry.start);
                } else if let Some(start) = at.checked_add(entry.start) {
                    self.take(start);
                }
            }
            match next {
                Some(next) if next > at => at = next,
                _ => break,
            }
        }
        Ok(())
    }

    fn gpt(&mut self) -> io::Result<()> {
        let Some(header) = self.sector(1)? else {
            return Ok(());
        };
        let (first, count) = (number(&header[72..80]), number(&header[80..84]));
        let entry_bytes = number(&header[84..88]);
        let is_sound = header.starts_with(GPT_MAGIC)
            && entry_bytes.is_power_of_two()
            && (GPT_ENTRY_BYTES..=512).contains(&entry_bytes);
        if !is_sound {
            return Ok(());
        }
        let count = count.min(PARTITIONS_MAX as u64);
        let per_sector = self.sector / entry_bytes;
        for index in 0..count.div_ceil(per_sector) {
            let Some(bytes) = self.sector(first.saturating_add(index))? else {
                break;
            };
            for entry in bytes.chunks_exact(entry_bytes as usize) {
                if entry[..16] != [0; 16] {
                    self.take(number(&entry[32..40]));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, lba: u64) {
        if lba < self.sectors && self.found.len() < PARTITIONS_MAX {
            self.found.insert(lba);
        }
    }

    fn sector(&mut self, lba: u64) -> io::Result<Option<Vec<u8>>> {
        if lba >= self.sectors {
            return Ok(None);
        }
        let mut bytes = vec![0; self.sector as usize];
        self.disk.read(lba * self.sector, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |all, byte| all << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECTORS: u64 = 1 << 14;

    struct Image(Vec<u8>, usize);

    impl Image {
        fn new() -> Self {
            Self(vec![0; (SECTORS * 512) as usize], 0)
        }

        /// Entry `slot` of the boot record at `lba`.
        fn entry(&mut self, lba: u64, slot: usize, kind: u8, start: u32) -> &mut Self {
            let record = lba as usize * 512;
            let at = record + MBR_ENTRIES_AT + slot * MBR_ENTRY_BYTES;
            self.0[record + 510..record + 512].copy_from_slice(&MBR_SIGNATURE);
            self.0[at + 4] = kind;
            self.0[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            self
        }

        fn gpt(&mut self, sector: usize, lbas: &[u64]) -> &mut Self {
            self.entry(0, 0, TYPE_PROTECTIVE, 1);
            let header = &mut self.0[sector..];
            header[..8].copy_from_slice(GPT_MAGIC);
            header[72..80].copy_from_slice(&2u64.to_le_bytes());
            header[80..84].copy_from_slice(&128u32.to_le_bytes());
            header[84..88].copy_from_slice(&128u32.to_le_bytes());
            for (slot, lba) in lbas.iter().enumerate() {
                let at = 2 * sector + slot * 128;
                self.0[at] = 0xa2;
                self.0[at + 32..at + 40].copy_from_slice(&lba.to_le_bytes());
            }
            self
        }

        fn starts(&mut self, sector_bytes: u32) -> Vec<u64> {
            let size = self.0.len() as u64;
            starts(self, size, sector_bytes).unwrap()
        }
    }

    impl ReadSectors for Image {
        fn read(&mut self, offset_bytes: u64, bytes: &mut [u8]) -> io::Result<()> {
            let at = offset_bytes as usize;
            self.1 += 1;
            bytes.copy_from_slice(&self.0[at..at + bytes.len()]);
            Ok(())
        }
    }

    #[test]
    fn a_disk_without_a_table_has_no_partitions() {
        assert_eq!(Image::new().starts(512), [0; 0]);
    }

    #[test]
    fn primary_and_logical_partitions_of_an_mbr_are_found() {
        let mut image = Image::new();
        image.entry(0, 0, 0x83, 2048).entry(0, 2, 0x05, 4096);
        image.entry(4096, 0, 0x83, 63).entry(4096, 1, 0x05, 1024);
        image.entry(5120, 0, 0x8e, 64);
        let lbas = image.starts(512).into_iter().map(|at| at / 512);
        assert_eq!(lbas.collect::<Vec<_>>(), [2048, 4096 + 63, 5120 + 64]);
    }

    #[test]
    fn partitions_of_a_gpt_are_found_with_either_sector_size() {
        for sector in [512, 4096] {
            let mut image = Image::new();
            image.gpt(sector, &[256, 1024, 1 << 40]);
            let lbas = image.starts(sector as u32);
            assert_eq!(lbas, [256 * sector as u64, 1024 * sector as u64]);
        }
    }

    #[test]
    fn a_chain_that_leads_back_ends() {
        let mut image = Image::new();
        image.entry(0, 0, 0x05, 100);
        image.entry(100, 1, 0x05, 50).entry(150, 1, 0x05, 0);
        assert_eq!(image.starts(512), [0; 0]);
    }

    proptest! {
        #[test]
        fn whatever_a_table_says_starts_lie_on_the_disk_and_reads_are_bounded(
            noise in proptest::collection::vec(any::<u8>(), 512 * 8), gpt: bool
        ) {
            let mut image = Image::new();
            image.0[..noise.len()].copy_from_slice(&noise);
            image.0[510..512].copy_from_slice(&MBR_SIGNATURE);
            if gpt {
                image.gpt(512, &[]);
            }
            let found = image.starts(512);
            prop_assert!(found.len() <= PARTITIONS_MAX);
            prop_assert!(found.iter().all(|at| *at < SECTORS * 512));
            prop_assert!(image.1 <= 4 * (PARTITIONS_MAX + 2), "{} reads", image.1);
        }
    }
}
