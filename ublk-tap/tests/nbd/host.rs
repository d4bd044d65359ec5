//! A host with one disk, its tap, and the clients' programs.

use crate::sink::Sink;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SIZE: usize = 48 << 20;

pub(crate) struct Host {
    root: tempfile::TempDir,
    /// Not on a tmpfs but where speed is measured, so that the disk is read and written past the
    /// page cache where it can be.
    files: tempfile::TempDir,
    pub(crate) sink: Sink,
}

/// A program in the background; killed if the test does not end it.
pub(crate) struct Running(pub(crate) Child);

impl Host {
    /// With a disk full of data, and nothing added.
    pub(crate) fn new() -> Self {
        Self::with_files_in(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// The same, with the disk in `dir`.
    pub(crate) fn with_files_in(dir: &Path) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["etc/identity", "state", "run", "dev"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let write = |file: &str, text: &str| fs::write(root.path().join(file), text).unwrap();
        write("etc/identity/receiver.toml", "source = \"db1\"\n");
        write("etc/pg.toml", "shipper = \"external\"\nstop_ms = 2000\n");
        let files = tempfile::tempdir_in(dir).unwrap();
        fs::write(files.path().join("disk"), pattern(SIZE, 3)).unwrap();
        let sink = Sink::start(&root.path().join("run/pg/shipper.sock"), SIZE);
        Self { root, files, sink }
    }

    /// With its disk added.
    pub(crate) fn with_volume() -> Self {
        let host = Self::new();
        host.add();
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A file beside the disk.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/pg/data.nbd")
    }

    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket().display())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ublk-tap"));
        command.args(args).stdin(Stdio::null());
        for (variable, dir) in [
            ("CONFIG", "etc"),
            ("STATE", "state"),
            ("RUN", "run"),
            ("DEV", "dev"),
        ] {
            command.env(format!("UBLK_TAP_{variable}_DIR"), self.path(dir));
        }
        command.env("UBLK_TAP_SHIPPER_BIN", "/bin/true");
        command
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        said(self.command(args).output().unwrap())
    }

    /// Fails unless the command is refused in one line that has `words` in it.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str], code: i32, words: &str) {
        let output = self.command(args).output().unwrap();
        let line = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(line.lines().count(), 1, "one line: {line}");
        assert!(line.contains(words), "{words:?}: {line}");
    }

    /// Adds the disk; what was said.
    #[track_caller]
    pub(crate) fn add(&self) -> String {
        let disk = self.file("disk").display().to_string();
        let volume = ["add", &disk, "--group", "pg", "--volume", "data"];
        let how = ["--frontend", "nbd", "--offline", "--wait"];
        self.ok(&[&volume[..], &how].concat())
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "pg", "--json"])).unwrap()
    }

    pub(crate) fn volume(&self) -> Value {
        self.status()["volumes"][0].clone()
    }

    pub(crate) fn disk(&self) -> Vec<u8> {
        fs::read(self.file("disk")).unwrap()
    }

    /// Waits for what clients have sent, then compares the disk with what the records made.
    #[track_caller]
    pub(crate) fn agrees(&self) {
        eventually("all clients are gone", || self.volume()["queues"] == 0);
        let status = self.status();
        self.sink.await_stamp(status["captured"].as_u64().unwrap());
        assert_eq!(status["mode"], "async", "{status}");
        let difference = self.sink.difference(&self.disk());
        assert_eq!(difference, None, "P4: disk and records agree");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A tap that the test has left running; it was started in the background.
        let pid = fs::read_to_string(self.path("run/pg/tap.pid")).unwrap_or_default();
        let Some(pid) = pid
            .trim()
            .parse()
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        else {
            return;
        };
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program has said; fails unless it ended well.
#[track_caller]
pub(crate) fn said(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program of a client, or none, said in words, where it is not installed or we are not root.
pub(crate) fn client(program: &str) -> Option<Command> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&paths).any(|dir| dir.join(program).exists());
    if !is_there {
        eprintln!("skipped: {program} is not installed; scripts/setup unit installs it");
        return None;
    }
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    can_tap().then_some(command)
}

/// Whether a tap can run here; if not, it is said in words.
pub(crate) fn can_tap() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can run a tap with a shipper that is not its child");
    }
    is_root
}

pub(crate) fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at / 512 * 7 + seed + (at >> 16)) as u8)
        .collect()
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Mounts of this machine at or below `path`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.contains(&path.display().to_string())
}
