//! What the live process may still do, as the kernel says, and that it can do its work with it.

use crate::eventually;
use crate::host::{Host, open_to_all};
use crate::receiver::Receiver;
use ring::handoff::{LinkState, Listener};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use rustix::thread::{CapabilitySet, Uid};
use shipper::run::SOCKET_FILE;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use wire::{JoinReply, Name, Token};

/// A live `ublk-tap-shipper run`.
struct Process(Child);

fn program(host: &Host) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ublk-tap-shipper"));
    command
        .env("UBLK_TAP_CONFIG_DIR", host.config_dir())
        .env("UBLK_TAP_RUN_DIR", host.run_dir().join("run"));
    command
}

impl Process {
    fn start(host: &mut Host) -> Self {
        let child = program(host).args(["run", "--group", "pg"]).spawn();
        host.welcome();
        Self(child.unwrap())
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.id()))
    }

    fn entries(&self, name: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.proc(name)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let mut ended = None;
        eventually("the shipper ends", || {
            ended = self.0.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One field of a `status` file, its values in one string.
fn field(status: &Path, name: &str) -> String {
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line[1..].trim().replace('\t', " ")
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        println!("skipped in part: only root sees maps and descriptors, and has a set to bound");
    }
    is_root
}

#[test]
fn every_thread_of_a_live_shipper_is_without_privilege() {
    let receiver = Receiver::new();
    let mut host = Host::new(&receiver.address, receiver.pin(), 4 << 20);
    let shipper = Process::start(&mut host);
    let stamp = host.write(4096);
    host.until_acked(stamp);
    for thread in shipper.entries("task") {
        let status = thread.join("status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
            if set != "CapBnd" || is_root() {
                assert_eq!(field(&status, set), "0000000000000000", "{set}");
            }
        }
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        assert_eq!(field(&status, "Seccomp"), "2");
        assert_eq!(field(&status, "Groups"), "");
        for id in ["Uid", "Gid"] {
            let ids = field(&status, id);
            assert!(ids.split(' ').all(|id| id != "0"), "{id} {ids}");
        }
    }
    let limits = fs::read_to_string(shipper.proc("limits")).unwrap();
    let limit = |name: &str| {
        let values = limits.lines().find_map(|line| line.strip_prefix(name));
        let values: Vec<&str> = values.unwrap().split_whitespace().take(2).collect();
        values.join(" ")
    };
    assert_eq!(limit("Max core file size"), "0 0", "it would hold the key");
    assert_eq!(limit("Max open files"), "256 256");
    assert_ne!(
        limit("Max file size"),
        "unlimited unlimited",
        "a log in memory"
    );
    // What belongs to root here cannot be read, traced or written by others of the shipper's user.
    assert_eq!(fs::metadata(shipper.proc("mem")).unwrap().uid(), 0);
    assert_eq!(shipper.stop(), Some(0));
}

#[test]
fn a_live_shipper_has_the_ring_read_only_one_page_to_write_and_no_disk() {
    if !is_root() {
        return;
    }
    let receiver = Receiver::new();
    let mut host = Host::new(&receiver.address, receiver.pin(), 4 << 20);
    let shipper = Process::start(&mut host);
    let stamp = host.write(4096);
    host.until_acked(stamp);
    let maps = fs::read_to_string(shipper.proc("maps")).unwrap();
    let words = maps.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[1], words.get(5).copied().unwrap_or_default())
    });
    let mut shared = Vec::new();
    for (rights, name) in words {
        assert!(
            !rights.starts_with("rwx") && !rights.starts_with("-wx"),
            "{name}"
        );
        if rights.ends_with('s') {
            shared.push((rights, name));
        }
    }
    shared.sort_unstable();
    let ring = host.run_dir().join("run/pg/ring");
    assert_eq!(
        shared,
        [
            ("r--s", ring.to_str().unwrap()),
            ("rw-s", "/memfd:ublk-tap-consumer"),
        ]
    );
    for descriptor in shipper.entries("fd") {
        let is_disk =
            fs::metadata(&descriptor).is_ok_and(|file| file.file_type().is_block_device());
        let name = fs::read_link(&descriptor).unwrap_or_default();
        assert!(!is_disk, "{}", name.display());
        let info = shipper.proc("fdinfo").join(descriptor.file_name().unwrap());
        if name == ring {
            let flags = u32::from_str_radix(&field(&info, "flags:"), 8).unwrap();
            assert_eq!(flags & 3, 0, "the ring is open to read");
        }
    }
    assert_eq!(shipper.stop(), Some(0));
}

