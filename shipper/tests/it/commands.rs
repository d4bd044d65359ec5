//! `join`, `check` and `run` as an operator and a tap call them.

use crate::eventually;
use crate::host::{Host, open_to_all};
use crate::receiver::Receiver;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use wire::control::{Refusal, RefusalCode};
use wire::{JoinReply, Name, Pin, Token};

fn shipper(config: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ublk-tap-shipper"))
        .args(args)
        .env("UBLK_TAP_CONFIG_DIR", config)
        .output()
        .unwrap()
}

/// Exit code and what was said, which must be one line.
fn said(output: &Output) -> (i32, String) {
    let all = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(all).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    (output.status.code().unwrap(), text.trim_end().to_owned())
}

fn token_of(receiver: &Receiver) -> Token {
    token(&receiver.address, receiver.pin())
}

fn token(address: &str, receiver: Pin) -> Token {
    Token {
        address: address.into(),
        receiver,
        secret: [7; 32],
        source: Name::new("db1").unwrap(),
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

const CHECK: [&str; 11] = [
    "check",
    "--group",
    "pg",
    "--volume",
    "data",
    "--size",
    "1048576",
    "--sector",
    "512",
    "--disk-identity",
    "file:1:2",
];

#[test]
fn a_join_leaves_key_certificate_and_receiver_for_the_user_that_ships() {
    let receiver = Receiver::new();
    receiver.journal().join_reply = Some(JoinReply::Enrolled);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("etc");
    let token = token_of(&receiver);
    let (code, text) = said(&shipper(&config, &["join", &token.to_string()]));
    assert_eq!(
        (code, text),
        (0, format!("joined {} as db1", token.address))
    );

    let place = config.join("identity");
    let enrolment = shipper::enrolment::Enrolment::load(&config).unwrap();
    assert_eq!(enrolment.receiver, receiver.pin());
    let (request, pin) = receiver.journal().joins[0].clone();
    assert_eq!((request.secret, pin), ([7; 32], enrolment.identity.pin()));

    let key = fs::metadata(place.join("key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    if fs::metadata(&place).unwrap().uid() == 0 {
        let user = shipper::user::shipper_user(Path::new("/etc/passwd")).unwrap();
        assert_eq!(
            key.uid(),
            user.uid,
            "root's key would be of no use to the shipper"
        );
    }
    assert_eq!(
        fs::read_dir(&config).unwrap().count(),
        1,
        "nothing else is left"
    );
}

#[test]
fn a_second_join_overwrites_only_by_force_and_then_whole() {
    let receiver = Receiver::new();
    receiver.journal().join_reply = Some(JoinReply::Enrolled);
    let dir = tempfile::tempdir().unwrap();
    let token = token_of(&receiver).to_string();
    let pin = || {
        shipper::enrolment::Enrolment::load(dir.path())
            .unwrap()
            .identity
            .pin()
    };
    assert_eq!(said(&shipper(dir.path(), &["join", &token])).0, 0);
    let first = pin();
    let (code, text) = said(&shipper(dir.path(), &["join", &token]));
    assert_eq!(code, 3);
    assert!(text.contains("--force") && text.contains("db1"), "{text}");
    assert_eq!(pin(), first);
    assert_eq!(receiver.journal().joins.len(), 1, "no token was spent");
    assert_eq!(
        said(&shipper(dir.path(), &["join", &token, "--force"])).0,
        0
    );
    assert_ne!(pin(), first);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_join_that_fails_leaves_nothing_behind() {
    let receiver = Receiver::new();
    let refusing = token_of(&receiver).to_string();
    receiver.journal().join_reply = Some(JoinReply::Refused("this token was used".into()));
    let foreign = token(&receiver.address, Pin([1; 32])).to_string();
    let damaged = &refusing[..refusing.len() - 4];
    let dir = tempfile::tempdir().unwrap();
    for (token, code, words) in [
        (refusing.as_str(), 3, "this token was used"),
        (&foreign, 3, "fingerprint"),
        (damaged, 2, "token"),
        ("nonsense", 2, "token"),
    ] {
        let (found, text) = said(&shipper(dir.path(), &["join", token]));
        assert_eq!(found, code, "{text}");
        assert!(text.contains(words), "{text}");
        assert!(is_empty(dir.path()), "{text}");
    }
    // The receiver closes without an answer.
    receiver.journal().join_reply = None;
    let (code, text) = said(&shipper(dir.path(), &["join", &refusing]));
    assert_eq!(code, 4, "{text}");
    assert!(is_empty(dir.path()));
}

#[test]
fn a_join_without_a_place_to_write_spends_no_token() {
    let receiver = Receiver::new();
    receiver.journal().join_reply = Some(JoinReply::Enrolled);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let token = token_of(&receiver).to_string();
    let (code, text) = said(&shipper(&file, &["join", &token]));
    assert_eq!(code, 1);
    assert!(text.contains("file"), "{text}");
    assert!(receiver.journal().joins.is_empty());
}

#[test]
fn a_check_passes_on_what_the_receiver_says() {
    let receiver = Receiver::new();
    let host = Host::new(&receiver.address, receiver.pin(), 8 << 20);
    let (code, text) = said(&shipper(&host.config_dir(), &CHECK));
    assert_eq!(
        (code, text),
        (0, format!("{} accepts pg/data", receiver.address))
    );
    {
        let journal = receiver.journal();
        let hello = &journal.hellos[0];
        assert!(hello.probe);
        assert_eq!(hello.volumes[0].identity, "file:1:2");
        assert_eq!(hello.volumes.len(), 1);
    }
    let refusal = "pg/data has 2 MiB at the receiver, not 1 MiB";
    receiver.journal().refusal = Some(Refusal {
        code: RefusalCode::Geometry,
        text: refusal.into(),
    });
    let (code, text) = said(&shipper(&host.config_dir(), &CHECK));
    assert_eq!(code, 3);
    assert!(text.ends_with(refusal), "{text}");
}

#[test]
fn a_check_without_a_receiver_ends_in_time_and_says_which() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let host = Host::new(&address, Pin([1; 32]), 8 << 20);
    let start = Instant::now();
    let args = [&CHECK[..], &["--timeout", "1"]].concat();
    let (code, text) = said(&shipper(&host.config_dir(), &args));
    assert_eq!(code, 4);
    assert!(text.contains(&address), "{text}");
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_check_before_joining_or_of_an_impossible_disk_is_refused_here() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    for config in [dir.path(), &dir.path().join("absent")] {
        let (code, text) = said(&shipper(config, &CHECK));
        assert_eq!(code, 3);
        assert!(text.contains("ublk-tap join TOKEN"), "{text}");
    }
    let mut odd = CHECK;
    odd[6] = "1000";
    assert_eq!(said(&shipper(dir.path(), &odd)).0, 2);
}

#[test]
fn a_running_shipper_serves_its_tap_and_ends_cleanly_on_a_signal() {
    let receiver = Receiver::new();
    let mut host = Host::new(&receiver.address, receiver.pin(), 8 << 20);
    let mut child = Command::new(env!("CARGO_BIN_EXE_ublk-tap-shipper"))
        .args(["run", "--group", "pg"])
        .env("UBLK_TAP_CONFIG_DIR", host.config_dir())
        .env("UBLK_TAP_RUN_DIR", host.run_dir().join("run"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    host.welcome();
    let stamp = host.write(4096);
    host.until_acked(stamp);
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let mut ended = None;
    eventually("the shipper ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(0));
    assert!(!receiver.journal().goodbyes.is_empty());
}

#[test]
fn an_idle_shipper_sleeps_instead_of_polling() {
    let receiver = Receiver::new();
    let mut host = Host::new(&receiver.address, receiver.pin(), 8 << 20);
    let mut child = Command::new(env!("CARGO_BIN_EXE_ublk-tap-shipper"))
        .args(["run", "--group", "pg"])
        .env("UBLK_TAP_CONFIG_DIR", host.config_dir())
        .env("UBLK_TAP_RUN_DIR", host.run_dir().join("run"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    host.welcome();
    let stamp = host.write(4096);
    host.until_acked(stamp);
    std::thread::sleep(Duration::from_millis(500));
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary"));
        let count = line.unwrap().split_whitespace().last().unwrap();
        count.parse::<u64>().unwrap()
    };
    let before = switches();
    std::thread::sleep(Duration::from_secs(2));
    let during = switches() - before;
    // Heartbeats, acks and QUIC's own timers; polling would be some two thousand.
    assert!(during < 100, "{during} times awake in two seconds");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_shipper_that_waits_for_its_tap_ends_cleanly_too() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let mut child = Command::new(env!("CARGO_BIN_EXE_ublk-tap-shipper"))
        .args(["run", "--group", "pg"])
        .env("UBLK_TAP_CONFIG_DIR", dir.path())
        .env("UBLK_TAP_RUN_DIR", dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it waits for a tap");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
