//! What the unit of a tap runs, after whatever has happened to the one before.

use e2e::disk::NullDisk;
use e2e::gap::Writers;
use e2e::run::{Done, eventually};
use e2e::site::{Daemon, LINK_PATIENCE, Signal, program};
use e2e::{Run, Site, content, kernel};
use std::fs;
use std::path::Path;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/systemd/ublk-tap@.service"
);
const BOOT_MAX: Duration = Duration::from_secs(3600);

/// Starts exactly what the unit's `ExecStart` says, with our program for the installed one.
fn start(site: &Site, group: &str) -> JoinHandle<Done> {
    let unit = fs::read_to_string(UNIT).unwrap();
    let mut lines = unit.lines();
    let line = lines.find_map(|line| line.strip_prefix("ExecStart=/usr/bin/ublk-tap "));
    let line = line.expect("it starts our program").replace("%i", group);
    let run = site.tap_of(&program("ublk-tap"), line.split(' '));
    spawn(move || run.within(BOOT_MAX).done())
}

fn served(site: &Site, device: &Path) {
    eventually("the volume is back", LINK_PATIENCE, || device.exists());
    eventually("it is served", LINK_PATIENCE, || {
        site.tap(["status", "boot", "--json"]).done().code == 0
            && site.status()["volumes"][0]["device"].is_string()
    });
}

fn copies(site: &Site) -> u64 {
    site.status()["volumes"][0]["copies"].as_u64().unwrap()
}

#[test]
fn after_a_reboot_a_kill_and_a_stop_the_line_of_the_unit_has_the_volume_back_under_its_name() {
    let site = Site::new("boot");
    let disk = NullDisk::plain(8);
    let unit = start(&site, "boot");
    eventually("the tap runs", LINK_PATIENCE, || {
        site.path("run/boot/control.sock").exists()
    });
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    content::write_at(&device, 1 << 20, &[5; 65536]);

    // A reboot: daemons, devices, names and the tmpfs of the ring are gone.
    let number = kernel::block_name(&device).replace("ublkb", "");
    site.kill_source();
    unit.join().unwrap();
    Run::new("rublk").args(["del", "-n", &number]).ok();
    for gone in ["run/boot", "dev/boot"] {
        fs::remove_dir_all(site.path(gone)).unwrap();
    }
    let unit = start(&site, "boot");
    served(&site, &device);
    site.wait_mode("async");
    assert_eq!(copies(&site), 1, "nobody knows what was in flight");
    site.assert_replica_equals("v0", &device);
    content::same(&device, disk.path());
    let node = fs::canonicalize(&device).unwrap().display().to_string();
    let said = site.tap(["name", &node]).ok().stdout;
    assert_eq!(said, "UBLK_TAP_NAME=boot/v0\n");

    // What a supervisor does after a crash.
    let writers = Writers::start(&device, 4, 4 << 20);
    sleep(Duration::from_secs(1));
    site.kill_source();
    unit.join().unwrap();
    let unit = start(&site, "boot");
    served(&site, &device);
    sleep(Duration::from_secs(1));
    let seen = writers.end();
    assert_eq!(seen.errors, 0, "{seen:?}");
    site.assert_replica_equals("v0", &device);
    assert_eq!(copies(&site), 1, "the stream goes on");

    site.signal(Daemon::Tap, Signal::Terminate);
    assert_eq!(unit.join().unwrap().code, 0);
    assert!(!device.exists());
    let unit = start(&site, "boot");
    served(&site, &device);
    site.wait_mode("async");
    assert_eq!(copies(&site), 0, "it was left clean");
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "boot"]).ok();
    assert_eq!(unit.join().unwrap().code, 0);
}
