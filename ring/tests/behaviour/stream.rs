//! The life of records: claimed, filled, settled, shipped, freed.

use crate::common::{claim, consumer, fill, pattern, ring, ring_at, write};
use ring::{ClaimError, Origin, RecordFields, ReopenError, RingFault};
use wire::{RecordKind, Stamp, TimeMark, VolumeIndex};

#[test]
fn a_write_is_read_by_the_shipper_as_it_was_filled_before_the_disk_answers() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    let mut claim = ring.claim(1024, TimeMark(77)).unwrap();
    let mut entries = Vec::new();
    assert_eq!(
        consumer.peek_filled(Stamp(0), 10, &mut entries),
        Ok(0),
        "claimed is not filled"
    );
    claim
        .payload_mut()
        .copy_from_slice(&pattern(Stamp(1), 1024));
    let fields = RecordFields::write(VolumeIndex(5), 8192, 1024, true);
    let filled = claim.fill(fields);

    assert_eq!(consumer.peek_filled(Stamp(0), 10, &mut entries), Ok(1));
    let entry = entries[0];
    assert_eq!(
        (entry.stamp, entry.mark, entry.fields),
        (Stamp(1), TimeMark(77), fields)
    );
    let mut payload = vec![0xee];
    consumer.read_payload(&entry, &mut payload).unwrap();
    assert_eq!(payload[1..], pattern(Stamp(1), 1024));

    let mut voids = Vec::new();
    assert_eq!(consumer.settle_scan(Stamp(0), 10, &mut voids), Ok(Stamp(0)));
    assert_eq!(
        filled.payload(),
        pattern(Stamp(1), 1024),
        "the disk write reads the same bytes"
    );
    filled.settle();
    assert_eq!(consumer.settle_scan(Stamp(0), 10, &mut voids), Ok(Stamp(1)));
    assert!(voids.is_empty());
}

#[test]
fn stamps_are_contiguous_and_cursors_follow_them() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    assert_eq!(
        (ring.captured(), ring.settled_prefix(), ring.acked()),
        (Stamp(0), Stamp(0), Stamp(0))
    );
    for stamp in 1..=5 {
        assert_eq!(write(&ring, 512), Stamp(stamp));
    }
    assert_eq!(
        (ring.captured(), ring.settled_prefix()),
        (Stamp(5), Stamp(5))
    );
    assert_eq!(consumer.captured(), Ok(Stamp(5)));
    consumer.set_sent(Stamp(4));
    consumer.set_acked(Stamp(3));
    assert_eq!(ring.acked(), Stamp(0), "only reclaim believes the page");
    assert_eq!(ring.try_reclaim(), Ok(3));
    assert_eq!(
        (ring.acked(), ring.sent(), consumer.freed()),
        (Stamp(3), Stamp(4), Stamp(3))
    );
    assert_eq!(
        (ring.usage().used_slots, ring.usage().used_bytes),
        (2, 1024)
    );
}

#[test]
fn the_settled_prefix_stops_at_the_first_record_the_disk_has_not_answered() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    let filled: Vec<_> = (0..4).map(|_| fill(claim(&ring, 512).unwrap())).collect();
    let mut filled = filled.into_iter();
    let (first, second, third) = (filled.next(), filled.next(), filled.next());
    third.unwrap().settle();
    assert_eq!(ring.settled_prefix(), Stamp(0));
    first.unwrap().settle();
    assert_eq!(ring.settled_prefix(), Stamp(1));
    second.unwrap().void();
    assert_eq!(ring.settled_prefix(), Stamp(3));
    let mut voids = Vec::new();
    assert_eq!(consumer.settle_scan(Stamp(0), 2, &mut voids), Ok(Stamp(2)));
    assert_eq!(consumer.settle_scan(Stamp(2), 10, &mut voids), Ok(Stamp(3)));
    assert_eq!(voids, [Stamp(2)]);
    assert_eq!(filled.next().unwrap().stamp(), Stamp(4));
}

#[test]
fn a_claim_given_back_is_a_void_record_and_no_hole() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    write(&ring, 512);
    drop(claim(&ring, 4096).unwrap());
    write(&ring, 512);
    let mut entries = Vec::new();
    assert_eq!(consumer.peek_filled(Stamp(0), 10, &mut entries), Ok(3));
    let given_back = entries[1].fields;
    assert_eq!(
        (given_back.kind, given_back.payload_bytes),
        (RecordKind::Void, 0)
    );
    let mut payload = Vec::new();
    consumer.read_payload(&entries[1], &mut payload).unwrap();
    assert!(
        payload.is_empty(),
        "what an older record left must not travel"
    );
    let mut voids = Vec::new();
    assert_eq!(consumer.settle_scan(Stamp(0), 10, &mut voids), Ok(Stamp(3)));
    assert_eq!(voids, [Stamp(2)]);
    assert_eq!(ring.settled_prefix(), Stamp(3));
}

