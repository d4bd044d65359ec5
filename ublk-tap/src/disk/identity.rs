//! What tells a disk from all others, also when its name changes at the next boot (P13).

use super::sysfs::BlockDir;
use rustix::fs::{Dev, major, minor};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longest identity, in bytes; what the link carries.
const IDENTITY_BYTES_MAX: usize = wire::limits::IDENTITY_BYTES_MAX;

/// Identity of a block device, the strongest that can be had.
pub(super) fn of_block(dir: &BlockDir, dev: Dev) -> String {
    let found = if dir.is_partition() {
        of_partition(dir, dev)
    } else {
        of_whole(dir, dev)
    };
    clean(&found.unwrap_or_else(|| format!("name:{}", dir.name())))
}

/// Identity of a regular file: its filesystem's device number and its inode.
pub(super) fn of_file(metadata: &fs::Metadata) -> String {
    let dev = metadata.dev();
    format!("file:{}:{}:{}", major(dev), minor(dev), metadata.ino())
}

fn of_whole(dir: &BlockDir, dev: Dev) -> Option<String> {
    let tagged = |tag: &str, file: &str| dir.whole_text(file).map(|text| format!("{tag}:{text}"));
    tagged("dm", "dm/uuid")
        .or_else(|| tagged("dm-name", "dm/name"))
        .or_else(|| tagged("md", "md/uuid"))
        .or_else(|| tagged("wwn", "wwid"))
        .or_else(|| tagged("wwn", "device/wwid"))
        .or_else(|| tagged("serial", "serial"))
        .or_else(|| tagged("serial", "device/serial"))
        .or_else(|| of_loop(dir))
        .or_else(|| linked("/dev/disk/by-id", dev).map(|name| format!("id:{name}")))
}

fn of_partition(dir: &BlockDir, dev: Dev) -> Option<String> {
    let in_uevent = dir.text("uevent").and_then(|text| {
        let found = text.lines().find_map(|line| line.strip_prefix("PARTUUID="));
        found.map(str::to_owned)
    });
    let uuid = in_uevent.or_else(|| linked("/dev/disk/by-partuuid", dev));
    uuid.map(|uuid| format!("partuuid:{uuid}")).or_else(|| {
        let whole = of_whole(dir, dev)?;
        Some(format!("{whole}-part{}", dir.text("partition")?))
    })
}

/// A loop device is the file behind it.
fn of_loop(dir: &BlockDir) -> Option<String> {
    let file = dir.whole_text("loop/backing_file")?;
    Some(of_file(&fs::metadata(file).ok()?))
}

/// Name of the first link in `links` (in order of names) that leads to device `dev`.
fn linked(links: &str, dev: Dev) -> Option<String> {
    let leads_here = |path: &Path| fs::metadata(path).is_ok_and(|found| found.rdev() == dev);
    let entries = fs::read_dir(links).ok()?.flatten();
    let here = entries.filter(|entry| leads_here(&entry.path()));
    here.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .min()
}

/// Printable ASCII without blanks at the ends, of bounded length.
fn clean(text: &str) -> String {
    let blank = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let text = text.split_whitespace().collect::<Vec<_>>().join("_");
    text.chars().map(blank).take(IDENTITY_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree such as `/sys/devices/.../block` shows for one disk with one partition.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn identity(root: &tempfile::TempDir, dir: &str) -> String {
        of_block(&BlockDir::at(&root.path().join(dir)).unwrap(), 0)
    }

    #[test]
    fn the_strongest_name_wins_and_is_made_printable() {
        let files = [
            ("sda/device/wwid", "naa.5000c500a1b2c3d4\n"),
            ("sda/device/serial", "Z1"),
        ];
        assert_eq!(identity(&tree(&files), "sda"), "wwn:naa.5000c500a1b2c3d4");
        let files = [("dm-0/dm/uuid", "LVM-abc"), ("dm-0/wwid", "x")];
        assert_eq!(identity(&tree(&files), "dm-0"), "dm:LVM-abc");
        let files = [("vda/serial", " a  b\u{e9}\n")];
        assert_eq!(identity(&tree(&files), "vda"), "serial:a_b_");
    }

    #[test]
    fn a_partition_is_known_by_its_own_uuid_or_by_its_place_on_the_disk() {
        let files = [
            ("sda/sda1/partition", "1\n"),
            ("sda/sda1/uevent", "X=1\nPARTUUID=12-34\n"),
        ];
        assert_eq!(identity(&tree(&files), "sda/sda1"), "partuuid:12-34");
        let files = [("sda/wwid", "w"), ("sda/sda2/partition", "2\n")];
        assert_eq!(identity(&tree(&files), "sda/sda2"), "wwn:w-part2");
    }

    #[test]
    fn a_disk_without_any_name_of_its_own_is_known_by_the_kernels() {
        assert_eq!(
            identity(&tree(&[("nullb0/size", "8\n")]), "nullb0"),
            "name:nullb0"
        );
    }
}
