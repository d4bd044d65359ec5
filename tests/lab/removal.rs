//! A removal that is cut off.

use e2e::disk::{Mapped, NullDisk, size_bytes};
use e2e::site::LINK_PATIENCE;
use e2e::{Run, Site, content, kernel, run};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::thread::{sleep, spawn};
use std::time::Duration;

/// Processes that sync a device for a tap.
fn holders() -> String {
    Run::new("pgrep")
        .args(["-f", "[h]old /dev/ublkb"])
        .done()
        .stdout
}

#[test]
fn a_tap_killed_while_a_removal_has_the_cache_written_is_recovered_and_nothing_is_lost() {
    kernel::module("dm_delay");
    let site = Site::new("sync");
    let disk = NullDisk::plain(4);
    let (sectors, below) = (size_bytes(disk.path()) / 512, disk.path().display());
    let table = format!("0 {sectors} delay {below} 0 0 {below} 0 4000");
    let slow = Mapped::new("ut-sync", &table);
    let device = site.protect(slow.path(), "v0");
    site.wait_mode("async");
    let cached = content::Bytes::new(5).take(256 << 10);
    let file = OpenOptions::new().write(true).open(&device).unwrap();
    file.write_all_at(&cached, 1 << 20).unwrap();
    let removal = site.tap(["remove", "sync"]);
    let removal = spawn(move || removal.done());
    run::eventually("the cache is being written", LINK_PATIENCE, || {
        !holders().is_empty()
    });
    sleep(Duration::from_millis(300));
    site.kill_source();
    assert_ne!(removal.join().unwrap().code, 0, "it was cut off");
    let said = site.tap(["recover", "sync"]).ok().stdout;
    assert!(said.contains("sync/v0 is served again"), "{said}");
    // Not before: closing it would have had it written.
    drop(file);
    run::eventually("whoever synced has ended", LINK_PATIENCE, || {
        holders().is_empty()
    });
    site.assert_replica_equals("v0", &device);
    let raw = std::fs::read(disk.path()).unwrap();
    assert!(
        raw[1 << 20..][..cached.len()] == cached,
        "it is on the disk"
    );
    assert_eq!(site.status()["volumes"][0]["copies"], 1);
    let removed = site.tap(["remove", "sync"]).ok().stdout;
    assert!(removed.contains("clean"), "{removed}");
}