#[test]
fn a_thread_that_dies_with_a_claim_leaves_a_void_record() {
    let ring = ring(8, 1 << 16);
    let claimed = claim(&ring, 512).unwrap();
    let died = std::thread::spawn(move || {
        let _held = claimed;
        std::panic::resume_unwind(Box::new("the queue thread is gone"));
    });
    assert!(died.join().is_err());
    assert_eq!(ring.settled_prefix(), Stamp(1));
}

#[test]
fn a_zero_record_may_leave_its_claimed_payload_unused() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    let claim = claim(&ring, 4096).unwrap();
    claim
        .fill(RecordFields::zero(VolumeIndex(1), 4096, 4096))
        .settle();
    let mut entries = Vec::new();
    consumer.peek_filled(Stamp(0), 1, &mut entries).unwrap();
    assert_eq!(entries[0].fields.kind, RecordKind::Zero);
    assert_eq!(
        ring.usage().used_bytes,
        4096,
        "the room is taken all the same"
    );
    assert_eq!(ring.payload_bytes_between(Stamp(0), Stamp(1)), 0);
}

#[test]
fn a_full_ring_refuses_until_the_shipper_has_acked() {
    let ring = ring(4, 1 << 16);
    let consumer = consumer(&ring);
    for _ in 0..4 {
        write(&ring, 512);
    }
    assert_eq!(claim(&ring, 512).unwrap_err(), ClaimError::Full);
    assert_eq!(ring.usage().permille(), 1000);
    consumer.set_acked(Stamp(1));
    assert_eq!(write(&ring, 512), Stamp(5), "the claim itself reclaims");
    assert_eq!(claim(&ring, 512).unwrap_err(), ClaimError::Full);
}

#[test]
fn payload_room_runs_out_before_slots_do() {
    let ring = ring(64, 1 << 15);
    let consumer = consumer(&ring);
    write(&ring, 16 << 10);
    write(&ring, 16 << 10);
    assert_eq!(claim(&ring, 512).unwrap_err(), ClaimError::Full);
    let no_payload = claim(&ring, 0).unwrap();
    drop(no_payload);
    consumer.set_acked(Stamp(1));
    assert_eq!(write(&ring, 512), Stamp(4));
    let too_large = claim(&ring, (16 << 10) + 1).unwrap_err();
    assert!(matches!(
        too_large,
        ClaimError::TooLarge {
            most_bytes: 16384,
            ..
        }
    ));
}

#[test]
fn a_closed_stream_takes_nothing_and_reopens_with_the_gap_first() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    write(&ring, 512);
    assert_eq!(
        ring.reopen(64, TimeMark(1)).unwrap_err(),
        ReopenError::NotClosed
    );
    let in_flight = fill(claim(&ring, 512).unwrap());
    assert_eq!(ring.close(), Stamp(2));
    assert_eq!(ring.close(), Stamp(2), "closing twice says the same");
    assert!(ring.is_closed() && consumer.is_closed());
    assert_eq!(claim(&ring, 512).unwrap_err(), ClaimError::Closed);
    in_flight.settle();
    assert_eq!(
        ring.settled_prefix(),
        Stamp(2),
        "what was claimed before still settles"
    );

    let mut gap = ring.reopen(3, TimeMark(9)).unwrap();
    assert_eq!(gap.stamp(), Stamp(3));
    assert_eq!(write(&ring, 512), Stamp(4), "open again at once");
    gap.payload_mut().copy_from_slice(b"why");
    gap.fill(RecordFields::gap(3)).settle();
    let mut entries = Vec::new();
    assert_eq!(consumer.peek_filled(Stamp(2), 10, &mut entries), Ok(2));
    assert_eq!(entries[0].fields.kind, RecordKind::Gap);
    let mut reason = Vec::new();
    consumer.read_payload(&entries[0], &mut reason).unwrap();
    assert_eq!(reason, b"why");
}

#[test]
fn a_full_closed_ring_stays_closed_until_there_is_room_for_the_gap() {
    let ring = ring(2, 1 << 16);
    let consumer = consumer(&ring);
    write(&ring, 512);
    write(&ring, 512);
    ring.close();
    let refused = ring.reopen(0, TimeMark(1)).unwrap_err();
    assert_eq!(refused, ReopenError::Claim(ClaimError::Full));
    assert!(ring.is_closed());
    consumer.set_acked(Stamp(2));
    assert_eq!(ring.reopen(0, TimeMark(1)).unwrap().stamp(), Stamp(3));
    assert!(!ring.is_closed());
}

