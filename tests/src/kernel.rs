//! What the tests need from the running kernel.

use crate::run::Run;
use std::fs;
use std::path::Path;

/// Loads `module`; a kernel that has it built in is fine too.
#[track_caller]
pub fn module(module: &str) {
    if Path::new("/sys/module")
        .join(module.replace('-', "_"))
        .exists()
    {
        return;
    }
    Run::new("modprobe").args([module]).ok();
}

/// Fails with the next step unless this is root on a kernel with ublk.
#[track_caller]
pub fn needs_ublk() {
    assert!(
        rustix::process::geteuid().is_root(),
        "end-to-end tests run as root: scripts/test lab"
    );
    module("ublk_drv");
    assert!(
        Path::new("/dev/ublk-control").exists(),
        "this kernel has no ublk: run scripts/test lab, which boots one that has"
    );
}

/// Resident memory of process `pid` in KiB.
pub fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}

/// Hardware queues of the block device `name` (`ublkb0`).
pub fn queue_count(name: &str) -> usize {
    fs::read_dir(format!("/sys/block/{name}/mq"))
        .map(Iterator::count)
        .unwrap_or(0)
}

/// Kernel name of the block device behind `path`, following links (`/dev/ublk-tap/g/v` -> `ublkb0`).
pub fn block_name(path: &Path) -> String {
    let real = fs::canonicalize(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    real.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
