//! Requests of any size in any order: every byte has a part, tags suffice, and each ends once.

use super::super::ledger::{FLIGHTS_MAX, Ledger};
use super::super::payload::Pool;
use super::super::requests::Io;
use crate::device::request::{Op, ZERO_BYTES_MAX};
use proptest::prelude::*;

const PART: u32 = 64 << 10;

fn io(op: Op, offset_bytes: u64, length_bytes: u32) -> Io {
    Io {
        op,
        offset_bytes,
        length_bytes,
        fua: true,
        keep: false,
    }
}

/// Begins and ends everything there is; the answers, in their order.
fn drain(ledger: &mut Ledger) -> Vec<(u64, Option<i32>)> {
    let mut busy = Vec::new();
    loop {
        let before = busy.len();
        busy.extend(std::iter::from_fn(|| ledger.begin()));
        match busy.pop() {
            Some(tag) => ledger.end(tag, 0),
            None if before == busy.len() => break,
            None => {}
        }
    }
    std::iter::from_fn(|| ledger.take_ended())
        .map(|ended| (ended.cookie, ended.errno))
        .collect()
}

#[test]
fn a_large_request_is_cut_and_answered_once_with_the_first_error() {
    let mut ledger = Ledger::new(8, PART);
    let payload = Pool::default().take(3 * PART);
    ledger.enter(1, io(Op::Write, 1 << 20, 3 * PART), Some(payload));
    let tags: Vec<u16> = std::iter::from_fn(|| ledger.begin()).collect();
    assert_eq!(tags.len(), 3);
    let starts = tags.iter().map(|tag| ledger.raw(*tag).start_sector * 512);
    let first = 1 << 20;
    assert_eq!(
        Vec::from_iter(starts),
        [first, first + u64::from(PART), first + 2 * u64::from(PART)]
    );
    assert!(
        tags.iter()
            .all(|tag| ledger.written(*tag).len() == PART as usize)
    );
    ledger.end(tags[1], -libc::ENOSPC);
    ledger.end(tags[0], PART as i32);
    assert!(ledger.take_ended().is_none(), "one part is still out");
    ledger.end(tags[2], -libc::EIO);
    let ended = ledger.take_ended().unwrap();
    assert_eq!((ended.cookie, ended.errno), (1, Some(libc::ENOSPC)));
    assert_eq!(ledger.len(), 0);
}

#[test]
fn nobody_asks_for_the_rest_of_a_request_that_has_failed() {
    let mut ledger = Ledger::new(4, PART);
    let payload = Pool::default().take(32 * PART);
    ledger.enter(1, io(Op::Write, 0, 32 * PART), Some(payload));
    let tags: Vec<u16> = std::iter::from_fn(|| ledger.begin()).collect();
    ledger.end(tags[0], -libc::EIO);
    assert!(ledger.begin().is_none());
    tags[1..].iter().for_each(|tag| ledger.end(*tag, 0));
    assert_eq!(ledger.take_ended().unwrap().errno, Some(libc::EIO));
}

#[test]
fn changes_that_wait_leave_tags_for_reads_and_the_other_way_round() {
    for (first, second) in [(Op::Discard, Op::Read), (Op::Read, Op::Discard)] {
        let mut ledger = Ledger::new(8, PART);
        for cookie in 0..20 {
            ledger.enter(cookie, io(first, cookie * 4096, 4096), None);
        }
        let busy = std::iter::from_fn(|| ledger.begin()).count();
        assert_eq!(busy, 6, "a quarter is left");
        ledger.enter(99, io(second, 0, 4096), None);
        let tag = ledger.begin().expect("one of those that are left");
        ledger.end(tag, 0);
        assert_eq!(ledger.take_ended().unwrap().cookie, 99);
    }
}

#[test]
fn the_shallowest_connection_leaves_a_tag_for_reads_and_one_for_changes() {
    for depth in 2..=5 {
        for (first, second) in [(Op::Discard, Op::Read), (Op::Read, Op::Discard)] {
            let mut ledger = Ledger::new(depth, PART);
            for cookie in 0..8 {
                ledger.enter(cookie, io(first, cookie * 4096, 4096), None);
            }
            while ledger.begin().is_some() {}
            ledger.enter(99, io(second, 0, 4096), None);
            let tag = ledger.begin();
            assert!(tag.is_some(), "depth {depth}: {first:?} holds all tags");
        }
    }
}

