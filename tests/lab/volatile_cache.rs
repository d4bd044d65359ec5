//! FLUSH and FUA really arrive at the disk below: recorded there by dm-log-writes (P1).

use e2e::disk::{Mapped, NullDisk, NullSettings, size_bytes};
use e2e::run::eventually;
use e2e::{Run, Site, kernel, log_writes};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[test]
fn flush_and_fua_reach_a_disk_with_a_volatile_cache() {
    let site = Site::new("cache");
    let _disks = flush_and_fua_arrive(&site, |disk| site.protect(disk, "v0"));
    site.tap(["remove", "cache"]).ok();
}

/// Fails unless a sync and a synchronous write to the device `protect` makes of a disk, as volume
/// `v0` of `site`, arrive at that disk. The disks go with what is given back.
pub(crate) fn flush_and_fua_arrive(
    site: &Site,
    protect: impl FnOnce(&Path) -> PathBuf,
) -> (Mapped, [NullDisk; 2]) {
    kernel::module("dm_log_writes");
    let disk = NullDisk::new(NullSettings {
        cache_mib: 4,
        ..NullSettings::plain(16)
    });
    let log = NullDisk::plain(64);
    let sectors = size_bytes(disk.path()) / 512;
    let table = format!(
        "0 {sectors} log-writes {} {}",
        disk.path().display(),
        log.path().display()
    );
    let witness = Mapped::new("ut-witness", &table);
    let device = protect(witness.path());
    let queue = format!("/sys/block/{}/queue", kernel::block_name(&device));
    let cache = fs::read_to_string(format!("{queue}/write_cache")).unwrap();
    assert_eq!(
        cache.trim(),
        "write back",
        "the cache below must be advertised above"
    );
    site.wait_mode("async");

    let name = device.display().to_string();
    let mut marks = 0;
    let mut seen = || {
        // The log is written behind the device, in order: with the mark all before it is there.
        witness.message("mark here");
        marks += 1;
        let mut entries = Vec::new();
        eventually("the mark is in the log", Duration::from_secs(20), || {
            entries = log_writes::entries(log.path());
            entries.iter().filter(|e| e.is_mark()).count() == marks
        });
        let data = |e: &&log_writes::Entry| !e.is_mark() && e.sectors > 0;
        (
            entries.iter().filter(|e| e.is_flush()).count(),
            entries.iter().filter(data).filter(|e| e.is_fua()).count(),
        )
    };
    let (flushes, _) = seen();
    Run::sh(&format!(
        "dd if=/dev/urandom of={name} bs=4k count=4 conv=fsync"
    ))
    .ok();
    assert!(seen().0 > flushes, "an fsync must arrive below as a FLUSH");

    let (flushes, forced) = seen();
    Run::sh(&format!(
        "dd if=/dev/urandom of={name} bs=4k count=4 oflag=direct,dsync"
    ))
    .ok();
    let after = seen();
    assert!(
        after.1 > forced || after.0 > flushes,
        "a synchronous write must arrive below as FUA, or be followed by a FLUSH"
    );
    let fua = fs::read_to_string(format!("{queue}/fua")).unwrap_or_default();
    assert!(
        fua.trim() != "1" || after.1 > forced,
        "FUA is advertised, so it must arrive as FUA"
    );
    site.assert_replica_equals("v0", &device);
    (witness, [disk, log])
}
