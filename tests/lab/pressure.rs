//! Many at once: writes that collide, a link that stands still, a removal amid I/O.

use e2e::disk::NullDisk;
use e2e::site::{Daemon, Signal};
use e2e::{Run, Site, content};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn colliding_writes_on_four_queues_leave_disk_and_replica_equal() {
    let site = Site::new("collide");
    let disk = NullDisk::plain(16);
    site.register("v0", 16 << 20, 1);
    let device = site.add(disk.path(), "v0", &["--queues", "4"]);
    site.wait_mode("async");
    let file = format!("--filename={}", device.display());
    for round in 0..50 {
        let seed = format!("--randseed={}", 7000 + round);
        // Four writers, 8 writes each in flight, all within 256 KiB.
        let words = [
            "--name=collide",
            &file,
            &seed,
            "--direct=1",
            "--ioengine=io_uring",
            "--iodepth=8",
            "--numjobs=4",
            "--rw=randwrite",
            "--norandommap",
            "--randrepeat=0",
            "--bsrange=4k-64k",
            "--size=256k",
            "--number_ios=48",
            "--refill_buffers",
        ];
        Run::new("fio").args(words).ok();
        if round % 10 == 9 {
            site.assert_replica_equals("v0", &device);
            content::same(&device, disk.path());
        }
    }
    site.tap(["remove", "collide"]).ok();
}

#[test]
fn a_shipper_that_stands_still_for_a_minute_is_not_noticed_while_the_ring_has_room() {
    let site = Site::new("still");
    let disk = NullDisk::plain(32);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    site.signal(Daemon::Shipper, Signal::Stop);
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    // 28 MiB in a minute: less than half of the default ring.
    for turn in 0..112_u64 {
        let begun = Instant::now();
        content::write_at(
            &device,
            turn * (256 << 10),
            &content::Bytes::new(turn).take(256 << 10),
        );
        slowest = slowest.max(begun.elapsed());
        let next = Duration::from_millis(540 * (turn + 1));
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    assert!(start.elapsed() >= Duration::from_secs(60));
    assert!(slowest < Duration::from_secs(2), "a write took {slowest:?}");
    assert_eq!(site.status()["mode"], "async");
    site.signal(Daemon::Shipper, Signal::Continue);
    site.assert_replica_equals("v0", &device);
    let status = site.status();
    assert_eq!(
        (&status["mode"], &status["volumes"][0]["copies"]),
        (&"async".into(), &1.into())
    );
    site.tap(["remove", "still"]).ok();
}

#[test]
fn a_removal_amid_writes_ends_in_time_and_so_do_the_writers() {
    let site = Site::new("amid");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    let mut writer = Command::new("fio")
        .args([
            "--name=amid",
            "--direct=1",
            "--ioengine=io_uring",
            "--iodepth=16",
        ])
        .args([
            "--rw=randwrite",
            "--bs=4k",
            "--size=8m",
            "--time_based",
            "--runtime=300",
            // Between two passes it may find the device gone, and would write to a file of its name.
            "--allow_file_create=0",
        ])
        .arg(format!("--filename={}", device.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let start = Instant::now();
    site.tap(["remove", "amid", "--abandon"]).ok();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(!device.exists());
    e2e::run::eventually("the writer has ended", Duration::from_secs(30), || {
        matches!(writer.try_wait(), Ok(Some(_)))
    });
    let devices = Run::sh("ls /dev/ublkb* /dev/ublkc* 2>/dev/null || true")
        .ok()
        .stdout;
    assert_eq!(devices, "", "no device is left");
}
