//! A tap that is killed and started again: the application notices a pause and nothing else.

use e2e::content;
use e2e::disk::{Loop, Mapped, NullDisk, size_bytes};
use e2e::site::{Daemon, LINK_PATIENCE, Signal};
use e2e::{Run, Site, kernel, run};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// An application that writes and reads back what it wrote until it is told to stop.
pub(crate) struct Busy {
    stops: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Busy {
    pub(crate) fn new(device: &Path) -> Self {
        let stops = Arc::new(AtomicBool::new(false));
        let (own, file) = (Arc::clone(&stops), device.to_path_buf());
        let thread = spawn(move || {
            let mut rounds = 0;
            while !own.load(Ordering::Acquire) {
                Run::new("fio")
                    .args(["--name=busy", "--direct=1", "--ioengine=io_uring"])
                    .args(["--rw=randwrite", "--bsrange=4k-64k", "--iodepth=16"])
                    .args(["--size=8m", "--verify=crc32c", "--verify_fatal=1"])
                    .args(["--verify_backlog=64", "--verify_state_save=0"])
                    .args([format!("--filename={}", file.display())])
                    .args([format!("--randseed={rounds}")])
                    .within(LINK_PATIENCE)
                    .ok();
                rounds += 1;
            }
            rounds
        });
        Self { stops, thread }
    }

    /// Fails if it has seen an error.
    pub(crate) fn end(self) {
        self.stops.store(true, Ordering::Release);
        assert!(self.thread.join().unwrap() > 0, "it has done something");
    }
}

fn recover(site: &Site, group: &str) -> String {
    site.tap(["recover", group]).ok().stdout
}

fn of_volume(site: &Site, key: &str) -> Value {
    site.status()["volumes"][0][key].clone()
}

#[test]
fn a_tap_killed_under_load_is_recovered_without_an_error_or_a_copy() {
    let site = Site::new("load");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    let life = site.status()["incarnation"].clone();
    let target = std::fs::read_link(&device).unwrap();
    let busy = Busy::new(&device);
    for _ in 0..2 {
        sleep(Duration::from_secs(4));
        site.kill_source();
        sleep(Duration::from_secs(1));
        let refused = site.add_run(disk.path(), "v0", &[]).refused(3);
        refused.says("recover load");
        let said = recover(&site, "load");
        assert!(said.contains("load/v0 is served again"), "{said}");
    }
    sleep(Duration::from_secs(2));
    busy.end();
    assert_eq!(std::fs::read_link(&device).unwrap(), target);
    run::eventually("the link is up again", LINK_PATIENCE, || {
        site.status()["link"] == "up"
    });
    site.assert_replica_equals("v0", &device);
    content::same(&device, disk.path());
    assert_eq!(site.status()["incarnation"], life, "the stream goes on");
    assert_eq!(of_volume(&site, "copies"), 1, "nothing was copied again");
    assert_eq!(site.status()["mode"], "async");
    assert!(recover(&site, "load").contains("nothing to recover"));
    site.tap(["remove", "load"]).ok();
    assert!(!target.exists(), "a recovered device goes like any other");
}

#[test]
fn a_tap_killed_while_it_recovers_is_recovered_all_the_same() {
    let site = Site::new("twice");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    let busy = Busy::new(&device);
    sleep(Duration::from_secs(3));
    site.kill_source();
    for millis in [150, 400, 900, 1500] {
        let attempt = site.tap(["recover", "twice"]);
        let attempt = spawn(move || attempt.done());
        sleep(Duration::from_millis(millis));
        Run::sh("pkill -KILL -f '[u]blk-tap run --group twice'").done();
        attempt.join().unwrap();
    }
    recover(&site, "twice");
    sleep(Duration::from_secs(2));
    busy.end();
    site.assert_replica_equals("v0", &device);
    content::same(&device, disk.path());
    assert_eq!(of_volume(&site, "copies"), 1, "nothing was copied again");
    site.tap(["remove", "twice"]).ok();
}

#[test]
fn no_write_of_a_dead_tap_lands_after_one_of_its_successor() {
    kernel::module("dm_delay");
    let site = Site::new("late");
    let disk = NullDisk::plain(4);
    let (sectors, below) = (size_bytes(disk.path()) / 512, disk.path().display());
    let table = format!("0 {sectors} delay {below} 0 0 {below} 0 5000");
    let slow = Mapped::new("ut-slow", &table);
    let device = site.protect(slow.path(), "v0");
    site.wait_mode("async");
    let name = device.clone();
    let start = Instant::now();
    let older = spawn(move || content::write_at(&name, 1 << 20, &[1; 4096]));
    sleep(Duration::from_secs(1));
    site.kill_source();
    recover(&site, "late");
    let waited = start.elapsed();
    assert!(
        waited > Duration::from_secs(4),
        "its write is under way: {waited:?}"
    );
    content::write_at(&device, (1 << 20) + 4096, &[3; 4096]);
    older.join().unwrap();
    content::write_at(&device, 1 << 20, &[2; 4096]);
    sleep(Duration::from_secs(6));
    let raw = std::fs::read(disk.path()).unwrap();
    assert!(
        raw[1 << 20..][..4096] == [2; 4096],
        "an older write came later"
    );
    site.assert_replica_equals("v0", &device);
    assert_eq!(of_volume(&site, "copies"), 1, "nothing was copied again");
    site.tap(["remove", "late"]).ok();
}

/// A disk that stands still when it is told to.
struct Still {
    below: Loop,
    disk: Mapped,
}

const STILL_SECTORS: u64 = 64 << 11;

impl Still {
    /// Full of data.
    fn new(site: &Site, name: &str) -> Self {
        let file = site.path("below.img");
        std::fs::write(&file, []).unwrap();
        content::fill(&file, STILL_SECTORS * 512, 7);
        let below = Loop::new(&file);
        let table = format!("0 {STILL_SECTORS} linear {} 0", below.path().display());
        let disk = Mapped::new(name, &table);
        Self { below, disk }
    }

