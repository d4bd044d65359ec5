//! A shipper that connects, talks, ends and comes back.

use super::*;
use ring::handoff::{Channel, LinkReport, LinkState, ToShipper, ToTap, Welcome};
use ring::{Consumer, Ring, RingConfig};
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use wire::{Generation, Incarnation, Name};

struct Place {
    ring: Ring,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let incarnation = Incarnation { counter: 1, id: 1 };
        let config = RingConfig {
            slots: 16,
            payload_bytes: 64 << 10,
        };
        let ring = Ring::create(dir.path(), incarnation, config).unwrap();
        Self {
            ring,
            path: dir.path().join("shipper.sock"),
            _dir: dir,
        }
    }

    fn port(&self, admission: Admission) -> Port {
        Port::bind(&self.path, admission, Account::own()).unwrap()
    }

    fn turn(&self, port: &mut Port) -> Vec<PortEvent> {
        port.turn(&self.ring, || Welcome {
            group: Name::new("pg").unwrap(),
            source: Name::new("db1").unwrap(),
            generation: Generation::default(),
            incarnation: self.ring.incarnation(),
            ring_slots: 16,
            volumes: Vec::new(),
        })
    }
}

fn up() -> ToTap {
    ToTap::Link(LinkReport {
        state: LinkState::Up,
        reason: String::new(),
        peer: "h:1".into(),
    })
}

fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let start = Instant::now();
    while !probe() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_shipper_gets_the_ring_talks_goes_and_another_one_comes() {
    let place = Place::new();
    let mut port = place.port(Admission::Anybody(Account::own()));
    for _ in 0..2 {
        let shipper = Channel::connect(&place.path).unwrap();
        assert_eq!(place.turn(&mut port), [PortEvent::Connected]);
        let (welcome, fds) = shipper.recv_from_tap().unwrap();
        assert!(matches!(welcome, ToShipper::Welcome(welcome) if welcome.ring_slots == 16));
        assert!(Consumer::open(fds.unwrap()).is_ok());
        shipper.send_to_tap(&up()).unwrap();
        assert_eq!(place.turn(&mut port), [PortEvent::Said(up())]);
        drop(shipper);
        assert!(matches!(&place.turn(&mut port)[..], [PortEvent::Lost(_)]));
    }
}

#[test]
fn there_is_one_shipper_at_a_time() {
    let place = Place::new();
    let mut port = place.port(Admission::Anybody(Account::own()));
    let first = Channel::connect(&place.path).unwrap();
    assert_eq!(place.turn(&mut port), [PortEvent::Connected]);
    let second = Channel::connect(&place.path).unwrap();
    assert!(place.turn(&mut port).is_empty());
    assert!(second.recv_from_tap().is_err());
    first.send_to_tap(&up()).unwrap();
    assert_eq!(place.turn(&mut port), [PortEvent::Said(up())]);
}

#[test]
fn a_stranger_gets_nothing() {
    let place = Place::new();
    let child = Arc::new(AtomicI32::new(1));
    let mut port = place.port(Admission::Child(child));
    let stranger = Channel::connect(&place.path).unwrap();
    assert!(place.turn(&mut port).is_empty());
    assert!(stranger.recv_from_tap().is_err());
    assert!(!port.is_connected());
}

#[test]
fn a_shipper_that_talks_without_end_does_not_stop_the_tap() {
    let place = Place::new();
    let mut port = place.port(Admission::Anybody(Account::own()));
    let shipper = Channel::connect(&place.path).unwrap();
    place.turn(&mut port);
    let mut sent = 0;
    while sent < 1000 && shipper.send_to_tap(&up()).is_ok() {
        sent += 1;
    }
    assert!(sent > 64, "{sent}");
    assert_eq!(place.turn(&mut port).len(), 64);
}

#[test]
fn a_shipper_that_ends_is_started_again_and_the_last_one_ends_with_its_keeper() {
    let pid = Arc::new(AtomicI32::new(0));
    let supervisor = Supervisor::start(Arc::clone(&pid), || {
        let mut command = Command::new("sleep");
        command.arg("600");
        Ok(command)
    });
    let supervisor = supervisor.unwrap();
    eventually("it is started", || pid.load(Ordering::Acquire) != 0);
    let first = pid.load(Ordering::Acquire);
    assert_eq!(supervisor.words(), "");
    supervisor.replace();
    eventually("another one is started", || {
        let now = pid.load(Ordering::Acquire);
        now != 0 && now != first
    });
    let last = pid.load(Ordering::Acquire);
    drop(supervisor);
    for gone in [first, last] {
        assert!(
            !PathBuf::from(format!("/proc/{gone}")).exists(),
            "process {gone} is left behind"
        );
    }
}

#[test]
fn what_is_started_is_out_of_reach_of_every_capability() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can bound what it starts");
        return;
    }
    let pid = Arc::new(AtomicI32::new(0));
    let sleep = || {
        let mut command = Command::new("sleep");
        command.arg("600");
        Ok(command)
    };
    let supervisor = Supervisor::start(Arc::clone(&pid), sleep).unwrap();
    eventually("it is started", || pid.load(Ordering::Acquire) != 0);
    let sets = |process: &str| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let is_set = |line: &&str| line.starts_with("CapBnd") || line.starts_with("CapEff");
        let values = |line: &str| line.rsplit('\t').next().unwrap().to_owned();
        status
            .lines()
            .filter(is_set)
            .map(values)
            .collect::<Vec<_>>()
    };
    let none = "0000000000000000";
    eventually("even root's child has none", || {
        sets(&pid.load(Ordering::Acquire).to_string()) == [none, none]
    });
    assert!(sets("self").iter().all(|set| set != none), "we keep ours");
    drop(supervisor);
}

#[test]
fn why_there_is_no_shipper_is_told() {
    let pid = Arc::new(AtomicI32::new(0));
    let missing = || Err(io::Error::from(io::ErrorKind::NotFound));
    let supervisor = Supervisor::start(pid, missing).unwrap();
    eventually("it is told", || {
        supervisor.words().contains("cannot be started")
    });
    drop(supervisor);
    let failing = || {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        Ok(command)
    };
    let supervisor = Supervisor::start(Arc::new(AtomicI32::new(0)), failing).unwrap();
    eventually("it is told", || {
        supervisor.words().contains("exit status: 3")
    });
}
