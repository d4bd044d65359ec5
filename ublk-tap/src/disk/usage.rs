//! Who uses a disk already, in words.

use super::sysfs::BlockDir;
use rustix::fs::{Dev, major, minor};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A use that excludes ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Mounted there.
    Mounted(String),
    /// Part of this.
    By(String),
}

/// Who uses block device `dev`, as far as the kernel tells.
pub(super) fn of_block(dev: Dev, dir: Option<&BlockDir>) -> Option<Use> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let holder = || dir.and_then(|dir| dir.holders().into_iter().next());
    mounted_at(&mounts, dev)
        .map(Use::Mounted)
        .or_else(|| holder().map(|name| Use::By(format!("/dev/{name}"))))
        .or_else(|| swap_on(&swaps, |path| is_device(path, dev)).map(Use::By))
}

/// Who uses a regular file: a loop device or swap.
pub(super) fn of_file(path: &Path) -> Option<Use> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let same = |other: &Path| is_same_file(path, other);
    loop_over(path)
        .or_else(|| swap_on(&swaps, same))
        .map(Use::By)
}

fn mounted_at(mountinfo: &str, dev: Dev) -> Option<String> {
    let number = format!("{}:{}", major(dev), minor(dev));
    let fields = mountinfo
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let ours = fields.filter(|fields| fields.get(2) == Some(&number.as_str()));
    ours.filter_map(|fields| fields.get(4).map(|at| unescaped(at)))
        .next()
}

fn swap_on(swaps: &str, is_ours: impl Fn(&Path) -> bool) -> Option<String> {
    let paths = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    let found = paths.map(unescaped).find(|path| is_ours(Path::new(path)));
    found.map(|path| format!("swap ({path})"))
}

fn loop_over(path: &Path) -> Option<String> {
    let devices = fs::read_dir("/sys/block").ok()?.flatten();
    let loops = devices.filter_map(|entry| {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        Some((entry.file_name(), file))
    });
    let mut over = loops.filter(|(_, file)| is_same_file(path, Path::new(file.trim_end())));
    over.next()
        .map(|(name, _)| format!("/dev/{}", name.to_string_lossy()))
}

fn is_device(path: &Path, dev: Dev) -> bool {
    fs::metadata(path).is_ok_and(|found| found.rdev() == dev)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let key = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|found| (found.dev(), found.ino()))
    };
    key(one).is_some() && key(one) == key(other)
}

/// The kernel writes blanks in these tables as `\040`.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_device_number_and_named_with_its_blanks() {
        let mounts = "22 1 8:1 / /boot rw - ext4 /dev/sda1 rw\n\
                      23 1 253:7 / /srv/my\\040data rw - xfs /dev/nbd0 rw\n";
        let dev = rustix::fs::makedev(253, 7);
        assert_eq!(mounted_at(mounts, dev).as_deref(), Some("/srv/my data"));
        assert_eq!(mounted_at(mounts, rustix::fs::makedev(8, 2)), None);
    }

    #[test]
    fn swap_is_named() {
        let swaps = "Filename Type Size Used Priority\n/dev/sdb partition 1 0 -2\n";
        let found = swap_on(swaps, |path| path == Path::new("/dev/sdb"));
        assert_eq!(found.as_deref(), Some("swap (/dev/sdb)"));
    }
}
