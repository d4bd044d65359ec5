//! Messages there and back, and everything that is not one.

use super::*;
use proptest::prelude::*;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::os::fd::AsFd;
use wire::{Generation, Incarnation, Name, Stamp, TimeMark, VolumeIndex, VolumeSpec};

fn welcome() -> Welcome {
    Welcome {
        group: Name::new("db").unwrap(),
        source: Name::new("host-1").unwrap(),
        generation: Generation {
            counter: 2,
            lineage: u128::MAX,
        },
        incarnation: Incarnation {
            counter: u64::MAX,
            id: 1,
        },
        ring_slots: 1024,
        volumes: vec![volume(7)],
    }
}

fn volume(index: u16) -> VolumeSpec {
    VolumeSpec {
        index: VolumeIndex(index),
        name: Name::new(&format!("v{index}")).unwrap(),
        size_bytes: 1 << 40,
        sector_bytes: 4096,
        identity: "wwn:naa.5000 \"odd\" \u{fc}".into(),
    }
}

fn fds() -> ConsumerFds {
    let fd = || rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    ConsumerFds {
        ring: fd(),
        page: fd(),
        wake: fd(),
    }
}

fn pair() -> (Channel, Channel) {
    Channel::pair().unwrap()
}

fn send_raw(channel: &Channel, bytes: &[u8]) -> Result<usize, Errno> {
    send(channel.as_fd(), bytes, SendFlags::DONTWAIT)
}

#[test]
fn a_welcome_arrives_with_its_descriptors_in_order() {
    let (tap, shipper) = pair();
    let fds = fds();
    rustix::io::write(&fds.page, b"the page").unwrap();
    tap.send_welcome(welcome(), &fds).unwrap();
    let (message, received) = shipper.recv_from_tap().unwrap();
    assert_eq!(message, ToShipper::Welcome(welcome()));
    let mut bytes = [0; 8];
    rustix::io::pread(&received.unwrap().page, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"the page");
}

#[test]
fn a_changed_table_arrives_without_descriptors() {
    let (tap, shipper) = pair();
    let volumes = (0..64).map(volume).collect();
    let table = Volumes { volumes };
    tap.send_volumes(table.clone()).unwrap();
    let (message, fds) = shipper.recv_from_tap().unwrap();
    assert_eq!(message, ToShipper::Volumes(table));
    assert!(fds.is_none());
}

#[test]
fn every_report_of_the_shipper_survives_the_socket() {
    let (tap, shipper) = pair();
    let reports = [
        ToTap::Link(LinkReport {
            state: LinkState::Refused,
            reason: "size differs".into(),
            peer: "192.0.2.1:4430".into(),
        }),
        ToTap::Progress(Progress {
            durable: Stamp(u64::MAX),
            settled: Stamp(2),
            applied: Stamp(1),
            recoverable: TimeMark(5),
            clock_offset_ns: i64::MIN,
        }),
        ToTap::CopyWanted(CopyWanted {
            volume: Some(VolumeIndex(3)),
            reason: "lost".into(),
        }),
        ToTap::CopyWanted(CopyWanted {
            volume: None,
            reason: String::new(),
        }),
        ToTap::Generation(GenerationReport(welcome().generation)),
    ];
    for report in &reports {
        shipper.send_to_tap(report).unwrap();
    }
    for report in reports {
        assert_eq!(tap.recv_from_shipper().unwrap(), report);
    }
}

