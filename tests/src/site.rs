//! One protected host and one receiver on this machine, driven by their command lines only.
//!
//! A site owns a directory, its daemons and its devices; dropping it takes all of them away, also
//! when the test has failed, and shows the daemons' logs in that case.

use crate::run::{Done, Run, eventually};
use serde_json::Value;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Patience for anything that crosses the link: emulated cryptography is slow.
pub const LINK_PATIENCE: Duration = Duration::from_secs(240);

/// A source host and a receiver.
#[derive(Debug)]
pub struct Site {
    root: TempDir,
    group: String,
    address: String,
    receiver: Option<Child>,
}

/// Which daemon of the source host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// The block driver.
    Tap,
    /// The link's end.
    Shipper,
}

/// A signal a test sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// No chance to clean up.
    Kill,
    /// Freeze.
    Stop,
    /// Go on.
    Continue,
    /// A clean stop.
    Terminate,
}

/// Path of one of our programs: beside this test's own executable, where cargo builds them.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let folders = own.ancestors().skip(1).map(Path::to_path_buf);
    folders
        .take(3)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not built: cargo build --release"))
}

impl Site {
    /// A receiver that serves and a source `db1` enrolled with it, for group `group`.
    pub fn new(group: &str) -> Self {
        Self::prepared(group, |_| Vec::new())
    }

    /// The same, where `prepare` is given the directory the receiver's own will be in, before it is
    /// made, and says what else `init` is told.
    pub fn prepared(group: &str, prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let mut site = Self::unenrolled_prepared(group, prepare);
        site.enrol();
        site
    }

    /// The same, before the source has joined.
    pub fn unenrolled(group: &str) -> Self {
        Self::unenrolled_prepared(group, |_| Vec::new())
    }

    fn enrol(&mut self) {
        let token = self.receiver_cli(["token", "--source", "db1"]).ok().stdout;
        self.tap(["join", token.trim()]).ok();
    }

    fn unenrolled_prepared(group: &str, prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        crate::kernel::needs_ublk();
        let root = TempDir::with_prefix("ut-").unwrap_or_else(|error| panic!("tmp: {error}"));
        let address = format!("127.0.0.1:{}", free_port());
        let mut site = Self {
            root,
            group: group.into(),
            address,
            receiver: None,
        };
        for folder in ["etc", "state", "run", "dev", "receiver", "targets", "mnt"] {
            let folder = site.path(folder);
            fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        // The unprivileged shipper must reach its sockets and its key below this directory.
        Run::sh(&format!("chmod 755 {}", site.root.path().display())).ok();
        let address = site.address.clone();
        let more = prepare(&site.path("receiver"));
        let init = ["init", "--listen", &address].map(String::from);
        site.receiver_cli(init.iter().chain(&more)).ok();
        site.start_receiver();
        site
    }

    /// A path inside the site's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The receiver's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `ublk-tap ARGS` on the source host.
    pub fn tap<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.tap_of(&program("ublk-tap"), args)
    }

    /// The same, of another copy of the program.
    pub fn tap_of<S: AsRef<std::ffi::OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Run {
        Run::new(program)
            .args(args)
            .env("UBLK_TAP_CONFIG_DIR", self.path("etc"))
            .env("UBLK_TAP_STATE_DIR", self.path("state"))
            .env("UBLK_TAP_RUN_DIR", self.path("run"))
            .env("UBLK_TAP_DEV_DIR", self.path("dev"))
    }

    /// `ublk-tap-receiver ARGS`.
    pub fn receiver_cli<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Run {
        Run::new(program("ublk-tap-receiver"))
            .args(args)
            .env("UBLK_TAP_RECEIVER_DIR", self.path("receiver").join("data"))
    }

