//! Disks of the receiver that fail: a target does not stop the journal, a journal acknowledges
//! nothing it could not sync, and neither leaves a silent gap.

use e2e::disk::{Mapped, NullDisk, NullSettings, size_bytes};
use e2e::filesystem::Mounted;
use e2e::run::eventually;
use e2e::site::{LINK_PATIENCE, Signal};
use e2e::{Site, content};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn whole(disk: &Path, target: &str) -> String {
    let sectors = size_bytes(disk) / 512;
    match target {
        "error" => format!("0 {sectors} error"),
        "linear" => format!("0 {sectors} linear {} 0", disk.display()),
        flakey => format!("0 {sectors} flakey {} 0 {flakey}", disk.display()),
    }
}

/// A word of the group's status at the receiver.
fn said(site: &Site, key: &str) -> String {
    let group = site.receiver_group();
    group[key].as_str().unwrap_or_default().to_owned()
}

fn number(site: &Site, key: &str) -> u64 {
    site.receiver_group()[key].as_u64().unwrap_or(0)
}

#[track_caller]
fn not_copied_again(site: &Site) {
    let status = site.status();
    assert_eq!(status["volumes"][0]["copies"], 1, "{status}");
}

#[test]
fn a_target_that_fails_stops_neither_journal_nor_points_and_catches_up_when_it_is_back() {
    let mut site = Site::new("behind");
    let (disk, below) = (NullDisk::plain(16), NullDisk::plain(16));
    let target = Mapped::new("ut-target", &whole(below.path(), "linear"));
    site.register_on("v0", 16 * MIB, &[target.path().to_owned()]);
    let device = site.add(disk.path(), "v0", &[]);
    site.wait_mode("async");
    content::fill(&device, MIB, 41);
    site.assert_replica_equals("v0", &device);

    // No write is taken; then neither read nor write; then in turns, a second each.
    for (round, fault) in ["0 1 1 error_writes", "error", "1 1 1 error_writes"]
        .iter()
        .enumerate()
    {
        target.reload(&whole(below.path(), fault));
        if round == 1 {
            // A start finds it as it is: what cannot be read is not what somebody changed.
            site.signal_receiver(Signal::Kill);
            site.start_receiver();
            eventually("the link is up", LINK_PATIENCE, || {
                site.status()["link"] == "up"
            });
            let reason = said(&site, "reason");
            assert!(reason.contains("cannot read target"), "{reason}");
        }
        let (from, seed) = (2 + 4 * round as u64, 50 + round as u64);
        let bytes = content::Bytes::new(seed).take(2 << 20);
        content::write_at(&device, from * MIB, &bytes);
        let stamp = site.barrier("durable");
        assert!(number(&site, "recoverable_stamp") >= stamp, "points go on");
        if round < 2 {
            eventually("it is said", LINK_PATIENCE, || {
                said(&site, "mode") == "behind"
            });
            let reason = said(&site, "reason");
            assert!(reason.contains("ut-target"), "{reason}");
            assert!(reason.contains("the journal goes on"), "{reason}");
            assert!(number(&site, "applied") < stamp);
        } else {
            std::thread::sleep(Duration::from_secs(6));
        }
        target.reload(&whole(below.path(), "linear"));
        site.assert_replica_equals("v0", &device);
        content::same(&device, target.path());
    }
    not_copied_again(&site);
    site.tap(["remove", "behind"]).ok();
}

