//! Each mistake gets one clear line, a documented exit code, and nothing changes.

use e2e::content;
use e2e::disk::NullDisk;
use e2e::{Run, Site};
use std::fs;

/// Exit codes of `docs/operating.md`.
const REFUSED: i32 = 3;
const UNREACHABLE: i32 = 4;
const NO_SPACE: i32 = 6;

fn nothing_was_made(site: &Site, volume: &str) {
    assert!(
        !site.device(volume).exists(),
        "no device may be left behind"
    );
}

#[test]
fn a_disk_that_is_mounted_or_already_tapped_is_refused() {
    let site = Site::new("busy");
    let disk = NullDisk::plain(16);
    site.register("v0", 16 << 20, 1);
    site.register("v1", 16 << 20, 1);
    Run::new("mkfs.ext4")
        .args(["-q", "-F", &disk.path().display().to_string()])
        .ok();
    site.mount(disk.path(), "rw");
    site.add_run(disk.path(), "v0", &[])
        .refused(REFUSED)
        .says("is mounted on");
    nothing_was_made(&site, "v0");
    site.umount();
    site.add(disk.path(), "v0", &[]);
    site.add_run(disk.path(), "v1", &[]).refused(REFUSED);
    nothing_was_made(&site, "v1");
    site.tap(["remove", "busy"]).ok();
}

#[test]
fn a_file_that_is_not_a_multiple_of_the_sector_size_is_refused() {
    let site = Site::new("odd");
    let file = site.path("odd.img");
    fs::write(&file, vec![0; 10_000]).unwrap();
    site.add_run(&file, "v0", &[])
        .refused(REFUSED)
        .says("multiple");
    nothing_was_made(&site, "v0");
}

#[test]
fn another_size_a_foreign_volume_and_another_disk_are_refused_before_anything_is_written() {
    let site = Site::new("wrong");
    let disk = NullDisk::plain(16);
    content::fill(disk.path(), 1 << 20, 5);
    site.add_run(disk.path(), "nobody", &[])
        .refused(REFUSED)
        .says("wrong/nobody");
    site.register("small", 8 << 20, 1);
    let target = site.path("targets").join("small.0");
    site.add_run(disk.path(), "small", &[])
        .refused(REFUSED)
        .says("size");
    nothing_was_made(&site, "small");
    assert!(
        fs::read(&target).unwrap().iter().all(|byte| *byte == 0),
        "nothing was written"
    );

    site.register("v0", 16 << 20, 1);
    site.add(disk.path(), "v0", &[]);
    site.wait_mode("async");
    site.barrier("durable");
    site.tap(["remove", "wrong"]).ok();
    let other = NullDisk::plain(16);
    site.add_run(other.path(), "v0", &[]).refused(REFUSED);
    nothing_was_made(&site, "v0");
}

#[test]
fn a_source_that_has_not_joined_or_was_revoked_is_refused() {
    let site = Site::unenrolled("alien");
    let disk = NullDisk::plain(16);
    site.add_run(disk.path(), "v0", &[])
        .refused(REFUSED)
        .says("join");
    let token = site.receiver_cli(["token", "--source", "db1"]).ok().stdout;
    site.tap(["join", token.trim()]).ok();
    site.tap(["join", token.trim(), "--force"])
        .refused(REFUSED)
        .says("token");
    site.receiver_cli(["revoke", "db1"]).ok();
    site.add_run(disk.path(), "v0", &[]).refused(REFUSED);
    nothing_was_made(&site, "v0");
}

#[test]
fn an_unreachable_receiver_is_named_and_offline_goes_on_without_it() {
    let mut site = Site::new("away");
    let disk = NullDisk::plain(16);
    site.register("v0", 16 << 20, 1);
    site.signal_receiver(e2e::site::Signal::Terminate);
    let address = site.address().to_owned();
    site.add_run(disk.path(), "v0", &["--timeout", "3s"])
        .refused(UNREACHABLE)
        .says(&address);
    nothing_was_made(&site, "v0");
    let device = site.add(disk.path(), "v0", &["--offline"]);
    content::write_at(&device, 0, &[9; 4096]);
    site.start_receiver();
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "away"]).ok();
}

#[test]
fn an_unknown_group_and_a_ring_that_does_not_fit_are_named() {
    let site = Site::new("tight");
    site.tap(["status", "nosuch"])
        .refused(REFUSED)
        .says("nosuch");
    site.tap(["remove", "nosuch/v0"])
        .refused(REFUSED)
        .says("nosuch");
    site.tap(["barrier", "nosuch", "--wait", "durable"])
        .refused(REFUSED)
        .says("nosuch");
    let disk = NullDisk::plain(16);
    site.register("v0", 16 << 20, 1);
    let run = site.path("run").display().to_string();
    Run::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", &run])
        .ok();
    let done = site.add_run(disk.path(), "v0", &[]).refused(NO_SPACE);
    Run::new("umount").args(["-l", &run]).ok();
    done.says("MiB");
    nothing_was_made(&site, "v0");
}
