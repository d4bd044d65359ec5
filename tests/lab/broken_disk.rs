//! Disks that fail as disks do: a thin pool without space, medium errors on write and on read. The
//! application gets the error, the replica never shows what the disk refused, and all heals by itself.

use e2e::disk::size_bytes;
use e2e::scsi::{BAD_OFFSET, ScsiDisks};
use e2e::site::LINK_PATIENCE;
use e2e::thin::ThinDisk;
use e2e::{Run, Site, content, run};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const SECTOR: u32 = 4096;

/// Writes `length` bytes of the byte 0xbb at `offset`; what was said if the disk refused them.
fn write(device: &Path, offset: u64, length: u64) -> Result<(), String> {
    let block = 64 << 10;
    let (seek, count) = (offset / block, length / block);
    let line = format!(
        "tr '\\0' '\\273' < /dev/zero | \
         dd of={} bs={block} seek={seek} count={count} iflag=fullblock oflag=direct",
        device.display()
    );
    let done = Run::sh(&line).done();
    match done.code {
        0 => Ok(()),
        _ => Err(done.to_string()),
    }
}

#[track_caller]
fn refused(device: &Path, offset: u64, length: u64, words: &str) {
    let said = write(device, offset, length).expect_err("the error reaches the writer");
    assert!(said.contains(words), "{said}");
}

/// Registers and adds a disk with sectors of 4096 bytes.
fn protect(site: &Site, group: &str, disk: &Path) -> PathBuf {
    let target = site.path("targets").join("v0").display().to_string();
    let (name, size) = (format!("{group}/v0"), size_bytes(disk).to_string());
    let sector = SECTOR.to_string();
    let add = ["volume", "add", &name, "--source", "db1", "--size", &size];
    let how = ["--sector", &sector, "--target", &target];
    site.receiver_cli([&add[..], &how].concat()).ok();
    let device = site.add(disk, "v0", &[]);
    site.wait_mode("async");
    device
}

/// Errors were told, the stream went on, and nothing but what was in doubt was read again.
#[track_caller]
fn went_on(site: &Site, errors: u64) {
    let status = site.status();
    let volume = &status["volumes"][0];
    assert!(volume["disk_errors"].as_u64() >= Some(errors), "{status}");
    assert_eq!(
        (&status["mode"], &volume["copies"]),
        (&"async".into(), &1.into())
    );
}

#[test]
fn a_thin_pool_without_space_fails_writes_above_and_goes_on_when_it_has_grown() {
    let site = Site::new("thin");
    let disk = ThinDisk::new(24, 8, 32);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    write(&device, 0, 4 * MIB).unwrap();
    refused(&device, 8 * MIB, 12 * MIB, "No space left");
    site.assert_replica_equals("v0", &device);
    content::same(&device, disk.path());
    went_on(&site, 1);
    // What is there can still be written, and the rest again when there is room.
    write(&device, MIB, MIB).unwrap();
    refused(&device, 20 * MIB, MIB, "No space left");
    disk.grow();
    write(&device, 8 * MIB, 12 * MIB).unwrap();
    site.assert_replica_equals("v0", &device);
    went_on(&site, 2);
    let removed = site.tap(["remove", "thin"]).ok();
    assert!(removed.stdout.contains("clean"), "{removed}");
}

#[test]
fn writes_that_end_in_a_medium_error_fail_above_and_are_nowhere_on_the_replica() {
    let site = Site::new("medium");
    let disks = ScsiDisks::new(1, 16, SECTOR);
    content::fill(&disks.path(0), 16 * MIB, 31);
    let device = protect(&site, "medium", &disks.path(0));
    disks.fail_writes(0, true);
    for at in [2, 5, 12] {
        refused(&device, at * MIB, 256 << 10, "error");
    }
    site.assert_replica_equals("v0", &device);
    went_on(&site, 3);
    disks.fail_writes(0, false);
    write(&device, 5 * MIB, MIB).unwrap();
    site.assert_replica_equals("v0", &device);
    content::same(&device, &disks.path(0));
    let removed = site.tap(["remove", "medium"]).ok();
    assert!(removed.stdout.contains("clean"), "{removed}");
}

#[test]
fn a_range_that_cannot_be_read_fails_its_reader_only_and_with_its_write_failed_it_is_named() {
    let site = Site::new("worn");
    let disks = ScsiDisks::new(1, 16, SECTOR);
    content::fill(&disks.path(0), 16 * MIB, 32);
    let device = protect(&site, "worn", &disks.path(0));
    disks.fail_reads(true);
    let read = format!(
        "dd if={} of=/dev/null bs=64k skip=128 count=1 iflag=direct",
        device.display()
    );
    assert!(
        Run::sh(&read).done().code != 0,
        "the error reaches the reader"
    );
    // Somebody's read error is no news for the replica.
    write(&device, 2 * MIB, MIB).unwrap();
    let point = site.barrier("applied");
    went_on(&site, 1);

    disks.fail_writes(0, true);
    refused(&device, BAD_OFFSET, 64 << 10, "error");
    disks.fail_writes(0, false);
    run::eventually("the range is named at the source", LINK_PATIENCE, || {
        let status = site.status();
        let reason = format!("{} {}", status["reason"], status["volumes"][0]["reason"]);
        reason.contains("cannot read") && reason.contains("8 MiB")
    });
    run::eventually("and at the receiver", LINK_PATIENCE, || {
        let group = site.receiver_group();
        let reason = group["reason"].as_str().unwrap_or_default();
        group["mode"] == "frozen" && reason.contains("8388608")
    });
    let held = site.receiver_group()["recoverable_stamp"].as_u64();
    assert!(held >= Some(point), "the point before it stays: {held:?}");
    write(&device, 12 * MIB, MIB).unwrap();
    disks.fail_reads(false);
    site.wait_mode("async");
    site.assert_replica_equals("v0", &device);
    content::same(&device, &disks.path(0));
    let removed = site.tap(["remove", "worn"]).ok();
    assert!(removed.stdout.contains("clean"), "{removed}");
}