#[test]
fn what_the_ring_no_longer_holds_is_said_to_be_gone() {
    let ring = ring(4, 1 << 16);
    let consumer = consumer(&ring);
    write(&ring, 512);
    write(&ring, 512);
    let mut entries = Vec::new();
    consumer.peek_filled(Stamp(0), 1, &mut entries).unwrap();
    consumer.set_acked(Stamp(1));
    ring.try_reclaim().unwrap();
    let gone = RingFault::Recycled {
        after: Stamp(0),
        freed: Stamp(1),
    };
    assert_eq!(
        consumer.peek_filled(Stamp(0), 1, &mut Vec::new()),
        Err(gone)
    );
    assert_eq!(
        consumer.settle_scan(Stamp(0), 1, &mut Vec::new()),
        Err(gone)
    );
    let mut payload = b"before".to_vec();
    assert_eq!(consumer.read_payload(&entries[0], &mut payload), Err(gone));
    assert_eq!(
        payload, b"before",
        "nothing of a recycled record is handed out"
    );
    assert_eq!(consumer.peek_filled(Stamp(1), 9, &mut Vec::new()), Ok(1));
}

#[test]
fn a_place_beyond_the_newest_is_simply_empty() {
    let ring = ring(4, 1 << 16);
    let consumer = consumer(&ring);
    write(&ring, 512);
    for after in [1, 2, 100, u64::MAX - 1, u64::MAX] {
        assert_eq!(
            consumer.peek_filled(Stamp(after), 9, &mut Vec::new()),
            Ok(0)
        );
        assert_eq!(
            consumer.settle_scan(Stamp(after), 9, &mut Vec::new()),
            Ok(Stamp(after))
        );
    }
}

#[test]
fn lag_is_told_in_bytes_and_by_the_oldest_mark() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    assert_eq!(ring.oldest_unacked_mark(), None);
    for mark in [10, 20, 30] {
        fill(ring.claim(1536, TimeMark(mark)).unwrap()).settle();
    }
    assert_eq!(ring.oldest_unacked_mark(), Some(TimeMark(10)));
    assert_eq!(ring.payload_bytes_between(Stamp(0), Stamp(3)), 3 * 1536);
    assert_eq!(ring.payload_bytes_between(Stamp(1), Stamp(2)), 1536);
    assert_eq!(
        ring.payload_bytes_between(Stamp(0), Stamp(u64::MAX)),
        3 * 1536
    );
    consumer.set_acked(Stamp(2));
    ring.try_reclaim().unwrap();
    assert_eq!(ring.oldest_unacked_mark(), Some(TimeMark(30)));
    assert_eq!(ring.payload_bytes_between(Stamp(0), Stamp(3)), 1536);
}

#[test]
fn payloads_of_a_page_start_on_a_page_and_others_on_a_sector() {
    let ring = ring(16, 1 << 16);
    let mut addresses = Vec::new();
    for bytes in [512, 4096, 1000, 8192] {
        let mut claim = claim(&ring, bytes).unwrap();
        addresses.push((bytes, claim.as_mut_ptr() as usize));
        assert_eq!(
            claim.payload_mut().as_ptr() as usize,
            claim.as_mut_ptr() as usize
        );
    }
    for (bytes, address) in addresses {
        let align = if bytes >= 4096 { 4096 } else { 512 };
        assert_eq!(address % align, 0, "payload of {bytes}");
    }
}

#[test]
fn counters_wrap_unnoticed_where_31_and_32_bits_end() {
    for (stamp, position_units) in [
        ((1 << 31) - 20, (1 << 32) - 100),
        ((1 << 31) - 1, 0),
        (0, (1 << 32) - 1),
        ((5 << 31) - 7, (9 << 32) - 3),
    ] {
        let origin = Origin {
            stamp: Stamp(stamp),
            position_units,
        };
        let ring = ring_at(8, 1 << 14, origin);
        let consumer = consumer(&ring);
        let mut upto = Stamp(stamp);
        assert_eq!((ring.captured(), ring.acked()), (upto, upto));
        for round in 0..200u32 {
            let bytes = [512, 4096, 1536, 0, 8192, 2048][round as usize % 6];
            assert_eq!(write(&ring, bytes), upto.next());
            let mut entries = Vec::new();
            assert_eq!(consumer.peek_filled(upto, 9, &mut entries), Ok(1));
            let mut payload = Vec::new();
            consumer.read_payload(&entries[0], &mut payload).unwrap();
            assert_eq!(payload, pattern(upto.next(), bytes));
            upto = upto.next();
            assert_eq!(
                (ring.settled_prefix(), consumer.captured()),
                (upto, Ok(upto))
            );
            consumer.set_acked(upto);
            assert_eq!(ring.try_reclaim(), Ok(1));
        }
        assert_eq!(ring.usage().used_bytes, 0);
    }
}

#[test]
fn memory_outlives_the_ring_while_a_disk_write_may_read_it() {
    let ring = ring(4, 1 << 16);
    let filled = fill(claim(&ring, 4096).unwrap());
    drop(ring);
    assert_eq!(filled.payload(), pattern(Stamp(1), 4096));
    filled.settle();
}
