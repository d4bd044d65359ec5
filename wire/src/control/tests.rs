//! Every message survives the wire; every cut, every flipped length and every unknown code is an
//! error and not a panic.

use super::*;
use crate::name::Name;
use crate::stamp::{Generation, Incarnation, Stamp, TimeMark};
use crate::volume::{VolumeIndex, VolumeSpec};
use proptest::prelude::*;

fn hello() -> Hello {
    let spec = |index, name: &str| VolumeSpec {
        index: VolumeIndex(index),
        name: Name::new(name).unwrap(),
        size_bytes: 64 << 20,
        sector_bytes: 512,
        identity: "file:1:2".into(),
    };
    Hello {
        probe: false,
        source: Name::new("db1").unwrap(),
        group: Name::new("pg").unwrap(),
        generation: Generation {
            counter: 1,
            lineage: 2,
        },
        incarnation: Incarnation { counter: 3, id: 4 },
        ring_slots: 16384,
        oldest: Stamp(1),
        captured: Stamp(9),
        volumes: vec![spec(0, "data"), spec(1, "wal")],
    }
}

fn every_message() -> Vec<Control> {
    vec![
        Control::Hello(hello()),
        Control::HelloAck(HelloAck {
            session: 1,
            generation: Generation {
                counter: 1,
                lineage: 2,
            },
            resume: Stamp(3),
            settled: Stamp(2),
            last_mark: TimeMark(4),
            clock: TimeMark(5),
        }),
        Control::Refusal(Refusal {
            code: RefusalCode::WrongDisk,
            text: "no".into(),
        }),
        Control::Settle(SettleMark {
            after: Stamp(1),
            upto: Stamp(5),
            voids: vec![Stamp(3)],
        }),
        Control::Heartbeat(Heartbeat {
            clock: TimeMark(1),
            captured: Stamp(2),
        }),
        Control::Ack(Ack {
            received: Stamp(4),
            durable: Stamp(3),
            ..Ack::default()
        }),
        Control::CopyWanted(CopyWanted {
            volume: Some(VolumeIndex(1)),
            reason: "lost".into(),
        }),
        Control::CopyWanted(CopyWanted {
            volume: None,
            reason: String::new(),
        }),
        Control::Bye("stopping".into()),
        Control::Notice("receiver full".into()),
    ]
}

fn split(frame: &[u8]) -> (FrameHeader, &[u8]) {
    let (head, body) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
    (FrameHeader::parse(head).unwrap(), body)
}

#[test]
fn every_message_survives_the_wire_and_every_cut_is_refused() {
    for message in every_message() {
        let frame = message.to_frame();
        let (header, body) = split(&frame);
        assert_eq!(header.body_bytes as usize, body.len());
        assert_eq!(Control::parse(header.code, body).as_ref(), Ok(&message));
        for cut in 0..body.len() {
            assert!(
                Control::parse(header.code, &body[..cut]).is_err(),
                "{message:?} at {cut}"
            );
        }
        let longer = [body, &[0]].concat();
        assert!(
            Control::parse(header.code, &longer).is_err(),
            "{message:?} with a byte more"
        );
    }
}

#[test]
fn an_oversized_or_future_frame_is_refused_by_its_header() {
    let header = |code: u16, version: u16, length: u32| {
        let mut writer = Writer::new();
        writer.u16(code).u16(version).u32(length);
        FrameHeader::parse(writer.into_bytes().first_chunk().unwrap())
    };
    assert!(header(1, 1, CONTROL_BODY_BYTES_MAX).is_ok());
    for length in [CONTROL_BODY_BYTES_MAX + 1, 1 << 31, u32::MAX] {
        assert!(matches!(
            header(1, 1, length),
            Err(DecodeError::OverLimit { .. })
        ));
    }
    assert_eq!(header(1, 2, 0), Err(DecodeError::UnknownVersion(2)));
    assert!(Control::parse(99, &[]).is_err());
}

#[test]
fn the_golden_bytes_of_a_heartbeat_do_not_change() {
    let beat = Control::Heartbeat(Heartbeat {
        clock: TimeMark(0x0102),
        captured: Stamp(7),
    });
    assert_eq!(
        beat.to_frame(),
        [
            5, 0, 1, 0, 16, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0
        ]
    );
}

proptest! {
    #[test]
    fn parsing_is_total(code in 0u16..12, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Control::parse(code, &body) {
            let frame = message.to_frame();
            prop_assert_eq!(&frame[FRAME_HEADER_BYTES..], &body[..]);
        }
    }
}
