//! What is stored on what: filesystems, partitions, mappings and loops down to a disk.

use super::sysfs::BlockDir;
use rustix::fs::Dev;
use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Whether `path` is stored on block device `dev`, directly or through what is built on it.
pub fn lies_on(path: &Path, dev: Dev) -> io::Result<bool> {
    Ok(Below::of(path)?.devices.contains(&dev))
}

/// Whether block device `upper` is, or is built on, block device `lower`.
pub(super) fn rests_on(upper: Dev, lower: Dev) -> bool {
    let mut below = Below::default();
    below.add_device(upper);
    below.devices.contains(&lower)
}

/// Whether `path` is stored inside the regular file `file`, through a loop device.
pub(super) fn lies_on_file(path: &Path, file: &File) -> io::Result<bool> {
    Ok(Below::of(path)?
        .files
        .contains(&file_key(&file.metadata()?)))
}

/// Everything a path is stored on. Bounded: every device and file is looked at once.
#[derive(Default)]
struct Below {
    devices: BTreeSet<Dev>,
    files: BTreeSet<(u64, u64)>,
}

impl Below {
    fn of(path: &Path) -> io::Result<Self> {
        let mut below = Self::default();
        below.add_filesystem(fs::metadata(path)?.dev());
        Ok(below)
    }

    /// The filesystem with device number `dev`; some (btrfs) have a number of their own, and only
    /// the table of mounts says which device they are on.
    fn add_filesystem(&mut self, dev: Dev) {
        self.add_device(dev);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for source in mount_sources(&mounts, dev) {
            if let Ok(found) = fs::metadata(source)
                && found.file_type().is_block_device()
            {
                self.add_device(found.rdev());
            }
        }
    }

    fn add_device(&mut self, dev: Dev) {
        if !self.devices.insert(dev) {
            return;
        }
        let Some(dir) = BlockDir::of(dev) else { return };
        for lower in dir.below() {
            self.add_device(lower);
        }
        let file = dir.whole_text("loop/backing_file");
        if let Some(found) = file.and_then(|file| fs::metadata(file).ok())
            && self.files.insert(file_key(&found))
        {
            self.add_filesystem(found.dev());
        }
    }
}

fn mount_sources(mountinfo: &str, dev: Dev) -> Vec<&str> {
    let number = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let ours = mountinfo
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some(number.as_str()));
    let source = |line: &'_ str| -> Option<usize> { line.find(" - ") };
    ours.filter_map(|line| line[source(line)? + 3..].split(' ').nth(1))
        .collect()
}

fn file_key(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_a_mount_is_found_behind_its_optional_fields() {
        let mounts = "30 1 0:42 /sub /data rw,noatime shared:7 - btrfs /dev/vdb rw,space_cache\n\
                      31 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        assert_eq!(
            mount_sources(mounts, rustix::fs::makedev(0, 42)),
            ["/dev/vdb"]
        );
        assert_eq!(
            mount_sources(mounts, rustix::fs::makedev(8, 1)),
            ["/dev/sda1"]
        );
    }

    #[test]
    fn a_file_does_not_lie_on_itself() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!lies_on_file(file.path(), file.as_file()).unwrap());
    }
}
