//! The standard ublk tool sees our devices, and may take them away under our feet.

use e2e::disk::NullDisk;
use e2e::gap::Writers;
use e2e::rublk::daemon_pid;
use e2e::site::{Daemon, LINK_PATIENCE};
use e2e::{Run, Site, content, kernel, run};
use std::path::Path;
use std::time::Duration;

#[test]
fn rublk_lists_a_tapped_device_and_what_it_deletes_is_said_and_leaves_no_orphan() {
    let site = Site::new("seen");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    content::write_at(&device, 4096, &[7; 4096]);
    let name = kernel::block_name(&device);
    let node = Path::new("/dev").join(&name);
    let number = name.strip_prefix("ublkb").unwrap();
    let listed = Run::new("rublk").args(["list"]).ok().stdout;
    println!("{listed}");
    assert!(listed.contains(&format!("dev id {number}")), "{listed}");
    assert!(listed.contains("ublk-tap"), "{listed}");
    assert_eq!(daemon_pid(&listed), Some(site.pid(Daemon::Tap)), "{listed}");

    let writers = Writers::start(&device, 2, 8 << 20);
    std::thread::sleep(Duration::from_secs(1));
    Run::new("rublk")
        .args(["del", "-n", number, "--async"])
        .ok();
    run::eventually("the group says that it is gone", LINK_PATIENCE, || {
        site.status()["volumes"][0]["state"] == "gone"
    });
    std::thread::sleep(Duration::from_millis(200));
    let seen = writers.end();
    assert!(
        seen.writes > 0 && seen.errors > 0,
        "an error ends them: {seen:?}"
    );
    run::eventually("its node is gone", LINK_PATIENCE, || !node.exists());
    let reason = site.status()["volumes"][0]["reason"].to_string();
    assert!(reason.contains("deleted by somebody else"), "{reason}");
    let removed = site.tap(["remove", "seen"]).ok().stdout;
    assert!(
        removed.contains("clean"),
        "what was written is safe: {removed}"
    );
    assert!(!site.path("run/seen").exists() && !device.exists());
    let left = Run::new("rublk").args(["list"]).ok().stdout;
    assert!(!left.contains("ublk-tap"), "no orphan: {left}");

    let again = site.add_run(disk.path(), "v0", &[]).ok().stdout;
    assert!(again.contains("nothing needs to be copied"), "{again}");
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "seen"]).ok();
}

#[test]
fn rublk_deletes_what_a_killed_tap_has_left() {
    let site = Site::new("left");
    let disk = NullDisk::plain(4);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    let name = kernel::block_name(&device);
    let number = name.strip_prefix("ublkb").unwrap();
    site.kill_source();
    Run::new("rublk").args(["del", "-n", number]).ok();
    assert!(!Path::new("/dev").join(&name).exists());
    let said = site.tap(["recover", "left"]).ok().stdout;
    assert!(said.contains("nothing to recover"), "{said}");
    site.cleanup();
    let added = site.add_run(disk.path(), "v0", &[]).ok().stdout;
    assert!(added.contains("the tap was killed"), "{added}");
    site.wait_mode("async");
    site.assert_replica_equals("v0", &site.device("v0"));
    site.tap(["remove", "left"]).ok();
}
