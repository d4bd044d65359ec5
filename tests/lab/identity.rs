//! Disks and state files that are not what they were: refused, or copied again (P5, P13).

use e2e::disk::{Loop, Mapped, NullDisk};
use e2e::scsi::ScsiDisks;
use e2e::{Run, Site, content};
use std::fs;

const MIB: u64 = 1 << 20;
const REFUSED: i32 = 3;

fn copies(site: &Site, at: usize) -> u64 {
    site.status()["volumes"][at]["copies"].as_u64().unwrap()
}

#[test]
fn disks_that_swap_their_names_at_a_boot_are_refused_under_the_old_and_go_on_under_the_new() {
    let site = Site::new("swapped");
    let disks = ScsiDisks::new(2, 16, 512);
    let names = ["a", "b"];
    for (at, volume) in names.iter().enumerate() {
        content::fill(&disks.path(at), 16 * MIB, 40 + at as u64);
        site.protect(&disks.path(at), volume);
    }
    site.wait_mode("async");
    site.barrier("applied");
    site.tap(["remove", "swapped"]).ok();

    disks.renumber();
    let wrong = site.add_run(&disks.path(1), "a", &[]).refused(REFUSED);
    wrong.says("is bound to disk");
    for (at, volume) in names.iter().enumerate() {
        let device = site.add(&disks.path(at), volume, &[]);
        site.wait_mode("async");
        assert_eq!(copies(&site, at), 0, "{volume} is the disk it was");
        content::write_at(&device, 5 * MIB, volume.as_bytes());
        site.assert_replica_equals(volume, &device);
    }
    site.tap(["remove", "swapped"]).ok();
}

#[test]
fn a_clean_mark_from_an_old_copy_of_the_state_file_is_not_believed() {
    let site = Site::new("restored");
    let below = NullDisk::plain(16);
    content::fill(below.path(), 16 * MIB, 51);
    let table = format!("0 {} linear {} 0", 16 * MIB / 512, below.path().display());
    let disk = Mapped::new("ut-restored", &table);
    site.protect(disk.path(), "v0");
    site.wait_mode("async");
    site.tap(["remove", "restored"]).ok();
    let (state, old) = (site.path("state").join("restored.state"), site.path("old"));
    fs::copy(&state, &old).unwrap();

    // Written in the middle, where no fingerprint looks, and left clean once more.
    let device = site.add(disk.path(), "v0", &[]);
    content::fill(&device, 9 * MIB, 52);
    content::write_at(&device, 0, &content::Bytes::new(51).take(2 << 20));
    site.wait_mode("async");
    assert_eq!(copies(&site, 0), 0);
    site.tap(["remove", "restored"]).ok();
    fs::copy(&old, &state).unwrap();
    // As after a reboot: the kernel has forgotten how often it was written.
    drop(disk);
    let disk = Mapped::new("ut-restored", &table);

    let device = site.add(disk.path(), "v0", &[]);
    site.assert_replica_equals("v0", &device);
    assert_eq!(copies(&site, 0), 1, "the receiver has it copied");
    site.tap(["remove", "restored"]).ok();
}

#[test]
fn a_disk_written_behind_our_back_is_copied_again_wherever_that_was() {
    let site = Site::new("behind");
    let disk = NullDisk::plain(16);
    content::fill(disk.path(), 16 * MIB, 61);
    site.protect(disk.path(), "v0");
    site.wait_mode("async");
    site.tap(["remove", "behind"]).ok();
    site.add(disk.path(), "v0", &[]);
    assert_eq!(copies(&site, 0), 0, "nobody has written");
    site.tap(["remove", "behind"]).ok();
    content::write_at(disk.path(), 9 * MIB, &[7; 4096]);
    let device = site.add(disk.path(), "v0", &[]);
    assert_eq!(copies(&site, 0), 1);
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "behind"]).ok();
}

#[test]
fn a_state_that_lies_on_the_disk_or_on_its_own_device_is_refused() {
    let site = Site::new("inside");
    let image = site.path("image");
    fs::File::create(&image).unwrap().set_len(64 * MIB).unwrap();
    Run::new("mkfs.ext4").args(["-q", "-F"]).args([&image]).ok();
    let below = Loop::new(&image);
    let state = site.path("state").display().to_string();
    let keep = format!("cp -a {state} {state}.kept");
    Run::sh(&keep).ok();
    let mount = |device: &std::path::Path| {
        Run::sh(&format!(
            "mount {} {state} && cp -a {state}.kept/. {state}/",
            device.display()
        ))
        .ok();
    };
    // The file is not the mounted device, and yet the state would wait for it.
    mount(below.path());
    site.register("v0", 64 * MIB, 1);
    site.add_run(&image, "v0", &[])
        .refused(REFUSED)
        .says("is used by /dev/loop");
    Run::new("umount").args([&state]).ok();

    let disk = NullDisk::plain(64);
    let device = site.add(disk.path(), "v0", &[]);
    site.wait_mode("async");
    site.barrier("applied");
    Run::new("mkfs.ext4")
        .args(["-q", "-F"])
        .args([&device])
        .ok();
    mount(&device);
    let other = NullDisk::plain(16);
    site.register("v1", 16 * MIB, 1);
    site.add_run(other.path(), "v1", &[])
        .refused(REFUSED)
        .says("would wait for itself");
    Run::new("umount").args([&state]).ok();
    site.tap(["remove", "inside"]).ok();
}
