//! What sysfs knows about a block device: a stable identity, and what it shares bytes with.

use std::fs;
use std::path::{Path, PathBuf};

/// A block device by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    major: u32,
    minor: u32,
}

impl Block {
    /// The device with this number, as `stat` gives it.
    pub(super) fn new(rdev: u64) -> Self {
        Self {
            major: rustix::fs::major(rdev),
            minor: rustix::fs::minor(rdev),
        }
    }

    /// `MAJOR:MINOR`.
    pub(super) fn number(self) -> String {
        format!("{}:{}", self.major, self.minor)
    }

    /// Its directory in sysfs, where its attributes are.
    pub(super) fn sysfs(self) -> PathBuf {
        let link = PathBuf::from(format!("/sys/dev/block/{}", self.number()));
        fs::canonicalize(&link).unwrap_or(link)
    }

    /// The kernel's name, such as `sda1`.
    pub(super) fn name(self) -> String {
        let sysfs = self.sysfs();
        sysfs
            .file_name()
            .map_or_else(|| self.number(), |name| name.to_string_lossy().into_owned())
    }

    /// Something that stays with the disk when it moves to another name: partition UUID, WWN,
    /// mapper UUID or serial; the kernel's name where a disk has none of them.
    pub(super) fn identity(self) -> String {
        let sysfs = self.sysfs();
        if let Some(number) = attribute(&sysfs, "partition") {
            return self.partition_identity(&sysfs, &number);
        }
        whole_identity(&sysfs).unwrap_or_else(|| format!("name:{}", self.name()))
    }

    /// Whether two devices are the same, or one is a partition of the other.
    pub(super) fn overlaps(self, other: Self) -> bool {
        let (mine, theirs) = (self.sysfs(), other.sysfs());
        self == other || mine.starts_with(&theirs) || theirs.starts_with(&mine)
    }

    /// The device and its partitions.
    pub(super) fn with_partitions(self) -> Vec<String> {
        let mut numbers = vec![self.number()];
        for entry in fs::read_dir(self.sysfs()).into_iter().flatten().flatten() {
            if entry.path().join("partition").exists() {
                numbers.extend(attribute(&entry.path(), "dev"));
            }
        }
        numbers
    }

    fn partition_identity(self, sysfs: &Path, number: &str) -> String {
        if let Some(uuid) = partition_uuid(sysfs, &self.name()) {
            return format!("partuuid:{uuid}");
        }
        let disk = sysfs.parent().and_then(whole_identity);
        let disk = disk.unwrap_or_else(|| format!("name:{}", self.name()));
        format!("{disk}-part{number}")
    }
}

fn whole_identity(sysfs: &Path) -> Option<String> {
    let known = [
        ("wwid", "wwn"),
        ("device/wwid", "wwn"),
        ("dm/uuid", "dm"),
        ("md/uuid", "md"),
        ("serial", "serial"),
        ("device/serial", "serial"),
        ("loop/backing_file", "loop"),
    ];
    known
        .into_iter()
        .find_map(|(file, kind)| attribute(sysfs, file).map(|value| format!("{kind}:{value}")))
}

/// The kernel tells it from 6.10 on; before that udev's links do.
fn partition_uuid(sysfs: &Path, name: &str) -> Option<String> {
    let uevent = fs::read_to_string(sysfs.join("uevent")).unwrap_or_default();
    let told = uevent
        .lines()
        .find_map(|line| line.strip_prefix("PARTUUID="));
    if let Some(uuid) = told {
        return Some(uuid.to_owned());
    }
    fs::read_dir("/dev/disk/by-partuuid")
        .into_iter()
        .flatten()
        .flatten()
        .find_map(|link| {
            let device = fs::canonicalize(link.path()).ok()?;
            let is_it = device.file_name().is_some_and(|found| found == name);
            is_it.then(|| link.file_name().to_string_lossy().into_owned())
        })
}

/// A sysfs attribute, if it is there and says something.
pub(super) fn attribute(sysfs: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(sysfs.join(file)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
