//! A disk resized while it is tapped: named, not followed.

use e2e::disk::{Mapped, NullDisk, size_bytes};
use e2e::run::eventually;
use e2e::{Site, content};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const REFUSED: i32 = 3;

#[test]
fn a_disk_that_grows_and_one_that_shrinks_are_named_and_the_device_stays_as_it_was() {
    let site = Site::new("sized");
    let disk = NullDisk::plain(24);
    content::fill(disk.path(), 24 * MIB, 61);
    let table = |mib: u64| format!("0 {} linear {} 0", mib * MIB / 512, disk.path().display());
    let below = Mapped::new("ut-sized", &table(16));
    let device = site.protect(below.path(), "v0");
    site.wait_mode("async");
    let named = |words: &str| {
        eventually(words, Duration::from_secs(60), || {
            let reason = site.status()["volumes"][0]["reason"].to_string();
            reason.contains(words)
        });
        assert_eq!(size_bytes(&device), 16 * MIB);
    };
    below.reload(&table(20));
    named("grew from 16 MiB");
    content::write_at(&device, 15 * MIB, &[7; 8192]);
    site.assert_replica_equals("v0", &device);
    assert_eq!(site.status()["volumes"][0]["copies"], 1);

    below.reload(&table(12));
    named("shrank from 16 MiB");
    below.reload(&table(16));
    eventually("nothing is said", Duration::from_secs(60), || {
        site.status()["volumes"][0]["reason"] == ""
    });
    site.wait_mode("async");
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "sized"]).ok();

    below.reload(&table(20));
    site.add_run(below.path(), "v0", &[])
        .refused(REFUSED)
        .says("undo the change, or start over");
}
