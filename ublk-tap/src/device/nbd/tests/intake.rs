//! A stream of requests comes in whatever pieces; what was sent is what is found.

use super::super::intake::{Intake, Item};
use super::super::payload::Pool;
use super::super::requests::Io;
use crate::device::request::Op;
use proptest::prelude::*;

fn request(command: u16, cookie: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(0_u16.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(0_u64.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// Moves up to `most` bytes of `wire` to where the intake wants them.
fn feed(intake: &mut Intake, wire: &mut &[u8], most: usize) {
    let Some((room, _)) = intake.fill() else {
        return;
    };
    let count = most.min(room.len()).min(wire.len());
    room[..count].copy_from_slice(&wire[..count]);
    *wire = &wire[count..];
    intake.came(count);
}

fn io(length_bytes: u32) -> Io {
    Io {
        op: Op::Write,
        offset_bytes: 0,
        length_bytes,
        fua: false,
        keep: false,
    }
}

proptest! {
    #[test]
    fn requests_are_found_whole_however_they_come(
        requests in proptest::collection::vec((0_u8..3, 1_u32..100_000), 1..20),
        pieces in proptest::collection::vec(1_usize..70_000, 1..40),
        early in 0_usize..200,
    ) {
        let mut sent = Vec::new();
        for (cookie, (kind, length)) in requests.iter().enumerate() {
            sent.extend(request(u16::from(*kind != 0), cookie as u64, *length));
            if *kind != 0 {
                sent.extend((0..*length).map(|at| (at as usize ^ cookie) as u8));
            }
        }
        let early = early.min(sent.len());
        let mut intake = Intake::new(&sent[..early]);
        let mut wire = &sent[early..];
        let mut pool = Pool::default();
        let mut pieces = pieces.iter().cycle();
        let mut found = 0;
        while found < requests.len() {
            let (kind, length) = requests[found];
            match intake.next() {
                Item::Nothing => feed(&mut intake, &mut wire, *pieces.next().unwrap()),
                Item::Header(header) => {
                    prop_assert_eq!((header.cookie, header.length_bytes), (found as u64, length));
                    match kind {
                        0 => intake.take_header(0),
                        // A write nobody wants.
                        1 => intake.take_header(header.payload_bytes()),
                        _ => {
                            let payload = pool.take(length);
                            intake.take_write(header.cookie, io(length), payload);
                            continue;
                        }
                    }
                    found += 1;
                }
                Item::Write(cookie, _, payload) => {
                    prop_assert_eq!(cookie, found as u64);
                    let is_it = |(at, byte): (usize, &u8)| *byte == (at ^ found) as u8;
                    prop_assert!(payload.bytes().iter().enumerate().all(is_it));
                    pool.give(payload);
                    found += 1;
                }
                Item::Nonsense => panic!("nothing but requests was sent"),
            }
        }
    }
}

#[test]
fn a_payload_that_follows_bytes_already_asked_for_is_not_mixed_up_with_them() {
    // The header is at hand, more is being received behind it, and only then is there room for it.
    let mut wire = request(1, 5, 10);
    wire.extend([1, 2, 3]);
    let mut intake = Intake::new(&wire);
    let (room, whole) = intake.fill().unwrap();
    assert!(!whole, "whatever comes");
    room[..7].copy_from_slice(&[4, 5, 6, 7, 8, 9, 10]);
    assert!(matches!(intake.next(), Item::Header(_)));
    intake.take_write(5, io(10), Pool::default().take(10));
    assert!(matches!(intake.next(), Item::Nothing));
    assert!(intake.fill().is_none(), "the kernel is still at it");
    intake.came(7);
    let Item::Write(5, _, payload) = intake.next() else {
        panic!("it is whole")
    };
    assert_eq!(payload.bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_write_on_its_way_can_be_turned_away_unless_the_kernel_fills_it() {
    let mut intake = Intake::new(&request(1, 5, 10));
    assert!(matches!(intake.next(), Item::Header(_)));
    intake.take_write(5, io(10), Pool::default().take(10));
    assert!(
        intake
            .fill()
            .is_some_and(|(room, whole)| whole && room.len() == 10)
    );
    assert!(intake.turn_away().is_none());
    intake.came(4);
    assert_eq!(intake.turn_away().map(|(cookie, _)| cookie), Some(5));
    // The rest of it is passed over.
    let mut rest = vec![0; 6];
    rest.extend(request(3, 6, 0));
    let mut wire = rest.as_slice();
    assert!(matches!(intake.next(), Item::Nothing));
    feed(&mut intake, &mut wire, 100);
    assert!(matches!(intake.next(), Item::Header(header) if header.cookie == 6));
}