#[test]
fn a_journal_that_fails_acknowledges_nothing_more_and_a_restart_on_the_healed_disk_has_no_gap() {
    let below = NullDisk::new(NullSettings {
        discard: false,
        ..NullSettings::plain(320)
    });
    let disk = NullDisk::plain(16);
    let journal = Mapped::new("ut-journal", &whole(below.path(), "linear"));
    let mut mounted = None;
    let mut at = None;
    let mut site = Site::prepared("sticky", |receiver| {
        let dir = receiver.join("journal-disk");
        mounted = Some(Mounted::made(journal.path(), &dir));
        at = Some(dir.clone());
        let dir = dir.join("journal").display().to_string();
        ["--journal", &dir, "--journal-max", "256MiB"]
            .map(String::from)
            .to_vec()
    });
    let at = at.unwrap();
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");

    for (round, fault) in ["0 1 1 error_writes", "error"].iter().enumerate() {
        let bytes = content::Bytes::new(60 + round as u64).take(1 << 20);
        content::write_at(&device, MIB, &bytes);
        site.barrier("applied");
        let before = number(&site, "durable");
        journal.reload(&whole(below.path(), fault));
        content::write_at(&device, 4 * MIB, &bytes);
        eventually("the failure is said", LINK_PATIENCE, || {
            said(&site, "reason").contains("cannot write a segment in")
        });
        let group = site.receiver_group();
        assert_eq!(group["mode"], "failed", "{group}");
        let reason = said(&site, "reason");
        assert!(reason.contains("restart"), "what to do: {reason}");
        let stuck = number(&site, "durable");
        assert!(stuck >= before);

        // The disk is well again, and still nothing pretends that what failed is there.
        journal.reload(&whole(below.path(), "linear"));
        content::write_at(&device, 8 * MIB, &bytes);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(
            number(&site, "durable"),
            stuck,
            "the first failure is final"
        );
        let status = site.status();
        assert!(status["durable"].as_u64() <= Some(stuck), "{status}");

        site.signal_receiver(Signal::Terminate);
        drop(mounted.take());
        mounted = Some(Mounted::again(journal.path(), &at));
        site.receiver_cli(["fsck"]).ok();
        site.start_receiver();
        eventually("the link is up", LINK_PATIENCE, || {
            site.status()["link"] == "up"
        });
        site.assert_replica_equals("v0", &device);
        not_copied_again(&site);
    }
    site.tap(["remove", "sticky"]).ok();
    drop(site);
    drop(mounted);
}

/// Where on the disk these bytes lie, in sectors of 4096.
fn find(disk: &Path, needle: &[u8]) -> u64 {
    let file = File::open(disk).unwrap();
    let mut page = vec![0; 1 << 20];
    for chunk in 0..size_bytes(disk) / MIB {
        file.read_exact_at(&mut page, chunk * MIB).unwrap();
        let found = page.windows(needle.len()).position(|part| part == needle);
        if let Some(found) = found {
            return (chunk * MIB + found as u64) / 4096;
        }
    }
    panic!("it is not on {}", disk.display());
}

#[test]
fn a_sector_of_the_journal_that_cannot_be_read_is_named_and_what_it_held_comes_again() {
    let below = NullDisk::new(NullSettings {
        discard: false,
        ..NullSettings::plain(320)
    });
    let disk = NullDisk::plain(8);
    let journal = Mapped::new("ut-worn", &whole(below.path(), "linear"));
    let mut mounted = None;
    let mut site = Site::prepared("worn", |receiver| {
        let dir = receiver.join("journal-disk");
        mounted = Some(Mounted::made(journal.path(), &dir));
        let dir = dir.join("journal").display().to_string();
        // With a window, what is written last is in the journal alone.
        [
            "--journal",
            &dir,
            "--journal-max",
            "256MiB",
            "--retain",
            "1h",
        ]
        .map(String::from)
        .to_vec()
    });
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    content::fill(&device, MIB, 71);
    let point = site.barrier("durable");
    let bytes = content::Bytes::new(72).take(64 << 10);
    content::write_at(&device, 4 * MIB, &bytes);
    content::write_at(&device, 5 * MIB, &content::Bytes::new(73).take(64 << 10));
    let last = site.barrier("durable");
    site.signal_receiver(Signal::Kill);

    // In the middle of the record; direct I/O of the journal left nothing of it in a cache.
    let bad = find(below.path(), &bytes[..64]) + 8;
    let (start, total) = (bad * 8, size_bytes(below.path()) / 512);
    let (name, rest) = (below.path().display(), total - start - 8);
    journal.reload(&format!(
        "0 {start} linear {name} 0\n{start} 8 error\n{0} {rest} linear {name} {0}",
        start + 8
    ));
    let fsck = site.receiver_cli(["fsck"]).done();
    assert_eq!(fsck.code, 1, "{fsck}");
    let words = "the disk cannot read what was written there";
    assert!(fsck.stdout.contains(words), "{fsck}");
    assert!(fsck.stdout.contains("\n1 findings"), "{fsck}");
    site.start_receiver();
    let log = std::fs::read_to_string(site.path("receiver.log")).unwrap();
    assert!(log.contains(words), "{log}");
    let recoverable = number(&site, "recoverable_stamp");
    assert!(recoverable >= point, "the point before it stays");
    eventually("the volume is copied again", LINK_PATIENCE, || {
        site.status()["volumes"][0]["copies"].as_u64() >= Some(2)
    });
    site.wait_mode("async");
    assert!(site.barrier("durable") > last);
    content::same(&device, &site.export("v0"));
    content::same(&device, disk.path());
    site.tap(["remove", "worn"]).ok();
    drop(site);
    drop(mounted);
}
