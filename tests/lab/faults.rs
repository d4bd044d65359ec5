//! Crashes of the source host's daemons in the middle of writing.

use e2e::content;
use e2e::disk::NullDisk;
use e2e::site::LINK_PATIENCE;
use e2e::{Run, Site, run};
use std::time::Duration;

/// Sectors of one 4 KiB block carry their block number and the round that wrote them.
fn stamped(block: u64, round: u64) -> Vec<u8> {
    let mut bytes = content::Bytes::new(block << 20 | round).take(4096);
    bytes[..8].copy_from_slice(&block.to_le_bytes());
    bytes[8..16].copy_from_slice(&round.to_le_bytes());
    bytes
}

#[test]
fn after_sigkill_of_the_source_the_replica_is_a_prefix_that_holds_the_barrier() {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let site = Site::new("prefix");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(&device)
        .unwrap();
    // One writer, one block a round: round r lies in block r mod 64, so a prefix of the writes is
    // recognised by its newest round alone.
    let write = |round: u64| file.write_all_at(&stamped(round % 64, round), round % 64 * 4096);
    for round in 0..200 {
        write(round).unwrap();
    }
    let known = 199;
    site.barrier("durable");
    for round in 200..260 {
        write(round).unwrap();
    }
    site.kill_source();
    site.cleanup();
    run::eventually(
        "the receiver has applied what it holds",
        LINK_PATIENCE,
        || site.applied_all_held(),
    );
    let image = std::fs::read(site.export("v0")).unwrap();
    let round_of = |block: usize| {
        let at = block * 4096;
        u64::from_le_bytes(image[at + 8..at + 16].try_into().unwrap())
    };
    let newest = (0..64).map(round_of).max().unwrap();
    assert!(
        newest >= known,
        "the barrier covered round {known}, the replica ends at {newest}"
    );
    for block in 0..64u64 {
        let expected = newest - (newest + 64 - block) % 64;
        let bytes = &image[block as usize * 4096..][..4096];
        assert!(
            bytes == stamped(block, expected),
            "block {block} is not of round {expected}"
        );
    }
}

#[test]
fn cleanup_after_a_crash_ends_waiting_writers_and_leaves_nothing_behind() {
    let site = Site::new("dead");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    site.kill_source();
    let name = device.display().to_string();
    let writer = std::thread::spawn(move || {
        Run::sh(&format!(
            "dd if=/dev/zero of={name} bs=4k count=1 oflag=direct"
        ))
        .done()
    });
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        !writer.is_finished(),
        "a write to a dead tap waits in the kernel"
    );
    site.cleanup();
    assert_ne!(
        writer.join().unwrap().code,
        0,
        "the waiting writer ends with an error"
    );
    assert!(!device.exists());
    let left = std::fs::read_dir(site.path("run").join("dead"))
        .map(Iterator::count)
        .unwrap_or(0);
    assert_eq!(left, 0, "no ring, socket or lock is left behind");
}
