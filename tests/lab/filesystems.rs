//! Real filesystems, made and filled through the tap, are byte for byte on the replica.

use e2e::content;
use e2e::disk::NullDisk;
use e2e::{Run, Site};
use std::path::Path;

const FILES: u64 = 120;

pub(crate) fn fill_tree(root: &Path, seed: u64) {
    let mut bytes = content::Bytes::new(seed);
    for n in 0..FILES {
        let folder = root.join(format!("d{}", n % 7));
        std::fs::create_dir_all(&folder).unwrap();
        let length = 1 + bytes.below(200_000) as usize;
        std::fs::write(folder.join(format!("f{n}")), bytes.take(length)).unwrap();
    }
    for n in (0..FILES).step_by(5) {
        std::fs::remove_file(root.join(format!("d{}", n % 7)).join(format!("f{n}"))).unwrap();
    }
    Run::new("sync").ok();
}

fn a_filesystem_is_replicated(kind: &str, size_mib: u32, mkfs: &[&str]) {
    let site = Site::new("fs");
    let disk = NullDisk::plain(size_mib);
    let device = site.protect(disk.path(), kind);
    let name = device.display().to_string();
    Run::new(mkfs[0]).args(&mkfs[1..]).args([&name]).ok();
    let root = site.mount(&device, "rw");
    fill_tree(&root, 0xf5);
    site.umount();
    site.assert_replica_equals(kind, &device);
    site.assert_replica_equals(kind, disk.path());
    site.tap(["remove", "fs"]).ok();
}

#[test]
fn ext4_made_filled_and_synced_is_byte_for_byte_on_the_replica() {
    a_filesystem_is_replicated("ext4", 64, &["mkfs.ext4", "-q", "-F"]);
}

#[test]
fn xfs_made_filled_and_synced_is_byte_for_byte_on_the_replica() {
    a_filesystem_is_replicated("xfs", 320, &["mkfs.xfs", "-q", "-f"]);
}

#[test]
fn btrfs_made_filled_and_synced_is_byte_for_byte_on_the_replica() {
    a_filesystem_is_replicated("btrfs", 128, &["mkfs.btrfs", "-q", "-f"]);
}