#[test]
fn reads_without_end_do_not_starve_a_change_nor_changes_a_read() {
    for depth in 1..=5 {
        for (endless, lonely) in [(Op::Read, Op::Discard), (Op::Discard, Op::Read)] {
            let mut ledger = Ledger::new(depth, PART);
            for cookie in 0..8 {
                ledger.enter(cookie, io(endless, cookie * 4096, 4096), None);
            }
            ledger.enter(99, io(lonely, 0, 4096), None);
            let mut ended = Vec::new();
            for cookie in 100..108 {
                let tags: Vec<u16> = std::iter::from_fn(|| ledger.begin()).collect();
                tags.iter().for_each(|tag| ledger.end(*tag, 0));
                ended.extend(std::iter::from_fn(|| ledger.take_ended()).map(|it| it.cookie));
                ledger.enter(cookie, io(endless, 0, 4096), None);
            }
            assert!(ended.contains(&99), "depth {depth}: {lonely:?} starves");
        }
    }
}

#[test]
fn zeroes_are_cut_where_a_record_ends_and_a_flush_has_no_length() {
    let mut ledger = Ledger::new(2, PART);
    ledger.enter(1, io(Op::Zero, 0, u32::MAX - 4095), None);
    ledger.enter(2, io(Op::Flush, 0, 0), None);
    let flush = ledger.begin().unwrap();
    assert_eq!(
        (ledger.raw(flush).op_flags & 0xff, ledger.raw(flush).sectors),
        (2, 0)
    );
    let zero = ledger.begin().unwrap();
    assert_eq!(ledger.raw(zero).sectors, ZERO_BYTES_MAX / 512);
    ledger.end(flush, 0);
    ledger.end(zero, 0);
    assert_eq!(drain(&mut ledger), [(2, None), (1, None)]);
}

proptest! {
    #[test]
    fn every_byte_has_one_part_and_every_request_one_answer(
        depth in 1_u16..20,
        requests in proptest::collection::vec((0_u8..5, 1_u32..2000), 1..FLIGHTS_MAX - 1),
        order in proptest::collection::vec(any::<u16>(), 1..50),
    ) {
        let mut ledger = Ledger::new(depth, PART);
        let mut pool = Pool::default();
        let mut expected = Vec::new();
        for (cookie, (kind, sectors)) in requests.iter().enumerate() {
            let op = [Op::Read, Op::Write, Op::Flush, Op::Discard, Op::Zero][usize::from(*kind)];
            let length = if op == Op::Flush { 0 } else { sectors * 512 };
            let payload = (op == Op::Write).then(|| pool.take(length));
            ledger.enter(cookie as u64, io(op, (cookie as u64) << 30, length), payload);
            expected.push(u64::from(length));
        }
        let (mut moved, mut ended) = (vec![0_u64; expected.len()], vec![0; expected.len()]);
        let (mut busy, mut order) = (Vec::new(), order.iter().cycle());
        while ledger.len() > 0 {
            busy.extend(std::iter::from_fn(|| ledger.begin()));
            let which = usize::from(*order.next().unwrap()) % busy.len();
            let tag = busy.swap_remove(which);
            let raw = ledger.raw(tag);
            let at = raw.start_sector * 512;
            if raw.op_flags & 0xff != 2 {
                moved[(at >> 30) as usize] += u64::from(raw.sectors) * 512;
            }
            if raw.op_flags & 0xff == 0 {
                let bytes = ledger.read_into(tag, &mut pool);
                prop_assert_eq!(bytes.len(), raw.sectors as usize * 512);
            }
            ledger.end(tag, 0);
            while let Some(over) = ledger.take_ended() {
                ended[over.cookie as usize] += 1;
                prop_assert_eq!(over.errno, None);
            }
        }
        prop_assert!(busy.is_empty());
        prop_assert_eq!(moved, expected);
        prop_assert!(ended.iter().all(|count| *count == 1));
    }
}
