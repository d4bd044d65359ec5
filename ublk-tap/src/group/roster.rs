//! What a tap's successor must know besides the ring: which volume has which number, and how often
//! it was copied.
//!
//! A file beside the ring, as short-lived as it: written whole before the first record of a new
//! volume. Without it, or with another life's, the ring is not taken over.

use super::core::Start;
use super::members::Members;
use ring::Ring;
use ring::handoff::Volumes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use wire::{Incarnation, Name, VolumeIndex, VolumeSpec};

/// The volume table of one life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// All volumes, in the order of their numbers.
    pub volumes: Vec<VolumeSpec>,
    /// Copies begun, by number.
    pub copies: BTreeMap<u16, u64>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    incarnation_counter: u64,
    incarnation_id: String,
    table: Volumes,
    copies: BTreeMap<u16, u64>,
}

const NOT_WHOLE: &str = "copied again: the tap was killed before it was whole at the receiver";

/// Longest file that is read.
const BYTES_MAX: u64 = 1 << 20;

impl Roster {
    /// The table in `path`, if it is one of life `incarnation`.
    pub fn load(path: &Path, incarnation: Incarnation) -> io::Result<Self> {
        let mut text = String::new();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        file.take(BYTES_MAX).read_to_string(&mut text)?;
        let raw: Raw = serde_json::from_str(&text).map_err(io::Error::other)?;
        let found = (raw.incarnation_counter, raw.incarnation_id);
        if found != (incarnation.counter, id_text(incarnation)) {
            return Err(io::Error::other("it is of another incarnation"));
        }
        let volumes = raw.table.volumes;
        let is_in_order = |(n, spec): (usize, &VolumeSpec)| usize::from(spec.index.0) == n;
        if !volumes.iter().enumerate().all(is_in_order) {
            return Err(io::Error::other("its numbers have holes"));
        }
        let copies = raw.copies;
        Ok(Self { volumes, copies })
    }

    /// Puts the table in place of the old one, at once. One that cannot be put takes the old one
    /// away: it would be out of date.
    pub fn save(&self, path: &Path, incarnation: Incarnation) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let saved = self.write(&fresh, incarnation);
        saved
            .and_then(|()| fs::rename(&fresh, path))
            .inspect_err(|_| {
                for path in [fresh.as_path(), path] {
                    // What is not there needs no removal.
                    let _ = fs::remove_file(path);
                }
            })
    }

    /// A volume of the table.
    pub fn volume(&self, name: &Name) -> Option<&VolumeSpec> {
        self.volumes.iter().find(|spec| spec.name == *name)
    }

    /// How a volume goes on that was in the stream of `ring`.
    pub fn start(&self, index: VolumeIndex, ring: &Ring) -> Start {
        let bit = 1_u64.checked_shl(u32::from(index.0)).unwrap_or(0);
        let is_whole = ring.whole() & bit != 0 && !ring.is_closed();
        Start::Recovered {
            copies: self.copies(index),
            copied: (!is_whole).then(|| NOT_WHOLE.into()),
        }
    }

    /// How often a volume was copied.
    pub fn copies(&self, index: VolumeIndex) -> u64 {
        self.copies.get(&index.0).copied().unwrap_or(0)
    }

    /// The members of the stream, as they were.
    pub(super) fn members(&self) -> Members {
        Members::of(self.volumes.clone())
    }

    fn write(&self, fresh: &Path, incarnation: Incarnation) -> io::Result<()> {
        let raw = Raw {
            incarnation_counter: incarnation.counter,
            incarnation_id: id_text(incarnation),
            table: Volumes {
                volumes: self.volumes.clone(),
            },
            copies: self.copies.clone(),
        };
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.custom_flags(libc::O_NOFOLLOW).open(fresh)?;
        file.write_all(&serde_json::to_vec(&raw).map_err(io::Error::other)?)
    }
}

fn id_text(incarnation: Incarnation) -> String {
    format!("{:032x}", incarnation.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Incarnation = Incarnation { counter: 7, id: 9 };

    fn roster() -> Roster {
        let spec = |n: u16, name: &str| VolumeSpec {
            index: VolumeIndex(n),
            name: Name::new(name).unwrap(),
            size_bytes: 4096,
            sector_bytes: 512,
            identity: "wwn:1".into(),
        };
        Roster {
            volumes: vec![spec(0, "b"), spec(1, "a")],
            copies: BTreeMap::from([(1, 3)]),
        }
    }

    #[test]
    fn a_table_is_found_again_by_its_own_life_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster");
        assert!(Roster::load(&path, LIFE).is_err(), "none");
        roster().save(&path, LIFE).unwrap();
        let found = Roster::load(&path, LIFE).unwrap();
        assert_eq!(found, roster());
        assert_eq!(found.copies(VolumeIndex(1)), 3);
        assert_eq!(found.copies(VolumeIndex(0)), 0);
        let name = Name::new("a").unwrap();
        assert_eq!(found.volume(&name).unwrap().index, VolumeIndex(1));
        for other in [
            Incarnation { counter: 8, ..LIFE },
            Incarnation { id: 8, ..LIFE },
        ] {
            let error = Roster::load(&path, other).unwrap_err();
            assert!(error.to_string().contains("incarnation"), "{error}");
        }
    }

    #[test]
    fn what_is_no_table_is_refused_and_one_that_cannot_be_saved_leaves_no_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster");
        fs::write(&path, b"{}").unwrap();
        assert!(Roster::load(&path, LIFE).is_err());
        let mut holed = roster();
        holed.volumes.swap(0, 1);
        holed.save(&path, LIFE).unwrap();
        assert!(Roster::load(&path, LIFE).is_err(), "numbers");
        roster().save(&path, LIFE).unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(roster().save(&path, LIFE).is_err());
        assert!(!path.exists());
    }
}
