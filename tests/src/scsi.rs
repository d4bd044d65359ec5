//! SCSI disks made by `scsi_debug`, which can be told to fail, and may change their names.

use crate::kernel;
use crate::run::{Run, eventually};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEBUG: &str = "/sys/kernel/debug";
const OPTS: &str = "/sys/bus/pseudo/drivers/scsi_debug/opts";
/// Reads in [`BAD_OFFSET`]..[`BAD_END`] fail.
const OPT_MEDIUM_ERROR: &str = "2";
/// Operation codes of WRITE(10), WRITE(16) and WRITE SAME(16).
const WRITES: [&str; 2] = ["2a", "8a"];

/// Where medium errors lie, once they are switched on.
pub const BAD_OFFSET: u64 = 8 << 20;
/// And where they end.
pub const BAD_END: u64 = BAD_OFFSET + (64 << 10);

/// Disks of the one `scsi_debug` there can be, each with content of its own; gone with the value.
#[derive(Debug)]
pub struct ScsiDisks {
    /// HOST:CHANNEL:TARGET:LUN of each.
    addresses: Vec<String>,
}

impl ScsiDisks {
    /// `count` disks of `size_mib` with sectors of `sector_bytes`.
    pub fn new(count: usize, size_mib: u32, sector_bytes: u32) -> Self {
        kernel::module("sd_mod");
        Run::sh(&format!(
            "mountpoint -q {DEBUG} || mount -t debugfs none {DEBUG}"
        ))
        .ok();
        let bad = BAD_OFFSET / u64::from(sector_bytes);
        let bad_count = (BAD_END - BAD_OFFSET) / u64::from(sector_bytes);
        Run::new("modprobe")
            .args(["scsi_debug", "delay=0", "per_host_store=1"])
            .args([format!("add_host={count}")])
            .args([format!("dev_size_mb={size_mib}")])
            .args([format!("sector_size={sector_bytes}")])
            .args([format!("medium_error_start={bad}")])
            .args([format!("medium_error_count={bad_count}")])
            .ok();
        let mut addresses = Vec::new();
        eventually("the SCSI disks are there", Duration::from_secs(30), || {
            addresses = found();
            addresses.len() == count
        });
        Self { addresses }
    }

    /// The device node disk `at` has now.
    pub fn path(&self, at: usize) -> PathBuf {
        let node = node_of(&self.addresses[at]);
        node.unwrap_or_else(|| panic!("disk {} has no name", self.addresses[at]))
    }

    /// From now on every write to disk `at` fails, and nothing of it is done; or not any more.
    pub fn fail_writes(&self, at: usize, fail: bool) {
        let file = Path::new(DEBUG)
            .join("scsi_debug")
            .join(&self.addresses[at])
            .join("error");
        for op in WRITES {
            // Fail the command, each time: check condition, medium error, write error.
            let line = match fail {
                true => format!("2 1 0x{op} 0 0 0x2 0x3 0xc 0x0"),
                false => format!("- 2 0x{op}"),
            };
            fs::write(&file, line).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }

    /// From now on a range of all disks cannot be read; or not any more.
    pub fn fail_reads(&self, fail: bool) {
        let opts = if fail { OPT_MEDIUM_ERROR } else { "0" };
        fs::write(OPTS, opts).unwrap_or_else(|error| panic!("{OPTS}: {error}"));
    }

    /// All disks go away and come back in the opposite order: each gets another's name.
    pub fn renumber(&self) {
        let before: Vec<PathBuf> = (0..self.addresses.len()).map(|at| self.path(at)).collect();
        for address in &self.addresses {
            write(&format!("/sys/bus/scsi/devices/{address}/delete"), "1");
        }
        eventually("the SCSI disks are gone", Duration::from_secs(30), || {
            found().is_empty()
        });
        for address in self.addresses.iter().rev() {
            let mut parts = address.split(':');
            let host = parts.next().unwrap_or_default();
            let rest: Vec<&str> = parts.collect();
            let scan = format!("/sys/class/scsi_host/host{host}/scan");
            write(&scan, &rest.join(" "));
            eventually("a SCSI disk is back", Duration::from_secs(30), || {
                node_of(address).is_some_and(|node| node.exists())
            });
        }
        let after: Vec<PathBuf> = (0..self.addresses.len()).map(|at| self.path(at)).collect();
        assert!(before != after, "{before:?} have kept their names");
    }
}

impl Drop for ScsiDisks {
    fn drop(&mut self) {
        Run::sh("for n in 1 2 3 4 5; do modprobe -r scsi_debug && break; sleep 0.5; done").done();
    }
}

fn write(path: &str, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Addresses of our disks that have a node, in order of their hosts.
fn found() -> Vec<String> {
    let devices = fs::read_dir("/sys/bus/scsi/devices").into_iter().flatten();
    let names = devices.flatten().map(|entry| entry.file_name());
    let mut found: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| {
            let model = format!("/sys/bus/scsi/devices/{name}/model");
            let model = fs::read_to_string(model).unwrap_or_default();
            model.trim() == "scsi_debug" && node_of(name).is_some_and(|node| node.exists())
        })
        .collect();
    let host = |name: &String| -> u32 {
        let host = name.split(':').next().unwrap_or_default();
        host.parse().unwrap_or(0)
    };
    found.sort_by_key(host);
    found
}

fn node_of(address: &str) -> Option<PathBuf> {
    let dir = fs::read_dir(format!("/sys/bus/scsi/devices/{address}/block")).ok()?;
    let name = dir.flatten().next()?.file_name();
    Some(Path::new("/dev").join(name))
}
