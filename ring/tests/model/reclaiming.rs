//! Memory given back while others claim, settle and look: an honest shipper is never accused, what is
//! open is never given out, and a reader that comes too late knows it.

use crate::checker::{check, thread};
use crate::common::{claim, consumer, fill, ring};
use std::sync::Arc;
use wire::Stamp;

#[test]
fn an_honest_shipper_is_never_accused_whoever_reclaims_when() {
    check(|| {
        let ring = Arc::new(ring(2, 8192));
        let consumer = consumer(&ring);
        let taps: Vec<_> = (0..2)
            .map(|_| {
                let tap = Arc::clone(&ring);
                thread::spawn(move || {
                    fill(claim(&tap, 512).unwrap()).settle();
                    tap.try_reclaim().unwrap();
                })
            })
            .collect();
        let mut at = Stamp::ZERO;
        for _ in 0..2 {
            at = consumer.settle_scan(at, 8, &mut Vec::new()).unwrap();
            consumer.set_acked(at);
            thread::yield_now();
        }
        for tap in taps {
            tap.join().unwrap();
        }
        ring.try_reclaim().unwrap();
        assert_eq!(ring.violation(), None);
        assert_eq!(ring.acked(), at);
    });
}

#[test]
fn the_settled_prefix_never_covers_an_open_record_nor_goes_back() {
    check(|| {
        let ring = Arc::new(ring(4, 8192));
        let open = fill(claim(&ring, 512).unwrap());
        let tap = Arc::clone(&ring);
        let other = thread::spawn(move || fill(claim(&tap, 512).unwrap()).settle());
        assert_eq!(ring.settled_prefix(), Stamp::ZERO, "the first is open");
        let tap = Arc::clone(&ring);
        let first = thread::spawn(move || open.settle());
        let seen = ring.settled_prefix();
        assert!(seen <= ring.captured());
        assert!(ring.settled_prefix() >= seen, "it went back");
        first.join().unwrap();
        other.join().unwrap();
        assert_eq!(tap.settled_prefix(), Stamp(2));
    });
}

#[test]
fn the_settled_prefix_is_right_while_slots_are_given_out_again() {
    check(|| {
        let ring = Arc::new(ring(2, 8192));
        let consumer = consumer(&ring);
        fill(claim(&ring, 512).unwrap()).settle();
        consumer.set_acked(Stamp(1));
        let tap = Arc::clone(&ring);
        let lap = thread::spawn(move || {
            tap.try_reclaim().unwrap();
            fill(claim(&tap, 512).unwrap()).settle();
            fill(claim(&tap, 512).unwrap())
        });
        let seen = ring.settled_prefix();
        assert!(
            (Stamp(1)..=Stamp(2)).contains(&seen),
            "{seen}: the third is open"
        );
        lap.join().unwrap().settle();
        assert_eq!(ring.settled_prefix(), Stamp(3));
    });
}

/// Under shuttle only: payload is plain memory here, which loom cannot show an older value of.
#[cfg(ring_shuttle)]
#[test]
fn a_reader_that_comes_too_late_gets_the_whole_record_or_none() {
    use crate::common::pattern;
    use ring::RingFault;

    check(|| {
        // As much payload as eight records take, so that the second lap reuses that of the first.
        let ring = Arc::new(ring(8, 8192));
        let consumer = consumer(&ring);
        let bytes = 4096;
        fill(claim(&ring, bytes).unwrap()).settle();
        fill(claim(&ring, bytes).unwrap()).settle();
        let mut entries = Vec::new();
        consumer.peek_filled(Stamp::ZERO, 1, &mut entries).unwrap();
        // It says that all is safe, and reads after that.
        consumer.set_acked(Stamp(2));
        let laps: Vec<_> = (0..2)
            .map(|_| {
                let tap = Arc::clone(&ring);
                thread::spawn(move || match claim(&tap, bytes) {
                    Ok(claimed) => fill(claimed).settle(),
                    Err(_) => thread::yield_now(),
                })
            })
            .collect();
        let mut payload = Vec::new();
        match consumer.read_payload(&entries[0], &mut payload) {
            Ok(()) => assert_eq!(payload, pattern(Stamp(1), bytes)),
            Err(fault) => {
                assert!(matches!(fault, RingFault::Recycled { .. }), "{fault}");
                assert!(payload.is_empty());
            }
        }
        for lap in laps {
            lap.join().unwrap();
        }
    });
}
