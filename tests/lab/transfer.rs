//! The way of the bytes on kernels without user copy, asked for by the setting.

use crate::recover::Busy;
use e2e::Site;
use e2e::disk::NullDisk;
use e2e::site::LINK_PATIENCE;
use serde_json::Value;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

fn number(status: &Value, key: &str) -> u64 {
    status["volumes"][0][key].as_u64().unwrap()
}

#[test]
fn without_user_copy_bytes_come_in_two_steps_and_a_killed_tap_is_recovered_all_the_same() {
    let site = Site::new("staged");
    let settings = "transfer = \"staged\"\npark_ms = 60000\n";
    fs::write(site.path("etc").join("staged.toml"), settings).unwrap();
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    let busy = Busy::new(&device);
    sleep(Duration::from_secs(4));
    assert!(number(&site.status(), "captured_bytes") > 0);
    site.kill_source();
    // A device keeps the way it was made with, whatever the setting says now.
    fs::write(
        site.path("etc").join("staged.toml"),
        "transfer = \"user-copy\"\n",
    )
    .unwrap();
    site.tap(["recover", "staged"]).ok();
    sleep(Duration::from_secs(3));
    busy.end();
    let status = site.status();
    let written = number(&status, "captured_bytes");
    assert!(written > 0, "{status}");
    assert_eq!(number(&status, "memory_copied_bytes"), 2 * written);
    site.assert_replica_equals("v0", &device);
    assert_eq!(number(&site.status(), "copies"), 1, "nothing was copied");
    site.tap(["remove", "staged"]).within(LINK_PATIENCE).ok();
}
