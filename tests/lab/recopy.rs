//! When history is in doubt the disk is copied again, by itself; when it is not, it is not.

use e2e::content;
use e2e::disk::NullDisk;
use e2e::{Run, Site};
use std::fs;

fn copied_bytes(site: &Site) -> u64 {
    site.status()["volumes"][0]["copied_bytes"]
        .as_u64()
        .unwrap_or(0)
}

#[test]
fn a_disk_full_of_data_is_copied_while_in_use_over_a_target_full_of_garbage() {
    let site = Site::new("seed");
    let disk = NullDisk::plain(24);
    content::fill(disk.path(), 12 << 20, 3);
    let target = site.register("v0", 24 << 20, 1).remove(0);
    // What the target holds is garbage, also where the disk has only zeroes.
    content::fill(&target, 24 << 20, 99);
    let device = site.add(disk.path(), "v0", &[]);
    content::write_at(&device, 5 << 20, &content::Bytes::new(8).take(300 * 1024));
    content::write_at(&device, 20 << 20, &content::Bytes::new(9).take(64 * 1024));
    site.wait_mode("async");
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "seed"]).ok();
}

#[test]
fn after_a_clean_stop_nothing_is_copied_and_after_a_mount_of_the_raw_disk_everything_is() {
    let site = Site::new("clean");
    let disk = NullDisk::plain(24);
    let device = site.protect(disk.path(), "v0");
    Run::new("mkfs.ext4")
        .args(["-q", "-F", &device.display().to_string()])
        .ok();
    site.wait_mode("async");
    site.barrier("applied");
    site.tap(["remove", "clean"]).ok();

    let device = site.add(disk.path(), "v0", &[]);
    site.wait_mode("async");
    assert_eq!(
        copied_bytes(&site),
        0,
        "a clean disk must not be copied again"
    );
    content::write_at(&device, 20 << 20, b"still one history");
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "clean"]).ok();

    let root = site.mount(disk.path(), "rw");
    fs::write(root.join("behind-our-back"), b"written to the raw disk").unwrap();
    site.umount();
    let device = site.add(disk.path(), "v0", &[]);
    site.assert_replica_equals("v0", &device);
    assert!(
        copied_bytes(&site) > 0,
        "a changed disk must be copied again"
    );
    site.tap(["remove", "clean"]).ok();
}

#[test]
fn after_a_reboot_with_the_ring_gone_the_disk_is_copied_again_by_itself() {
    let site = Site::new("boot");
    let disk = NullDisk::plain(24);
    let device = site.protect(disk.path(), "v0");
    content::fill(&device, 3 << 20, 21);
    site.barrier("durable");
    content::fill(&device, 2 << 20, 22);
    site.kill_source();
    site.cleanup();
    // A reboot empties the run directory.
    fs::remove_dir_all(site.path("run")).unwrap();
    fs::create_dir(site.path("run")).unwrap();
    content::write_at(disk.path(), 9 << 20, &[7; 4096]);
    let device = site.add(disk.path(), "v0", &[]);
    site.assert_replica_equals("v0", &device);
    assert!(
        copied_bytes(&site) > 0,
        "without a clean mark the disk is copied"
    );
    site.tap(["remove", "boot"]).ok();
}

#[test]
fn while_a_recopy_runs_the_old_point_stays_complete() {
    let mut site = Site::new("old");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    content::fill(&device, 4 << 20, 31);
    site.barrier("applied");
    let before = site.export("v0");
    content::fill(&device, 4 << 20, 32);
    site.kill_source();
    site.cleanup();

    // The new copy is cut off in the middle: the point before it must be what the receiver gives.
    let device = site.add(disk.path(), "v0", &[]);
    site.kill_source();
    site.cleanup();
    site.signal_receiver(e2e::site::Signal::Kill);
    site.start_receiver();
    let after = site.export("v0");
    let recoverable = site.receiver_status().to_string();
    assert!(recoverable.contains("recoverable_to"), "{recoverable}");
    let equal = |seed| {
        let mut expected = content::Bytes::new(seed).take(1 << 20);
        let head = fs::read(&after).unwrap();
        expected.truncate(4096);
        head[..4096] == expected[..]
    };
    assert!(
        equal(31) || equal(32),
        "the export is one of the two complete states"
    );
    if equal(31) {
        content::same(&before, &after);
    }
    drop(device);
}