    /// Starts `serve`; its log goes to the site's directory.
    pub fn start_receiver(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("receiver.log"));
        let log = log.unwrap_or_else(|error| panic!("receiver.log: {error}"));
        let copy = log
            .try_clone()
            .unwrap_or_else(|error| panic!("receiver.log: {error}"));
        let child = Command::new(program("ublk-tap-receiver"))
            .arg("serve")
            .env("UBLK_TAP_RECEIVER_DIR", self.path("receiver").join("data"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .unwrap_or_else(|error| panic!("serve: {error}"));
        self.receiver = Some(child);
        eventually("the receiver answers", Duration::from_secs(60), || {
            self.receiver_cli(["status", "--json"]).done().code == 0
        });
    }

    /// Sends `signal` to the receiver; a kill or a termination is waited for.
    pub fn signal_receiver(&mut self, signal: Signal) {
        let Some(child) = self.receiver.as_mut() else {
            panic!("the receiver does not run")
        };
        send(child.id() as i32, signal);
        if matches!(signal, Signal::Kill | Signal::Terminate) {
            let status = child.wait().unwrap_or_else(|error| panic!("wait: {error}"));
            let clean = status.success() || signal == Signal::Kill;
            assert!(clean, "the receiver did not stop cleanly: {status}");
            self.receiver = None;
        }
    }

    /// Registers `volume` at the receiver over sparse target files; gives their paths.
    pub fn register(&self, volume: &str, size_bytes: u64, targets: usize) -> Vec<PathBuf> {
        let paths: Vec<PathBuf> = (0..targets)
            .map(|n| self.path("targets").join(format!("{volume}.{n}")))
            .collect();
        self.register_on(volume, size_bytes, &paths);
        paths
    }

    /// Registers `volume` at the receiver over these targets.
    pub fn register_on(&self, volume: &str, size_bytes: u64, targets: &[PathBuf]) {
        let name = format!("{}/{volume}", self.group);
        let mut args: Vec<String> = [
            "volume",
            "add",
            &name,
            "--source",
            "db1",
            "--size",
            &size_bytes.to_string(),
        ]
        .map(String::from)
        .to_vec();
        for path in targets {
            args.extend(["--target".into(), path.display().to_string()]);
        }
        self.receiver_cli(&args).ok();
    }

    /// Registers and adds `disk` as `volume` with one target; gives the tapped device.
    pub fn protect(&self, disk: &Path, volume: &str) -> PathBuf {
        self.register(volume, crate::disk::size_bytes(disk), 1);
        self.add(disk, volume, &[])
    }

    /// `ublk-tap add`; gives the tapped device.
    pub fn add(&self, disk: &Path, volume: &str, more: &[&str]) -> PathBuf {
        self.add_run(disk, volume, more).ok();
        self.device(volume)
    }

    /// `ublk-tap add`, for its ending.
    pub fn add_run(&self, disk: &Path, volume: &str, more: &[&str]) -> Run {
        let disk = disk.display().to_string();
        let args = ["add", &disk, "--group", &self.group, "--volume", volume];
        self.tap(args.iter().chain(more))
    }

    /// The stable name of a tapped volume.
    pub fn device(&self, volume: &str) -> PathBuf {
        self.path("dev").join(&self.group).join(volume)
    }

    /// The group's status on the source host.
    pub fn status(&self) -> Value {
        self.tap(["status", &self.group, "--json"]).ok().json()
    }

    /// The receiver's status.
    pub fn receiver_status(&self) -> Value {
        self.receiver_cli(["status", "--json"]).ok().json()
    }

    /// The receiver's facts about the group.
    pub fn receiver_group(&self) -> Value {
        let status = self.receiver_status();
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        let own = groups
            .into_iter()
            .find(|group| group["group"] == self.group.as_str());
        own.unwrap_or_else(|| panic!("the receiver does not know {}: {status}", self.group))
    }

    /// Whether the receiver has applied every settled record it holds, as after a lost source.
    pub fn applied_all_held(&self) -> bool {
        let group = self.receiver_group();
        let stamp = |key: &str| group[key].as_u64().unwrap_or(0);
        stamp("applied") == stamp("durable").min(stamp("settled"))
    }

    /// A barrier over all completed writes; gives its stamp.
    pub fn barrier(&self, wait: &str) -> u64 {
        let limit = LINK_PATIENCE.as_secs().to_string();
        let done = self
            .tap(["barrier", &self.group, "--wait", wait, "--timeout", &limit])
            .within(LINK_PATIENCE + Duration::from_secs(30))
            .ok();
        let digits = |word: &str| {
            word.trim_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .ok()
        };
        let stamp = done.stdout.split_whitespace().find_map(digits);
        stamp.unwrap_or_else(|| panic!("no stamp: {done}"))
    }

    /// Waits until the group's status has `mode`.
    pub fn wait_mode(&self, mode: &str) {
        eventually(&format!("mode {mode}"), LINK_PATIENCE, || {
            self.status()["mode"] == mode
        });
    }

    /// Exports `volume`'s replica at a complete point into a throwaway file.
    pub fn export(&self, volume: &str) -> PathBuf {
        let file = self.path(&format!("export-{volume}-{}", free_port()));
        let name = format!("{}/{volume}", self.group);
        let args = ["volume", "export", &name, &file.display().to_string()];
        self.receiver_cli(args).within(LINK_PATIENCE).ok();
        file
    }

    /// Waits for an applied barrier, then fails unless `volume`'s replica equals `device`.
    #[track_caller]
    pub fn assert_replica_equals(&self, volume: &str, device: &Path) {
        self.barrier("applied");
        let copy = self.export(volume);
        crate::content::same(device, &copy);
        let _ = fs::remove_file(copy);
    }

    /// Process id of a daemon of the source host.
    pub fn pid(&self, daemon: Daemon) -> i32 {
        match daemon {
            Daemon::Tap => self.tap_pid(),
            Daemon::Shipper => self.shipper().expect("the tap has a shipper"),
        }
    }

    fn tap_pid(&self) -> i32 {
        let file = self.path("run").join(&self.group).join("tap.pid");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let pid = text.trim().parse();
        pid.unwrap_or_else(|_| panic!("no pid in {text:?}"))
    }

    /// The tap's shipper, if one runs now.
    fn shipper(&self) -> Option<i32> {
        let tap = self.tap_pid().to_string();
        let line = Run::new("pgrep")
            .args(["-P", &tap, "-f", "ublk-tap-shipper"])
            .done();
        line.stdout.lines().next()?.parse().ok()
    }

    /// Waits for the successor of a shipper that is dead, and for its link.
    ///
    /// Until the tap has seen the dead one go, `status` tells what that one said last, so the
    /// process is asked for first.
    pub fn wait_shipper_after(&self, dead: i32) {
        eventually("the tap has a new shipper", LINK_PATIENCE, || {
            self.shipper().is_some_and(|pid| pid != dead)
        });
        eventually("its link is up", LINK_PATIENCE, || {
            self.status()["link"] == "up"
        });
    }

    /// Sends `signal` to a daemon of the source host.
    pub fn signal(&self, daemon: Daemon, signal: Signal) {
        send(self.pid(daemon), signal);
    }

    /// SIGKILL to the tap and its shipper at once, as a crash of both.
    pub fn kill_source(&self) {
        let (tap, shipper) = (self.pid(Daemon::Tap), self.pid(Daemon::Shipper));
        send(tap, Signal::Kill);
        // It may have gone with its tap by now.
        Run::sh(&format!("kill -KILL {shipper}")).done();
        eventually("the killed tap is gone", Duration::from_secs(60), || {
            !alive(tap)
        });
    }

    /// Runs `ublk-tap cleanup`, as an operator does after a crash.
    pub fn cleanup(&self) -> Done {
        self.tap(["cleanup", &self.group]).ok()
    }

    /// Mounts `device` at the site's mount point.
    pub fn mount(&self, device: &Path, options: &str) -> PathBuf {
        let at = self.path("mnt");
        let args = [
            "-o",
            options,
            &device.display().to_string(),
            &at.display().to_string(),
        ];
        Run::new("mount").args(args).ok();
        at
    }

    /// Unmounts the site's mount point.
    pub fn umount(&self) {
        Run::new("umount").args([self.path("mnt")]).ok();
    }

    fn show_logs(&self) {
        let run = self.path("run").join(&self.group);
        for file in [
            self.path("receiver.log"),
            run.join("tap.log"),
            run.join("shipper.log"),
        ] {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!(
                "--- {} (last {} lines)\n{}",
                file.display(),
                tail.len(),
                tail.join("\n")
            );
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        let mount = self.path("mnt").display().to_string();
        Run::sh(&format!("! mountpoint -q {mount} || umount -l {mount}")).done();
        let text = fs::read_to_string(self.path("run").join(&self.group).join("tap.pid"));
        let pid = text.ok().and_then(|text| text.trim().parse::<i32>().ok());
        if let Some(pid) = pid.filter(|pid| alive(*pid)) {
            Run::sh(&format!(
                "pkill -KILL -P {pid}; kill -KILL {pid}; sleep 0.3"
            ))
            .done();
        }
        self.tap(["cleanup", &self.group]).done();
        if let Some(mut child) = self.receiver.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a process exists and is not a zombie.
pub fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.contains(" Z "))
}

fn send(pid: i32, signal: Signal) {
    let name = match signal {
        Signal::Kill => "KILL",
        Signal::Stop => "STOP",
        Signal::Continue => "CONT",
        Signal::Terminate => "TERM",
    };
    Run::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .ok();
}

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket
        .unwrap_or_else(|error| panic!("no free port: {error}"))
        .port()
}
