//! A volume served over NBD and used by the kernel's own client, through all three daemons.

use crate::filesystems::fill_tree;
use crate::volatile_cache::flush_and_fua_arrive;
use e2e::disk::{NullDisk, size_bytes};
use e2e::run::eventually;
use e2e::site::LINK_PATIENCE;
use e2e::{Run, Site, kernel};
use std::path::{Path, PathBuf};

const DEVICE: &str = "/dev/nbd0";
const REFUSED: i32 = 3;

/// The kernel's client of a volume, over two connections.
struct Attached;

impl Attached {
    fn to(site: &Site, disk: &Path, group: &str, volume: &str) -> Self {
        kernel::module("nbd");
        site.register(volume, size_bytes(disk), 1);
        site.add_run(disk, volume, &["--frontend", "nbd"]).ok();
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
