//! A block device as `/sys` describes it.

use rustix::fs::{Dev, major, minor};
use std::fs;
use std::path::{Path, PathBuf};

/// Directory of one block device below `/sys/dev/block`.
#[derive(Clone, Debug)]
pub(super) struct BlockDir {
    /// The device or partition itself.
    own: PathBuf,
    /// The whole disk: itself, or what it is a partition of. Queue limits are here.
    whole: PathBuf,
}

impl BlockDir {
    /// The directory of device `dev`, if the kernel shows one.
    pub(super) fn of(dev: Dev) -> Option<Self> {
        let link = format!("/sys/dev/block/{}:{}", major(dev), minor(dev));
        Self::at(Path::new(&link))
    }

    /// The directory behind `link`.
    pub(super) fn at(link: &Path) -> Option<Self> {
        let own = link.canonicalize().ok()?;
        let is_partition = own.join("partition").exists();
        let whole = if is_partition {
            own.parent()?.to_path_buf()
        } else {
            own.clone()
        };
        Some(Self { own, whole })
    }

    /// Kernel name, such as `sda1`.
    pub(super) fn name(&self) -> String {
        file_name(&self.own)
    }

    /// Whether this is a partition.
    pub(super) fn is_partition(&self) -> bool {
        self.own != self.whole
    }

    /// Content of a file of the device or partition itself, trimmed; none if absent or empty.
    pub(super) fn text(&self, file: &str) -> Option<String> {
        trimmed(&self.own.join(file))
    }

    /// The same of the whole disk.
    pub(super) fn whole_text(&self, file: &str) -> Option<String> {
        trimmed(&self.whole.join(file))
    }

    /// A number of the request queue; zero if the kernel does not show it.
    pub(super) fn limit(&self, name: &str) -> u64 {
        let text = trimmed(&self.whole.join("queue").join(name));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Kernel names of what is built on this device: mappings, arrays.
    pub(super) fn holders(&self) -> Vec<String> {
        names_in(&self.own.join("holders"))
    }

    /// Numbers of the devices below: members of a mapping, the disk of a partition.
    pub(super) fn below(&self) -> Vec<Dev> {
        let slaves = self.own.join("slaves");
        let members = names_in(&slaves).into_iter().map(|name| slaves.join(name));
        let disk = self.is_partition().then(|| self.whole.clone());
        members
            .chain(disk)
            .filter_map(|dir| device_number(&dir))
            .collect()
    }
}

fn device_number(dir: &Path) -> Option<Dev> {
    let text = trimmed(&dir.join("dev"))?;
    let (major, minor) = text.split_once(':')?;
    Some(rustix::fs::makedev(
        major.parse().ok()?,
        minor.parse().ok()?,
    ))
}

fn trimmed(path: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(path).ok()?)
        .trim()
        .to_owned();
    (!text.is_empty()).then_some(text)
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| file_name(&entry.path())).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