#[test]
fn the_json_is_what_the_document_shows() {
    let progress = ToTap::Progress(Progress {
        durable: Stamp(5),
        ..Progress::default()
    });
    let shown = concat!(
        r#"{"progress":{"durable":5,"settled":0,"applied":0,"recoverable_ns":0,"#,
        r#""clock_offset_ns":0}}"#,
    );
    assert_eq!(serde_json::to_string(&progress).unwrap(), shown);
    let text = serde_json::to_string(&welcome()).unwrap();
    assert!(
        text.contains(r#""lineage":"ffffffffffffffffffffffffffffffff""#),
        "{text}"
    );
    assert!(
        text.contains(r#""id":"00000000000000000000000000000001""#),
        "{text}"
    );
}

#[test]
fn an_empty_socket_and_a_closed_one_are_told_apart() {
    let (tap, shipper) = pair();
    assert!(matches!(
        tap.recv_from_shipper(),
        Err(ChannelError::WouldBlock)
    ));
    drop(shipper);
    assert!(matches!(tap.recv_from_shipper(), Err(ChannelError::Closed)));
    let volumes = Volumes {
        volumes: Vec::new(),
    };
    assert!(matches!(
        tap.send_volumes(volumes),
        Err(ChannelError::Closed)
    ));
}

#[test]
fn a_tap_whose_shipper_does_not_read_is_told_and_not_held_up() {
    let (tap, _shipper) = pair();
    let full = (0..100_000).find_map(|_| {
        let volumes = (0..64).map(volume).collect();
        tap.send_volumes(Volumes { volumes }).err()
    });
    assert!(matches!(full, Some(ChannelError::WouldBlock)));
}

#[test]
fn messages_that_are_too_long_or_no_messages_are_refused_one_by_one() {
    let (tap, shipper) = pair();
    send_raw(&shipper, &vec![b' '; MESSAGE_BYTES_MAX + 1]).unwrap();
    assert!(matches!(
        tap.recv_from_shipper(),
        Err(ChannelError::TooLong)
    ));
    let deep = "[".repeat(MESSAGE_BYTES_MAX);
    for bad in [
        "x",
        "{}",
        "null",
        "{\"link\":1}",
        "{\"volumes\":{\"volumes\":[]}}",
        "\u{7f}\0",
        &deep,
    ] {
        send_raw(&shipper, bad.as_bytes()).unwrap();
        let result = tap.recv_from_shipper();
        let Err(ChannelError::Malformed(text)) = result else {
            panic!("{bad:.20} gave {result:?}");
        };
        assert!(
            !text.contains(char::is_control) && text.len() < 600,
            "{text}"
        );
    }
    send_raw(
        &shipper,
        br#"{"copy_wanted":{"volume_index":null,"reason":"on"}}"#,
    )
    .unwrap();
    assert!(tap.recv_from_shipper().is_ok(), "the channel goes on");
}

#[test]
fn texts_of_the_shipper_are_cut_and_cannot_forge_a_log_line() {
    let (tap, shipper) = pair();
    let reason = format!("ok\n2026 ERROR \u{1b}[31m{}", "\u{e4}".repeat(1000));
    let json = serde_json::json!({"copy_wanted": {"volume_index": 1, "reason": reason}});
    send_raw(&shipper, json.to_string().as_bytes()).unwrap();
    let ToTap::CopyWanted(wanted) = tap.recv_from_shipper().unwrap() else {
        panic!("another message");
    };
    assert!(wanted.reason.starts_with("ok?2026 ERROR ?[31m"));
    assert!(wanted.reason.len() <= 512);
}

#[test]
fn descriptors_from_a_shipper_and_a_welcome_without_them_are_refused() {
    let (tap, shipper) = pair();
    shipper.send_welcome(welcome(), &fds()).unwrap();
    let result = tap.recv_from_shipper();
    assert!(
        matches!(result, Err(ChannelError::Malformed(_))),
        "{result:?}"
    );

    let json = serde_json::to_vec(&ToShipper::Welcome(welcome())).unwrap();
    send_raw(&tap, &json).unwrap();
    let result = shipper.recv_from_tap();
    assert!(
        matches!(result, Err(ChannelError::Malformed(_))),
        "{result:?}"
    );
}

#[test]
fn values_no_host_can_have_are_refused() {
    let good = serde_json::to_string(&welcome()).unwrap();
    assert!(serde_json::from_str::<Welcome>(&good).is_ok());
    for (from, to) in [
        (r#""group":"db""#, r#""group":"../db""#),
        (r#""source":"host-1""#, r#""source":"""#),
        (r#""ring_slots":1024"#, r#""ring_slots":0"#),
        (r#""ring_slots":1024"#, r#""ring_slots":4294967295"#),
        (r#""name":"v7""#, r#""name":"v/7""#),
        (r#""sector_bytes":4096"#, r#""sector_bytes":3"#),
        (r#""size_bytes":1099511627776"#, r#""size_bytes":1"#),
        (r#""index":7"#, r#""index":70000"#),
        (
            "0000000000000000000000000001",
            "+000000000000000000000000001",
        ),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from} is not in the message");
        assert!(serde_json::from_str::<Welcome>(&bad).is_err(), "{to}");
    }
    let volumes = (0..65).map(volume).collect();
    let many = serde_json::to_string(&Volumes { volumes }).unwrap();
    assert!(serde_json::from_str::<Volumes>(&many).is_err());
}

#[test]
fn a_listener_takes_over_a_dead_socket_and_knows_its_peer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shipper.sock");
    drop(Listener::bind(&path, 0o600).unwrap());
    let listener = Listener::bind(&path, 0o600).unwrap();
    let none = listener.accept().unwrap_err();
    assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
    let shipper = Channel::connect(&path).unwrap();
    let tap = listener.accept().unwrap();
    let peer = tap.peer().unwrap();
    assert_eq!(peer.pid, std::process::id() as i32);
    assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    shipper
        .send_to_tap(&ToTap::Progress(Progress::default()))
        .unwrap();
    assert!(tap.recv_from_shipper().is_ok());

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"a file").unwrap();
    assert!(Listener::bind(&path, 0o600).is_err());
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"a file",
        "only sockets are replaced"
    );
}

proptest! {
    #[test]
    fn reading_a_report_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (tap, shipper) = pair();
        if !bytes.is_empty() {
            send_raw(&shipper, &bytes).unwrap();
            prop_assert!(tap.recv_from_shipper().is_err());
        }
    }
}