#[test]
fn a_confined_shipper_finds_its_receiver_again_and_an_enrolment_that_was_replaced() {
    let first = Receiver::new();
    let port = first.address.rsplit(':').next().unwrap().to_owned();
    let mut host = Host::new(&format!("localhost:{port}"), first.pin(), 4 << 20);
    let shipper = Process::start(&mut host);
    let stamp = host.write(4096);
    host.until_acked(stamp);

    // Away and back: the name is resolved again, the key read again.
    let kept = tempfile::tempdir().unwrap();
    first.identity.save(kept.path()).unwrap();
    let identity = ::link::Identity::load(kept.path()).unwrap();
    drop(first);
    host.until_link(LinkState::Down);
    let second = Receiver::with(identity, &format!("127.0.0.1:{port}"));
    let stamp = host.write(4096);
    host.until_acked(stamp);

    let third = Receiver::new();
    third.journal().join_reply = Some(JoinReply::Enrolled);
    let token = Token {
        address: third.address.clone(),
        receiver: third.pin(),
        secret: [7; 32],
        source: Name::new("db1").unwrap(),
    };
    let joined = program(&host)
        .args(["join", "--force", &token.to_string()])
        .output();
    assert!(joined.unwrap().status.success());
    drop(second);
    let stamp = host.write(4096);
    host.until_acked(stamp);
    assert!(!third.journal().hellos.is_empty());
    assert_eq!(shipper.stop(), Some(0));
}

#[test]
fn a_ring_is_taken_of_no_other_user() {
    const STRANGER: u32 = 12345;
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let group = dir.path().join("pg");
    fs::create_dir(&group).unwrap();
    std::os::unix::fs::chown(&group, Some(STRANGER), None).unwrap();
    // The user is this thread's; who listens keeps it.
    let listening = std::thread::spawn(move || {
        let stranger = Uid::from_raw(STRANGER);
        rustix::thread::set_thread_res_uid(stranger, stranger, stranger).unwrap();
        Listener::bind(&group.join(SOCKET_FILE), 0o666).unwrap()
    });
    let _listener = listening.join().unwrap();
    let log = dir.path().join("log");
    let child = Command::new(env!("CARGO_BIN_EXE_ublk-tap-shipper"))
        .args(["run", "--group", "pg"])
        .env("UBLK_TAP_CONFIG_DIR", dir.path())
        .env("UBLK_TAP_RUN_DIR", dir.path())
        .stderr(File::create(&log).unwrap())
        .spawn();
    let shipper = Process(child.unwrap());
    eventually("the stranger is named", || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains("not a tap's socket: a process of user 12345")
    });
    assert_eq!(shipper.stop(), Some(0));
}

#[test]
fn root_that_cannot_become_another_user_does_not_ship() {
    if !is_root() {
        return;
    }
    let receiver = Receiver::new();
    let host = Host::new(&receiver.address, receiver.pin(), 4 << 20);
    let mut command = program(&host);
    command.args(["run", "--group", "pg"]).stdin(Stdio::null());
    // The set is this thread's, and what it starts has no more.
    let thread = std::thread::spawn(move || {
        let set_user = CapabilitySet::SETUID;
        rustix::thread::remove_capability_from_bounding_set(set_user).unwrap();
        command.output().unwrap()
    });
    let Output { status, stderr, .. } = thread.join().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(5), "{text}");
    assert!(
        text.contains("cannot become an unprivileged user"),
        "{text}"
    );
}

#[test]
fn a_host_that_has_not_joined_does_not_ship() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let output = Command::new(env!("CARGO_BIN_EXE_ublk-tap-shipper"))
        .args(["run", "--group", "pg"])
        .env("UBLK_TAP_CONFIG_DIR", dir.path().join("absent"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("ublk-tap join TOKEN"), "{text}");
}