    /// It goes on; from this sector on, whatever comes fails.
    fn go_on(&self, fails_from: u64) {
        let below = self.below.path().display();
        let good = format!("0 {fails_from} linear {below} 0");
        let rest = STILL_SECTORS - fails_from;
        let table = match rest {
            0 => good,
            _ => format!("{good}\n{fails_from} {rest} error"),
        };
        self.disk.reload(&table);
    }

    /// The disk stands still, `commands` go to the device, the source is killed, and the disk ends
    /// what is in flight, from this sector on with an error. Whoever waits for the device waits.
    fn kill_under(&self, site: &Site, commands: &[String], fails_from: u64) -> Vec<JoinHandle<()>> {
        self.disk.suspend();
        let start = |command: &String| {
            let run = Run::sh(command).within(LINK_PATIENCE);
            spawn(move || drop(run.ok()))
        };
        let waiting = commands.iter().map(start).collect();
        run::eventually("all of it is in flight", Duration::from_secs(60), || {
            of_volume(site, "in_flight").as_u64() >= Some(commands.len() as u64)
        });
        let status = site.status();
        println!("in flight: {} bytes of the ring", status["ring_used_bytes"]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sleep(Duration::from_secs(1));
                self.go_on(fails_from);
            });
            site.kill_source();
        });
        self.go_on(STILL_SECTORS);
        waiting
    }
}

#[test]
fn a_tap_killed_with_most_of_the_ring_in_flight_is_recovered_without_an_error_or_a_copy() {
    let site = Site::new("most");
    let still = Still::new(&site, "ut-most");
    site.register("v0", STILL_SECTORS * 512, 1);
    let device = site.add(still.disk.path(), "v0", &["--ring-size", "4MiB"]);
    site.wait_mode("async");
    site.barrier("durable");
    let name = device.display();
    let write = |n: u64| {
        format!("dd if=/dev/urandom of={name} bs=512k count=1 seek={n} oflag=direct conv=notrunc")
    };
    let writes: Vec<String> = (0..7).map(write).collect();
    // Three of them are on the disk, three are not, and one is in part.
    let waiting = still.kill_under(&site, &writes, (3 << 10) + 512);
    recover(&site, "most");
    for writer in waiting {
        writer.join().unwrap();
    }
    site.barrier("durable");
    site.assert_replica_equals("v0", &device);
    content::same(&device, still.disk.path());
    assert_eq!(of_volume(&site, "copies"), 1, "nothing was copied again");
    assert_eq!(site.status()["mode"], "async");
    site.tap(["remove", "most"]).ok();
}

#[test]
fn a_tap_killed_amid_a_discard_is_recovered_without_an_error_or_a_copy() {
    let site = Site::new("punch");
    let still = Still::new(&site, "ut-punch");
    site.register("v0", STILL_SECTORS * 512, 1);
    let device = site.add(still.disk.path(), "v0", &["--ring-size", "4MiB"]);
    site.wait_mode("async");
    site.barrier("durable");
    let name = device.display();
    // One: the kernel lets no second one to a device before the first has ended.
    let discard = format!("blkdiscard -f -o {} -l {} {name}", 16 << 20, 36 << 20);
    // Some of it is carried out, the data of the rest is still there: more than the ring.
    let waiting = still.kill_under(&site, &[discard], 18 << 11);
    recover(&site, "punch");
    for one in waiting {
        one.join().unwrap();
    }
    site.barrier("durable");
    site.assert_replica_equals("v0", &device);
    content::same(&device, still.disk.path());
    assert_eq!(of_volume(&site, "copies"), 1, "nothing was copied again");
    assert_eq!(site.status()["mode"], "async");
    site.tap(["remove", "punch"]).ok();
}

#[test]
fn a_tap_whose_ring_is_lost_is_recovered_with_a_copy() {
    let site = Site::new("lost");
    let disk = NullDisk::plain(4);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    site.barrier("durable");
    site.kill_source();
    std::fs::remove_file(site.path("run/lost/ring")).unwrap();
    let said = recover(&site, "lost");
    assert!(said.contains("not clean: the tap was killed"), "{said}");
    content::write_at(&device, 1 << 20, &[5; 65536]);
    site.wait_mode("async");
    site.assert_replica_equals("v0", &device);
    site.signal(Daemon::Tap, Signal::Terminate);
    run::eventually("the tap ends", Duration::from_secs(60), || !device.exists());
}
