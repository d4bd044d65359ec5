//! The command line as an operator meets it: each mistake gets one clear line, a documented exit
//! code, and nothing has changed. Nothing here needs a kernel with ublk; what does is in `tests/`.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use ublk_tap::state::{Registered, Rest, Service, State, StateFile, Unclean};
use wire::Name;

const OK: i32 = 0;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;
const PRIVILEGE: i32 = 5;
const NO_SPACE: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(30);

/// A host with nothing on it yet.
struct Host {
    root: tempfile::TempDir,
}

/// A tap in the foreground; killed if the test does not end it.
struct Tap(Child);

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["etc/identity", "state", "run", "dev"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn enrol(&self) {
        fs::write(
            self.path("etc/identity/receiver.toml"),
            "source = \"db1\"\n",
        )
        .unwrap();
    }

    fn disk(&self, name: &str, bytes: usize) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, vec![7; bytes]).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
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
    fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(OK), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fails unless the command ends with `code` and one line that has `words` in it.
    #[track_caller]
    fn refused(&self, args: &[&str], code: i32, words: &str) -> String {
        refused(&self.command(args).output().unwrap(), code, words)
    }

    #[track_caller]
    fn add_refused(&self, disk: &Path, code: i32, words: &str) {
        let before = self.everything();
        let disk = disk.display().to_string();
        self.refused(
            &["add", &disk, "--group", "pg", "--volume", "data"],
            code,
            words,
        );
        assert_eq!(self.everything(), before, "nothing may have changed");
    }

    fn tap(&self, args: &[&str]) -> Tap {
        let log = File::create(self.path("log")).unwrap();
        let mut command = self.command(&["run", "--group", "pg"]);
        let tap = Tap(command
            .args(args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap());
        let start = Instant::now();
        while UnixStream::connect(self.path("run/pg/control.sock")).is_err() {
            assert!(start.elapsed() < PATIENCE, "{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        tap
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Every path on the host.
    fn everything(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.root.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    dirs.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }
}

impl Tap {
    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.0)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn code(mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the tap does not end");
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) -> String {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(line.lines().count(), 1, "one line: {line}");
    assert!(
        line.starts_with("ublk-tap: ") && line.contains(words),
        "{words:?}: {line}"
    );
    line
}

fn has_ublk() -> bool {
    Path::new("/dev/ublk-control").exists()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_command_line_that_is_none_gets_one_line() {
    let host = Host::new();
    host.refused(&[], USAGE, "subcommand");
    host.refused(&["frobnicate"], USAGE, "frobnicate");
    host.refused(&["add", "/dev/null"], USAGE, "--group");
    host.refused(
        &["add", "x", "--group", "../up", "--volume", "v"],
        USAGE,
        "a-z",
    );
    host.refused(&["barrier", "pg", "--wait", "luck"], USAGE, "durable");
    host.refused(
        &["barrier", "pg", "--wait", "durable", "--timeout", "soon"],
        USAGE,
        "soon",
    );
    host.refused(&["remove", "a/b/c"], USAGE, "a/b/c");
    host.refused(
        &["remove", "pg/data", "--forget", "--abandon"],
        USAGE,
        "--abandon",
    );
    assert!(host.ok(&["--help"]).contains("Exit codes: 0 ok"));
}

#[test]
fn an_unknown_group_is_named() {
    let host = Host::new();
    for args in [
        &["status", "nosuch"][..],
        &["remove", "nosuch"],
        &["remove", "nosuch/data", "--abandon"],
        &["remove", "nosuch/data", "--forget"],
        &["barrier", "nosuch", "--wait", "durable"],
        &["cleanup", "nosuch"],
    ] {
        host.refused(args, REFUSED, "no group nosuch");
    }
    assert!(host.ok(&["list"]).contains("no volumes"));
    assert!(host.ok(&["status"]).contains("no groups"));
    assert!(host.ok(&["cleanup"]).contains("nothing was left behind"));
}

#[test]
fn what_is_no_disk_is_refused() {
    let host = Host::new();
    host.enrol();
    host.add_refused(&host.disk("odd.img", 10_000), REFUSED, "not a multiple");
    host.add_refused(&host.disk("empty.img", 0), REFUSED, "is empty");
    host.add_refused(&host.path("none"), USAGE, "does not exist");
    host.add_refused(&host.path("etc"), USAGE, "neither a block device nor");
    let long = host.path(&"x".repeat(255));
    host.add_refused(&long, USAGE, "longer than 256 bytes");
}

#[test]
fn a_disk_another_tap_has_is_refused() {
    let host = Host::new();
    host.enrol();
    let disk = host.disk("a.img", 1 << 20);
    let held = File::open(&disk).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    host.add_refused(&disk, REFUSED, "already tapped or locked");
}

#[test]
fn another_disk_under_the_same_name_is_refused_with_both_identities() {
    let host = Host::new();
    host.enrol();
    let group = Name::new("pg").unwrap();
    let mut state = State::new(group.clone(), 5);
    state.put(Registered {
        name: Name::new("data").unwrap(),
        identity: "wwn:naa.5000c500a1b2c3d4".into(),
        path: "/dev/sdc".into(),
        size_bytes: 1 << 20,
        sector_bytes: 512,
        service: Service::default(),
        rest: Rest::Unclean(Unclean::Abandoned),
    });
    drop(StateFile::open_or_create(&host.path("state/pg.state"), state).unwrap());
    let disk = host.disk("a.img", 1 << 20);
    host.add_refused(&disk, REFUSED, "wwn:naa.5000c500a1b2c3d4 (it was /dev/sdc)");
    host.add_refused(&disk, REFUSED, "is file:");
    let listed = host.ok(&["list"]);
    assert!(
        listed.contains("pg/data") && listed.contains("stopped"),
        "{listed}"
    );
    let status = host.ok(&["status", "pg"]);
    assert!(status.contains("removed with --abandon"), "{status}");
    host.refused(
        &["barrier", "pg", "--wait", "durable"],
        REFUSED,
        "not running",
    );
    host.refused(&["remove", "pg/data"], REFUSED, "not running");

    host.refused(
        &["remove", "pg/wal", "--forget"],
        REFUSED,
        "pg/wal is not known",
    );
    host.ok(&["remove", "pg/data", "--forget"]);
    let known = StateFile::peek(&host.path("state/pg.state"), &group)
        .unwrap()
        .unwrap();
    assert!(known.volumes.is_empty() && known.incarnation.counter == 5);
    assert!(!host.path("run/pg").exists());
}

#[test]
fn settings_with_an_unknown_key_are_refused_with_the_line() {
    let host = Host::new();
    host.enrol();
    fs::write(host.path("etc/pg.toml"), "park_ms = 5\nring_bites = 3\n").unwrap();
    host.add_refused(
        &host.disk("a.img", 1 << 20),
        USAGE,
        "pg.toml line 2: unknown field",
    );
    let run = host.refused_run(&[], USAGE);
    assert!(run.contains("line 2"), "{run}");
}

#[test]
fn a_host_that_has_not_joined_is_told_to() {
    let host = Host::new();
    host.add_refused(&host.disk("a.img", 1 << 20), REFUSED, "ublk-tap join TOKEN");
}

#[test]
fn sizes_no_device_can_have_are_refused() {
    let host = Host::new();
    host.enrol();
    let disk = host.disk("a.img", 1 << 20).display().to_string();
    let add = |more: &[&'static str], words: &str| {
        let args = ["add", &disk, "--group", "pg", "--volume", "data"];
        let args: Vec<&str> = args.into_iter().chain(more.iter().copied()).collect();
        host.refused(&args, USAGE, words);
    };
    add(&["--queues", "0"], "queues is 0");
    add(&["--depth", "5000"], "depth is 5000");
    add(
        &["--frontend", "nbd", "--depth", "1"],
        "over NBD it must be 2 or more",
    );
    add(&["--frontend", "floppy"], "nbd");
    let long = "x".repeat(64);
    host.refused(
        &[
            "add",
            &disk,
            "--group",
            &long,
            "--volume",
            &long,
            "--frontend",
            "nbd",
        ],
        USAGE,
        "use a shorter name",
    );
    add(&["--ring-size", "5MiB"], "power of two");
    add(&["--ring-size", "much"], "not a size");
}

#[test]
fn without_the_kernel_module_the_operator_is_told_how_to_load_it() {
    if has_ublk() {
        eprintln!("skipped: this kernel has ublk");
        return;
    }
    let host = Host::new();
    host.enrol();
    let disk = host.disk("a.img", 1 << 20);
    host.add_refused(&disk, PRIVILEGE, "modprobe ublk_drv");
    host.add_refused(&disk, PRIVILEGE, "add with `--frontend nbd`");
}

#[test]
fn without_permission_the_operator_is_told_to_be_root() {
    if !is_root() {
        eprintln!("skipped: only root can become somebody with less permission");
        return;
    }
    let host = Host::new();
    host.enrol();
    let disk = host.disk("a.img", 1 << 20);
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o600)).unwrap();
    let disk = disk.display().to_string();
    let mut command = host.command(&["add", &disk, "--group", "pg", "--volume", "data"]);
    refused(
        &command.uid(65534).gid(65534).output().unwrap(),
        PRIVILEGE,
        "run as root",
    );

    let tap = host.tap(&[]);
    let mut command = host.command(&["status", "pg"]);
    refused(
        &command.uid(65534).gid(65534).output().unwrap(),
        PRIVILEGE,
        "run as root",
    );
    drop(tap);
}

#[test]
fn a_ring_that_does_not_fit_its_tmpfs_is_refused_with_sizes_and_leaves_nothing() {
    if !is_root() {
        eprintln!("skipped: only root can mount a small tmpfs");
        return;
    }
    let host = Host::new();
    host.enrol();
    let run = host.path("run").display().to_string();
    let mount = format!("mount -t tmpfs -o size=3m,mode=755 tmpfs {run}");
    let program = env!("CARGO_BIN_EXE_ublk-tap");
    let script =
        format!("{mount} || exit 77; {program} run --group pg; code=$?; ls {run}; exit $code");
    let plain = host.command(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", &script])
        .env("UBLK_TAP_LOG", "error");
    for (variable, value) in plain.get_envs() {
        command.env(variable, value.unwrap());
    }
    let output = command.output().unwrap();
    if output.status.code() == Some(77) || output.status.code() == Some(1) {
        eprintln!("skipped: no mount namespace here: {output:?}");
        return;
    }
    refused(&output, NO_SPACE, "MiB");
    assert!(
        output.stdout.is_empty(),
        "nothing is left in the run directory: {output:?}"
    );
    assert!(!host.path("state/pg.state").exists());
}

#[test]
fn a_run_directory_on_a_disk_is_refused() {
    let host = Host::new();
    host.enrol();
    let run = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = host.command(&["run", "--group", "pg"]);
    command
        .env("UBLK_TAP_RUN_DIR", run.path())
        .env("UBLK_TAP_LOG", "error");
    let output = command.output().unwrap();
    if output.status.code() == Some(OK) {
        eprintln!("skipped: the target directory is on a tmpfs");
        return;
    }
    refused(&output, REFUSED, "not on a tmpfs");
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
}

#[test]
fn a_tap_in_the_foreground_answers_and_ends_without_a_trace() {
    let host = Host::new();
    host.enrol();
    let before = host.everything();
    let tap = host.tap(&["--ring-size", "4MiB"]);
    let pid = fs::read_to_string(host.path("run/pg/tap.pid")).unwrap();
    assert_eq!(pid.trim(), tap.0.id().to_string());
    let status: serde_json::Value =
        serde_json::from_str(&host.ok(&["status", "pg", "--json"])).unwrap();
    assert_eq!(
        (&status["mode"], &status["group"]),
        (&"async".into(), &"pg".into())
    );
    assert_eq!(status["ring_bytes"], 4 << 20);
    assert_eq!(status["source"], "db1");
    for name in [
        "captured",
        "settled",
        "sent",
        "durable",
        "applied",
        "lag_bytes",
        "lag_seconds",
        "recoverable_to",
        "mode",
        "reason",
        "link",
        "volumes",
    ] {
        assert!(status.get(name).is_some(), "{name} is a documented name");
    }
    host.refused(&["remove", "pg/data"], REFUSED, "pg/data is not tapped");
    let second = host.refused_run(&[], REFUSED);
    assert!(
        second.contains(&format!("runs already (process {})", pid.trim())),
        "{second}"
    );
    host.refused(&["cleanup", "pg"], REFUSED, "is running");
    tap.signal(rustix::process::Signal::TERM);
    assert_eq!(tap.code(), Some(OK));
    let mut after = host.everything();
    after.retain(|path| !path.ends_with("log"));
    assert_eq!(after, before);
}

#[test]
fn a_tap_that_was_killed_is_cleaned_up_after_and_its_log_is_kept() {
    let host = Host::new();
    host.enrol();
    let tap = host.tap(&["--ring-size", "4MiB"]);
    tap.signal(rustix::process::Signal::KILL);
    drop(tap);
    assert!(host.path("run/pg/ring").exists());
    fs::write(host.path("run/pg/tap.log"), "the last words\n").unwrap();
    fs::create_dir(host.path("dev/pg")).unwrap();
    std::os::unix::fs::symlink("/dev/ublkb77", host.path("dev/pg/data")).unwrap();
    let status = host.ok(&["status", "pg"]);
    assert!(status.contains("mode stopped"), "{status}");
    let said = host.ok(&["cleanup", "pg"]);
    assert!(
        said.contains("removed the link") && said.contains("ring"),
        "{said}"
    );
    assert!(!host.path("run/pg").exists() && !host.path("dev/pg").exists());
    let kept = fs::read_to_string(host.path("run/pg.crashed.log")).unwrap();
    assert_eq!(kept, "the last words\n");
    host.tap(&["--ring-size", "4MiB"]);
}

#[test]
fn an_incarnation_never_comes_twice() {
    let host = Host::new();
    host.enrol();
    let mut last = 0;
    for _ in 0..3 {
        let tap = host.tap(&["--ring-size", "4MiB"]);
        let text = host.ok(&["status", "pg", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        let incarnation = status["incarnation"].as_str().unwrap();
        let counter: u64 = incarnation.split('-').next().unwrap().parse().unwrap();
        assert!(counter > last, "{incarnation} after {last}");
        last = counter;
        tap.signal(rustix::process::Signal::KILL);
    }
}

#[test]
fn join_is_the_shippers_business() {
    let host = Host::new();
    let shipper = host.path("shipper");
    fs::write(
        &shipper,
        "#!/bin/sh\necho \"$@\" in $UBLK_TAP_CONFIG_DIR\nexit 3\n",
    )
    .unwrap();
    fs::set_permissions(&shipper, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = host.command(&["join", "ut1.abc", "--force"]);
    let output = command
        .env("UBLK_TAP_SHIPPER_BIN", &shipper)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(REFUSED));
    let expected = format!("join ut1.abc --force in {}\n", host.path("etc").display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let mut command = host.command(&["join", "ut1.abc"]);
    let output = command
        .env("UBLK_TAP_SHIPPER_BIN", host.path("none"))
        .output()
        .unwrap();
    refused(&output, 1, "no ublk-tap-shipper at");
}

#[test]
fn the_shipper_is_started_with_its_group_and_ends_with_a_killed_tap() {
    let host = Host::new();
    host.enrol();
    let shipper = host.path("shipper");
    let script = "#!/bin/sh\necho $$ \"$@\" > \"$UBLK_TAP_STATE_DIR/said\"\nexec sleep 600\n";
    fs::write(&shipper, script).unwrap();
    fs::set_permissions(&shipper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(host.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = host.command(&["run", "--group", "pg", "--ring-size", "4MiB"]);
    command
        .env("UBLK_TAP_SHIPPER_BIN", &shipper)
        .stderr(Stdio::null());
    let tap = Tap(command.spawn().unwrap());
    let said = wait_for(&host.path("state/said"));
    let (pid, args) = said.split_once(' ').unwrap();
    assert_eq!(args, "run --group pg\n");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    if is_root() {
        let uids = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap();
        assert!(!uids.split_whitespace().any(|uid| uid == "0"), "{uids}");
        let groups = status
            .lines()
            .find(|line| line.starts_with("Groups:"))
            .unwrap();
        assert_eq!(groups.trim(), "Groups:", "no group of root's is left");
    }
    drop(tap);
    let start = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(start.elapsed() < PATIENCE, "the shipper outlives its tap");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn wait_for(path: &Path) -> String {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.ends_with('\n') {
            return text;
        }
        assert!(start.elapsed() < PATIENCE, "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Host {
    /// Runs a tap that is refused; what it says last.
    #[track_caller]
    fn refused_run(&self, more: &[&str], code: i32) -> String {
        let mut command = self.command(&["run", "--group", "pg"]);
        let command = command.args(more).env("UBLK_TAP_LOG", "error");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        assert_eq!(said.lines().count(), 1, "one line: {said}");
        said
    }
}

#[test]
fn an_upgrade_makes_the_running_process_the_program_that_was_asked() {
    let host = Host::new();
    host.enrol();
    host.refused(&["upgrade", "pg"], REFUSED, "there is no group pg");
    let tap = host.tap(&[]);
    let newer = host.path("newer");
    fs::copy(env!("CARGO_BIN_EXE_ublk-tap"), &newer).unwrap();
    let mut upgrade = Command::new(&newer);
    upgrade.args(["upgrade", "pg"]);
    for (variable, value) in host.command(&[]).get_envs() {
        upgrade.env(variable, value.unwrap());
    }
    let output = upgrade.output().unwrap();
    assert_eq!(output.status.code(), Some(OK), "{output:?}");
    let pid = tap.0.id();
    // By what it is: its path leads through a mount namespace of its own.
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    assert_eq!(inode(&exe), inode(&newer));
    let status = host.ok(&["status", "pg", "--json"]);
    assert!(status.contains(&format!("\"pid\": {pid}")), "{status}");
}

#[test]
fn who_holds_a_device_says_so_syncs_when_told_and_ends_with_its_input() {
    let host = Host::new();
    let input = host.path("input");
    let ask = |path: &Path, told: &str| {
        fs::write(&input, told).unwrap();
        let path = path.display().to_string();
        let mut command = host.command(&["hold", &path]);
        command.stdin(File::open(&input).unwrap());
        // Without more input it ends.
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(OK), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let disk = host.disk("a.img", 4096);
    assert_eq!(ask(&disk, ""), "held\n");
    assert_eq!(ask(&disk, "write\n"), "held\nwritten\n");
    assert!(ask(&host.path("nothing"), "").contains("No such file"));
    // A pipe takes no sync.
    let pipe = host.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let _writer = File::options().read(true).write(true).open(&pipe).unwrap();
    assert!(ask(&pipe, "write\n").starts_with("held\nsync "));
}
