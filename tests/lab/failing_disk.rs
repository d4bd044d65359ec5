//! A disk that refuses: the application is told, the replica never shows what the disk does not hold.

use e2e::disk::{Mapped, NullDisk, size_bytes};
use e2e::site::LINK_PATIENCE;
use e2e::{Run, Site, content, run};
use std::path::Path;

const MIB: u64 = 1 << 20;
const SIZE_MIB: u64 = 16;

/// `disk`, but for its ninth MiB, which is `what` (a target and its arguments).
fn table(disk: &Path, what: &str) -> String {
    let (disk, mib) = (disk.display(), MIB / 512);
    let tail = size_bytes(Path::new(&disk.to_string())) / 512 - 9 * mib;
    format!(
        "0 {0} linear {disk} 0\n{0} {mib} {what}\n{1} {tail} linear {disk} {1}",
        8 * mib,
        9 * mib
    )
}

fn refusing_writes(disk: &Path) -> String {
    let start = 8 * MIB / 512;
    let target = format!("flakey {} {start} 0 1 1 error_writes", disk.display());
    table(disk, &target)
}

/// Writes `length` bytes of the byte 0xbb at `offset`; whether the disk took them.
fn write(device: &Path, offset: u64, length: u64) -> bool {
    let block = 64 << 10;
    let (seek, count) = (offset / block, length / block);
    let line = format!(
        "tr '\\0' '\\273' < /dev/zero | \
         dd of={} bs={block} seek={seek} count={count} iflag=fullblock oflag=direct",
        device.display()
    );
    Run::sh(&line).done().code == 0
}

#[test]
fn a_write_the_disk_refuses_fails_above_and_is_nowhere_on_the_replica() {
    let site = Site::new("refuse");
    let disk = NullDisk::plain(SIZE_MIB as u32);
    content::fill(disk.path(), SIZE_MIB * MIB, 21);
    let below = Mapped::new("ut-refuse", &refusing_writes(disk.path()));
    let device = site.protect(below.path(), "v0");
    site.wait_mode("async");
    assert!(write(&device, 2 * MIB, MIB));
    assert!(
        !write(&device, 8 * MIB, MIB),
        "the error reaches the writer"
    );
    assert!(
        !write(&device, 8 * MIB - (64 << 10), 128 << 10),
        "a write that is refused in part fails"
    );
    assert!(write(&device, 12 * MIB, MIB));
    site.assert_replica_equals("v0", &device);
    content::same(&device, disk.path());
    let status = site.status();
    let errors = status["volumes"][0]["disk_errors"].as_u64();
    assert!(errors >= Some(2), "{status}");
    assert_eq!(
        (&status["mode"], &status["volumes"][0]["copies"]),
        (&"async".into(), &1.into())
    );
    site.tap(["remove", "refuse"]).ok();
    site.add_run(below.path(), "v0", &[]).ok();
    assert_eq!(
        site.status()["volumes"][0]["copies"],
        0,
        "left clean, nothing is copied"
    );
    site.tap(["remove", "refuse"]).ok();
}

#[test]
fn a_range_that_cannot_be_read_after_its_write_failed_is_named_and_heals_by_itself() {
    let site = Site::new("hole");
    let disk = NullDisk::plain(SIZE_MIB as u32);
    content::fill(disk.path(), SIZE_MIB * MIB, 22);
    let whole = format!(
        "0 {} linear {} 0",
        SIZE_MIB * MIB / 512,
        disk.path().display()
    );
    let below = Mapped::new("ut-hole", &whole);
    let device = site.protect(below.path(), "v0");
    site.wait_mode("async");
    let point = site.barrier("applied");
    below.reload(&table(disk.path(), "error"));
    assert!(!write(&device, 8 * MIB, 64 << 10));
    run::eventually("the range is named", LINK_PATIENCE, || {
        let status = site.status();
        let reason = format!("{} {}", status["reason"], status["volumes"][0]["reason"]);
        reason.contains("8388608") || reason.contains("8 MiB")
    });
    assert!(
        write(&device, 12 * MIB, 64 << 10),
        "the rest of the disk works"
    );
    let group = site.receiver_group();
    let held = group["recoverable_stamp"].as_u64();
    assert!(
        held >= Some(point),
        "the last complete point stays: {group}"
    );
    below.reload(&whole);
    site.wait_mode("async");
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "hole"]).ok();
}
