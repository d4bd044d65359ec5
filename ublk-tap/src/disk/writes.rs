//! Who has written to a disk while we did not look: what the kernel counts, or the time of a file.
//!
//! Beside the fingerprint, which sees a few places of a disk and over any time, this sees all of it
//! and not over any time: the kernel's count of a block device is of one boot, and of one life of
//! the device. Where nothing is known nothing is claimed.

use super::sysfs::BlockDir;
use rustix::fs::Dev;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Columns of a block device's `stat`: sectors written, sectors discarded.
const STAT_COLUMNS: [usize; 2] = [6, 13];

/// What is known of the writes to a disk up to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Nothing.
    Unknown,
    /// A file was changed last at this time, in nanoseconds since the epoch.
    File {
        /// Its time.
        changed_ns: i128,
    },
    /// So many sectors of a block device were written since this boot.
    Block {
        /// Which boot.
        boot: String,
        /// How many.
        sectors: u64,
    },
}

impl Writes {
    pub(super) fn of_file(file: &File) -> Self {
        let Ok(found) = file.metadata() else {
            return Self::Unknown;
        };
        let changed_ns = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        Self::File { changed_ns }
    }

    pub(super) fn of_block(dev: Dev) -> Self {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let stat = BlockDir::of(dev).and_then(|dir| dir.text("stat"));
        match stat.as_deref().and_then(sectors_of) {
            Some(sectors) if !boot.is_empty() => Self::Block {
                boot: boot.trim().to_owned(),
                sectors,
            },
            _ => Self::Unknown,
        }
    }

    /// Whether the disk was written to between `before` and this.
    pub fn are_more_than(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::File { changed_ns: now }, Self::File { changed_ns: then }) => now != then,
            (
                Self::Block { boot, sectors },
                Self::Block {
                    boot: then,
                    sectors: before,
                },
            ) => boot == then && sectors > before,
            _ => false,
        }
    }
}

fn sectors_of(stat: &str) -> Option<u64> {
    let columns: Vec<&str> = stat.split_whitespace().collect();
    let column = |at: usize| columns.get(at)?.parse::<u64>().ok();
    let written = column(STAT_COLUMNS[0])?;
    Some(written.wrapping_add(column(STAT_COLUMNS[1]).unwrap_or(0)))
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => Ok(()),
            Self::File { changed_ns } => write!(f, "file:{changed_ns}"),
            Self::Block { boot, sectors } => write!(f, "boot:{boot}:{sectors}"),
        }
    }
}

impl FromStr for Writes {
    type Err = std::convert::Infallible;

    /// What is not understood tells nothing.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split(':').collect();
        let known = match parts[..] {
            ["file", time] => time
                .parse()
                .ok()
                .map(|changed_ns| Self::File { changed_ns }),
            ["boot", boot, sectors] => sectors.parse().ok().map(|sectors| Self::Block {
                boot: boot.into(),
                sectors,
            }),
            _ => None,
        };
        Ok(known.unwrap_or(Self::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn block(boot: &str, sectors: u64) -> Writes {
        let boot = boot.into();
        Writes::Block { boot, sectors }
    }

    #[test]
    fn a_count_tells_of_writes_of_the_same_boot_only() {
        assert!(block("a", 11).are_more_than(&block("a", 10)));
        assert!(!block("a", 10).are_more_than(&block("a", 10)));
        assert!(
            !block("a", 9).are_more_than(&block("a", 10)),
            "made anew since"
        );
        assert!(!block("b", 11).are_more_than(&block("a", 10)));
        assert!(!block("a", 11).are_more_than(&Writes::Unknown));
        assert!(!Writes::Unknown.are_more_than(&block("a", 1)));
    }

    #[test]
    fn a_file_tells_of_every_change() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let before = Writes::of_file(file.as_file());
        assert!(!Writes::of_file(file.as_file()).are_more_than(&before));
        let earlier = std::time::UNIX_EPOCH + std::time::Duration::from_secs(5);
        file.write_all(b"x").unwrap();
        file.as_file().set_modified(earlier).unwrap();
        assert!(
            Writes::of_file(file.as_file()).are_more_than(&before),
            "also backwards"
        );
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let changed_ns = -5;
        for writes in [
            block("a-b", 7),
            Writes::File { changed_ns },
            Writes::Unknown,
        ] {
            assert_eq!(writes.to_string().parse(), Ok(writes));
        }
        assert_eq!("boot:x:y".parse(), Ok(Writes::Unknown));
    }

    #[test]
    fn sectors_written_and_discarded_are_counted() {
        let old = "1 0 8 0 2 0 16 0 0 0 0";
        assert_eq!(sectors_of(old), Some(16));
        assert_eq!(sectors_of(&format!("{old} 3 0 24 0 0 0")), Some(40));
        assert_eq!(sectors_of("1 2"), None);
    }
}
