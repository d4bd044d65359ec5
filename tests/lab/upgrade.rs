//! Another program goes on for the one that runs, and the application notices a pause at most.

use e2e::content;
use e2e::disk::NullDisk;
use e2e::gap::Writers;
use e2e::rublk::RublkNull;
use e2e::site::{Daemon, LINK_PATIENCE, program};
use e2e::{Run, Site, run};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const WRITERS: u64 = 4;
const SPAN_BYTES: u64 = 8 << 20;
/// In turn, so that what slows the machine for a while slows both.
const ROUNDS: u32 = 5;

/// Programs as a package would put them in place of others.
fn programs(site: &Site, round: u32) -> PathBuf {
    let dir = site.path(&format!("programs-{round}"));
    fs::create_dir(&dir).unwrap();
    for name in ["ublk-tap", "ublk-tap-shipper"] {
        fs::copy(program(name), dir.join(name)).unwrap();
    }
    dir
}

fn upgrade(site: &Site, programs: &Path) -> String {
    site.tap_of(&programs.join("ublk-tap"), ["upgrade", "up"])
        .ok()
        .stdout
}

/// By what it is: a path may lead through a mount namespace of its own.
fn runs(pid: i32, program: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    inode(&PathBuf::from(format!("/proc/{pid}/exe"))) == inode(program)
}

/// The longest pause of a rublk null device that is killed and recovered.
fn pause_of_rublk(device: &RublkNull) -> Duration {
    let writers = Writers::start(device.path(), WRITERS, SPAN_BYTES);
    sleep(Duration::from_secs(1));
    device.kill_and_recover();
    sleep(Duration::from_secs(1));
    writers.end().longest
}

/// The median of ours over the other's.
fn ratio(pauses: &[(Duration, Duration)]) -> f64 {
    let ratio = |(ours, rublk): &(Duration, Duration)| ours.as_secs_f64() / rublk.as_secs_f64();
    let mut ratios: Vec<f64> = pauses.iter().map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

#[test]
fn a_tap_is_upgraded_under_load_without_an_error_or_a_copy_in_thrice_a_plain_restart() {
    let site = Site::new("up");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    let life = site.status()["incarnation"].clone();
    let (pid, target) = (site.pid(Daemon::Tap), fs::read_link(&device).unwrap());
    let (rublk, mut pauses) = (RublkNull::new(), Vec::new());
    for round in 0..ROUNDS {
        let programs = programs(&site, round);
        let writers = Writers::start(&device, WRITERS, SPAN_BYTES);
        sleep(Duration::from_secs(1));
        let said = upgrade(&site, &programs);
        assert!(said.contains("up/v0 is served again"), "{said}");
        sleep(Duration::from_secs(1));
        let seen = writers.end();
        assert_eq!(seen.errors, 0, "{seen:?}");
        pauses.push((seen.longest, pause_of_rublk(&rublk)));
        assert_eq!(site.pid(Daemon::Tap), pid, "the process stays");
        assert!(runs(pid, &programs.join("ublk-tap")));
        run::eventually("the link is up again", LINK_PATIENCE, || {
            site.status()["link"] == "up"
        });
        let shipper = site.pid(Daemon::Shipper);
        assert!(runs(shipper, &programs.join("ublk-tap-shipper")));
    }
    let ratio = ratio(&pauses);
    println!(
        "pauses of an upgraded tap, and of rublk null killed and recovered: {pauses:?}, {ratio:.2}"
    );
    assert_eq!(fs::read_link(&device).unwrap(), target);
    assert_eq!(site.status()["incarnation"], life, "the stream goes on");
    site.assert_replica_equals("v0", &device);
    content::same(&device, disk.path());
    let status = site.status();
    assert_eq!(status["volumes"][0]["copies"], 1, "nothing is copied again");
    assert_eq!(status["mode"], "async");
    let zombies = Run::sh(&format!("ps -o stat= --ppid {pid} | grep -c Z")).done();
    assert_eq!(zombies.stdout.trim(), "0", "no child is left unburied");
    assert!(ratio <= 3.0, "{pauses:?}");
    site.tap(["remove", "up"]).ok();
}

/// A shipper nobody but the test looks after; killed with it.
struct Shipper(Child);

impl Shipper {
    fn start(site: &Site, programs: &Path) -> Self {
        let log = fs::File::create(programs.join("log")).unwrap();
        let mut command = Command::new(programs.join("ublk-tap-shipper"));
        let command = command
            .args(["run", "--group", "ship"])
            .env("UBLK_TAP_CONFIG_DIR", site.path("etc"))
            .env("UBLK_TAP_RUN_DIR", site.path("run"))
            .stdin(Stdio::null())
            .stderr(log);
        Self(command.spawn().unwrap())
    }

    fn terminate(mut self) {
        Run::sh(&format!("kill -TERM {}", self.0.id())).ok();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_shipper_is_replaced_by_a_newer_one_that_runs_already_and_the_application_notices_nothing() {
    let site = Site::new("ship");
    fs::write(site.path("etc/ship.toml"), "shipper = \"external\"\n").unwrap();
    let programs: Vec<PathBuf> = (0..3).map(|round| programs(&site, round)).collect();
    let mut current = Shipper::start(&site, &programs[0]);
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    let life = site.status()["incarnation"].clone();
    let writers = Writers::start(&device, 2, 8 << 20);
    for (round, newer) in programs[1..].iter().enumerate() {
        sleep(Duration::from_secs(1));
        let next = Shipper::start(&site, newer);
        sleep(Duration::from_millis(500));
        match round {
            0 => current.terminate(),
            _ => drop(current),
        }
        current = next;
        let before = site.status()["captured"].as_u64().unwrap();
        run::eventually("the newer one ships", LINK_PATIENCE, || {
            site.status()["durable"].as_u64() >= Some(before)
        });
    }
    let seen = writers.end();
    assert_eq!(seen.errors, 0, "{seen:?}");
    assert!(seen.longest < Duration::from_secs(2), "{seen:?}");
    site.assert_replica_equals("v0", &device);
    content::same(&device, disk.path());
    let status = site.status();
    assert_eq!(status["volumes"][0]["copies"], 1, "nothing is copied again");
    assert_eq!(status["incarnation"], life);
    site.tap(["remove", "ship"]).ok();
    drop(current);
}
