//! Devices of `rublk`, the plain ublk tool: what other tools see, and what a restart costs them.

use crate::run::{Run, eventually};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A null device that outlives its server.
#[derive(Debug)]
pub struct RublkNull {
    id: u32,
    path: PathBuf,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl RublkNull {
    /// Makes one.
    pub fn new() -> Self {
        let id = 40; // far from those the kernel gives
        let number = id.to_string();
        Run::new("rublk")
            .args(["add", "null", "-q", "1", "-d", "128", "-r", "-n", &number])
            .ok();
        let path = PathBuf::from(format!("/dev/ublkb{id}"));
        eventually("rublk has made its device", PATIENCE, || path.exists());
        Self { id, path }
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SIGKILL to its server, and a new one as soon as the kernel has let go of that: `rublk recover`
    /// does not wait for it.
    pub fn kill_and_recover(&self) {
        let pid = self.server();
        Run::sh(&format!("kill -KILL {pid}")).ok();
        self.await_state("QUIESCED");
        let number = self.id.to_string();
        Run::new("rublk").args(["recover", "-n", &number]).ok();
        self.await_state("LIVE");
    }

    fn await_state(&self, state: &str) {
        let start = Instant::now();
        let words = format!("state {state}");
        while !self.list().contains(&words) {
            assert!(start.elapsed() < PATIENCE, "not {state}: {}", self.list());
        }
    }

    fn list(&self) -> String {
        let number = self.id.to_string();
        Run::new("rublk").args(["list", "-n", &number]).ok().stdout
    }

    fn server(&self) -> i32 {
        let shown = self.list();
        daemon_pid(&shown).unwrap_or_else(|| panic!("no daemon pid: {shown}"))
    }
}

/// What `rublk list` calls the process that serves a device.
pub fn daemon_pid(shown: &str) -> Option<i32> {
    let rest = shown.split("daemon pid").nth(1)?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Default for RublkNull {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for RublkNull {
    fn drop(&mut self) {
        let number = self.id.to_string();
        Run::new("rublk").args(["del", "-n", &number]).done();
    }
}
