//! Little memory: what must be written through the tap to get some must not wait for the tap.

use e2e::disk::NullDisk;
use e2e::site::LINK_PATIENCE;
use e2e::{Run, Site, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A control group with a bound on its memory; gone with the value.
struct Bounded(PathBuf);

impl Bounded {
    fn new(name: &str, bytes: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        Run::sh("mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup").ok();
        fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        let own = root.join(name);
        fs::create_dir(&own).unwrap();
        fs::write(own.join("memory.max"), bytes.to_string()).unwrap();
        Self(own)
    }

    /// `run`, and all it starts, inside.
    fn hold(&self, run: Run) -> Run {
        run.after(&format!("echo $$ > {}/cgroup.procs", self.0.display()))
    }

    fn count(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).unwrap();
        let of_key = |line: &str| line.strip_prefix(key)?.trim().parse().ok();
        text.lines().find_map(of_key).unwrap_or(0)
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Touches more memory than there is, twice over, and finds in it what it wrote.
const HOG: &str = "python3 -c '
size, page = 128 << 20, 4096
memory = bytearray(size)
for turn in range(1, 3):
    for at in range(0, size, page):
        memory[at] = (at // page * 7 + turn) % 251
for at in range(0, size, page):
    assert memory[at] == (at // page * 7 + 2) % 251, at
'";

#[test]
fn swapping_through_the_tap_with_the_tap_itself_short_of_memory_does_not_deadlock() {
    let site = Site::new("swap");
    // No shipper: captured until the ring is full, forwarded without a record from then on.
    let settings = "ring_bytes = \"8MiB\"\npark_ms = 20\nshipper = \"external\"\n";
    fs::write(site.path("etc").join("swap.toml"), settings).unwrap();
    let disk = NullDisk::plain(192);
    site.register("v0", 192 << 20, 1);
    // Whoever reclaims in here has the tap's own allocations wait for the tap, if they may wait at all.
    let group = Bounded::new("ut-swap", 96 << 20);
    let add = site.add_run(disk.path(), "v0", &["--offline"]);
    group.hold(add).within(LINK_PATIENCE).ok();
    let device = site.device("v0").display().to_string();
    Run::sh(&format!("mkswap -q {device} && swapon {device}")).ok();
    group
        .hold(Run::sh(HOG))
        .within(Duration::from_secs(240))
        .ok();
    let swapped = group.count("memory.events", "max");
    assert!(swapped > 0, "the bound was never met");
    assert_eq!(group.count("memory.events", "oom_kill"), 0);
    Run::sh(&format!("swapoff {device}"))
        .within(LINK_PATIENCE)
        .ok();
    run::eventually("the tap answers", Duration::from_secs(30), || {
        site.status()["volumes"][0]["in_flight"] == 0
    });
    site.tap(["remove", "swap", "--abandon"])
        .within(LINK_PATIENCE)
        .ok();
}

/// Registered buffers of a queue as deep as the one below.
const QUEUE_BYTES: u64 = 16 << 20;

/// Resident memory of a process, shared memory included.
fn resident_bytes(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn a_tap_under_load_holds_ring_buffers_and_at_most_32_mib_and_moves_each_byte_once() {
    let site = Site::new("lean");
    let (ring, queues, depth, block) = (16 << 20, 2, 32, 64 << 10);
    let settings = format!("ring_bytes = \"{}MiB\"\npark_ms = 60000\n", ring >> 20);
    fs::write(site.path("etc").join("lean.toml"), settings).unwrap();
    let disk = NullDisk::plain(32);
    site.register("v0", 32 << 20, 1);
    let shape = [
        "--queues".into(),
        queues.to_string(),
        "--depth".into(),
        depth.to_string(),
    ];
    let shape: Vec<&str> = shape.iter().map(String::as_str).collect();
    let device = site.add(disk.path(), "v0", &shape);
    site.wait_mode("async");
    let count = |name: &str| site.status()["volumes"][0][name].as_u64().unwrap();
    // With a record, or without one while the stream is given up: an emulated link is slow.
    let count_written = || count("captured_bytes") + count("uncaptured_bytes");
    let before = (count_written(), count("memory_copied_bytes"));
    let file = format!("--filename={}", device.display());
    let load = std::thread::spawn(move || {
        Run::new("fio")
            .args([
                "--name=load",
                "--direct=1",
                "--ioengine=io_uring",
                "--rw=randrw",
            ])
            .args([
                &file,
                "--numjobs=2",
                "--thread",
                "--size=16m",
                "--io_size=24m",
            ])
            .args([format!("--bs={block}"), format!("--iodepth={depth}")])
            .within(Duration::from_secs(300))
            .ok();
    });
    let pid = site.pid(e2e::site::Daemon::Tap);
    let mut most = 0;
    while !load.is_finished() {
        most = most.max(resident_bytes(pid));
        std::thread::sleep(Duration::from_millis(50));
    }
    load.join().unwrap();
    // Memory of a queue is for reads, and in place from the start; what is written is written from
    // the ring.
    let bound = ring + queues * QUEUE_BYTES + (32 << 20);
    println!("{} KiB of {}", most >> 10, bound >> 10);
    assert!(most > ring, "{most}: the ring is resident");
    assert!(most <= bound, "{most} bytes resident, {bound} are allowed");
    let written = count_written() - before.0;
    assert!(written > 0, "nothing was written");
    assert_eq!(
        count("memory_copied_bytes") - before.1,
        written,
        "once per byte"
    );
    site.wait_mode("async");
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "lean"]).within(LINK_PATIENCE).ok();
}
