//! A volume served over NBD and used by the kernel's own client, through all three daemons.

use crate::filesystems::fill_tree;
use crate::volatile_cache::flush_and_fua_arrive;
use e2e::disk::{Mapped, NullDisk, size_bytes};
use e2e::run::eventually;
use e2e::scsi::ScsiDisks;
use e2e::site::LINK_PATIENCE;
use e2e::{Run, Site, content, kernel};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/nbd0";
const REFUSED: i32 = 3;

/// The kernel's client of a volume, over two connections.
struct Attached;

impl Attached {
    fn to(site: &Site, disk: &Path, group: &str, volume: &str) -> Self {
        kernel::module("nbd");
        site.register(volume, size_bytes(disk), 1);
        site.add_run(disk, volume, &["--frontend", "nbd"]).ok();
        Self::again(site, group, volume)
    }

    /// To what is served already.
    fn again(site: &Site, group: &str, volume: &str) -> Self {
        let socket = site.path("run").join(group).join(format!("{volume}.nbd"));
        let socket = socket.display().to_string();
        let how = ["-unix", &socket, DEVICE, "-N", volume, "-C", "2"];
        Run::new("nbd-client").args(how).ok();
        Self
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        Run::new("nbd-client").args(["-d", DEVICE]).done();
    }
}

fn remove(site: &Site) {
    eventually("the client is gone", LINK_PATIENCE, || {
        site.status()["volumes"][0]["queues"] == 0
    });
    let removed = site.tap(["remove", "nbd"]).ok();
    assert!(removed.stdout.contains("clean"), "{removed}");
}

#[test]
fn a_filesystem_over_nbd_is_on_the_replica_and_is_not_taken_away_while_it_is_mounted() {
    let site = Site::new("nbd");
    let disk = NullDisk::plain(64);
    let attached = Attached::to(&site, disk.path(), "nbd", "data");
    Run::new("mkfs.ext4").args(["-q", "-F", DEVICE]).ok();
    let root = site.mount(Path::new(DEVICE), "discard");
    fill_tree(&root, 0xbd);
    let refused = site.tap(["remove", "nbd"]).refused(REFUSED);
    refused.says("is connected to");
    fill_tree(&root.join("more"), 0xbe);
    site.umount();
    site.assert_replica_equals("data", Path::new(DEVICE));
    drop(attached);
    site.assert_replica_equals("data", disk.path());
    remove(&site);
}

#[test]
fn flush_and_fua_reach_the_disk_over_nbd() {
    let site = Site::new("nbd");
    let mut attached = None;
    let _disks = flush_and_fua_arrive(&site, |disk| {
        attached = Some(Attached::to(&site, disk, "nbd", "v0"));
        PathBuf::from(DEVICE)
    });
    drop(attached);
    remove(&site);
}

#[test]
fn a_disk_with_4096_byte_sectors_keeps_them_over_nbd() {
    let site = Site::new("nbd");
    let disks = ScsiDisks::new(1, 16, 4096);
    let disk = disks.path(0);
    content::fill(&disk, 16 << 20, 71);
    let target = site.path("targets").join("v0").display().to_string();
    let size = size_bytes(&disk).to_string();
    let add = [
        "volume", "add", "nbd/v0", "--source", "db1", "--size", &size,
    ];
    let how = ["--sector", "4096", "--target", &target];
    site.receiver_cli([&add[..], &how].concat()).ok();
    site.add_run(&disk, "v0", &["--frontend", "nbd"]).ok();
    site.wait_mode("async");
    let socket = site.path("run").join("nbd").join("v0.nbd");
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let info = Run::new("nbdinfo").args(["--json", &uri]).ok().json();
    assert_eq!(info["exports"][0]["block_size_minimum"], 4096, "{info}");
    // The client completes what is less than a sector; the server is asked for whole ones only.
    let writes = [
        "-c",
        "write -P 7 8192 64k",
        "-c",
        "write -P 9 512 512",
        "-c",
        "read -P 9 512 512",
    ];
    Run::new("qemu-io")
        .args(["-f", "raw", &uri])
        .args(writes)
        .ok();
    site.assert_replica_equals("v0", &disk);
    remove(&site);
}

#[test]
fn no_write_of_a_dead_tap_lands_after_one_of_its_successor_over_nbd() {
    kernel::module("dm_delay");
    let site = Site::new("nbd");
    let disk = NullDisk::plain(4);
    let (sectors, below) = (size_bytes(disk.path()) / 512, disk.path().display());
    let table = format!("0 {sectors} delay {below} 0 0 {below} 0 5000");
    let slow = Mapped::new("ut-late-nbd", &table);
    let attached = Attached::to(&site, slow.path(), "nbd", "v0");
    site.wait_mode("async");
    let start = Instant::now();
    let older = spawn(|| {
        // Nobody answers it.
        let file = OpenOptions::new().write(true).open(DEVICE).unwrap();
        let _ = file.write_all_at(&[1; 4096], 1 << 20);
        let _ = file.sync_all();
    });
    sleep(Duration::from_secs(1));
    site.kill_source();
    site.tap(["recover", "nbd"]).ok();
    let waited = start.elapsed();
    assert!(
        waited > Duration::from_secs(4),
        "its write is under way: {waited:?}"
    );
    drop(attached);
    older.join().unwrap();
    let attached = Attached::again(&site, "nbd", "v0");
    content::write_at(Path::new(DEVICE), 1 << 20, &[2; 4096]);
    sleep(Duration::from_secs(6));
    let raw = std::fs::read(disk.path()).unwrap();
    assert!(
        raw[1 << 20..][..4096] == [2; 4096],
        "an older write came later"
    );
    site.assert_replica_equals("v0", Path::new(DEVICE));
    let copies = site.status()["volumes"][0]["copies"].clone();
    assert_eq!(copies, 1, "nothing was copied again");
    drop(attached);
    remove(&site);
}
