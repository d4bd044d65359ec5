//! A link that stalls: the application waits at most the stated bound, nothing is lost silently,
//! and the replica comes back by itself.

use e2e::content;
use e2e::disk::NullDisk;
use e2e::site::{Daemon, LINK_PATIENCE, Signal};
use e2e::{Run, Site, run};
use std::time::{Duration, Instant};

#[test]
fn a_full_ring_parks_writes_to_the_bound_then_breaks_and_copies_again_by_itself() {
    let site = Site::new("full");
    std::fs::write(
        site.path("etc").join("full.toml"),
        "ring_bytes = \"4MiB\"\npark_ms = 1500\n",
    )
    .unwrap();
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    site.barrier("applied");
    site.signal(Daemon::Shipper, Signal::Stop);

    let start = Instant::now();
    content::fill(&device, 12 << 20, 41);
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(1000),
        "writes must first wait for the link: {took:?}"
    );
    assert!(
        took < Duration::from_secs(60),
        "and then go on without it: {took:?}"
    );
    let status = site.status();
    assert_eq!(status["mode"], "broken", "{status}");
    assert!(
        status["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{status}"
    );
    content::same(&device, disk.path());

    site.signal(Daemon::Shipper, Signal::Continue);
    site.wait_mode("async");
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "full"]).ok();
}

#[test]
fn reads_go_on_while_a_write_waits_for_room_in_the_ring() {
    let site = Site::new("reads");
    std::fs::write(
        site.path("etc").join("reads.toml"),
        "ring_bytes = \"4MiB\"\npark_ms = 8000\n",
    )
    .unwrap();
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    site.barrier("applied");
    site.signal(Daemon::Shipper, Signal::Stop);
    let name = device.display().to_string();
    let writer = std::thread::spawn(move || {
        Run::sh(&format!(
            "dd if=/dev/urandom of={name} bs=64k count=160 oflag=direct"
        ))
        .done()
    });
    std::thread::sleep(Duration::from_millis(1500));
    let start = Instant::now();
    let read = format!(
        "dd if={} of=/dev/null bs=64k count=8 iflag=direct",
        device.display()
    );
    Run::sh(&read).ok();
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "a read waited: {:?}",
        start.elapsed()
    );
    site.signal(Daemon::Shipper, Signal::Continue);
    assert_eq!(
        writer.join().unwrap().code,
        0,
        "the waiting writes complete"
    );
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "reads"]).ok();
}

#[test]
fn a_receiver_that_is_killed_and_comes_back_misses_nothing() {
    let mut site = Site::new("again");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    for round in 0..3 {
        content::fill(&device, 1 << 20, 50 + round);
        site.signal_receiver(Signal::Kill);
        content::write_at(&device, (4 + round) << 20, &[round as u8 + 1; 65536]);
        site.start_receiver();
    }
    run::eventually("the link is up again", LINK_PATIENCE, || {
        site.status()["link"] == "up"
    });
    site.assert_replica_equals("v0", &device);
    let copied = site.status()["volumes"][0]["copied_bytes"].as_u64();
    assert!(
        copied <= Some(16 << 20),
        "nothing needed a second copy: {copied:?}"
    );
    site.tap(["remove", "again"]).ok();
}

#[test]
fn the_shipper_may_be_killed_and_the_application_notices_nothing() {
    let site = Site::new("ship");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    for round in 0..3 {
        content::fill(&device, 1 << 20, 60 + round);
        let shipper = site.pid(Daemon::Shipper);
        site.signal(Daemon::Shipper, Signal::Kill);
        content::write_at(&device, (4 + round) << 20, &[round as u8 + 1; 65536]);
        site.wait_shipper_after(shipper);
    }
    site.assert_replica_equals("v0", &device);
    assert_eq!(site.status()["mode"], "async");
    site.tap(["remove", "ship"]).ok();
}

#[test]
fn remove_with_the_link_down_refuses_and_says_what_is_at_stake() {
    let mut site = Site::new("stake");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    site.barrier("durable");
    site.signal_receiver(Signal::Kill);
    content::write_at(&device, 1 << 20, &[5; 65536]);
    site.tap(["remove", "stake", "--timeout", "3s"])
        .refused(4)
        .says("--abandon");
    assert_eq!(
        std::fs::read(&device).unwrap()[1 << 20],
        5,
        "the device is still there"
    );
    site.tap(["remove", "stake", "--abandon"]).ok();
    assert!(!device.exists(), "nothing is left behind");
}
