//! Producers and a shipper: every record arrives whole, once, in an order that respects causality.

use crate::checker::{check, thread};
use crate::common::{TestRing, claim, consumer, fields_of, fill, pattern, ring, ring_at};
use ring::{ClaimError, Consumer, Origin, Ring};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use wire::Stamp;

/// Records of each producer.
const RECORDS: u64 = if cfg!(ring_loom) { 1 } else { 3 };
const PRODUCERS: u64 = 2;
const BYTES: u32 = 512;

/// The oracle: what the producers know they have done, in plain order.
#[derive(Default)]
struct Book {
    /// Whether each stamp was settled; void otherwise.
    done: BTreeMap<u64, bool>,
    completed: u64,
}

fn produce(ring: &Ring, book: &Mutex<Book>) {
    for record in 0..RECORDS {
        let before = book.lock().unwrap().completed;
        let claimed = loop {
            match claim(ring, BYTES) {
                Ok(claimed) => break claimed,
                Err(ClaimError::Full) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let stamp = claimed.stamp().0;
        assert!(
            stamp > before,
            "a write after a completed one has the later stamp (P2)"
        );
        let filled = fill(claimed);
        let is_settled = record % 2 == 0;
        if is_settled {
            filled.settle();
        } else {
            filled.void();
        }
        let mut book = book.lock().unwrap();
        assert!(
            book.done.insert(stamp, is_settled).is_none(),
            "a stamp is given once"
        );
        book.completed = book.completed.max(stamp);
    }
}

/// Takes what there is; returns how far it got.
fn ship(consumer: &Consumer, mut at: Stamp, voids: &mut Vec<Stamp>) -> Stamp {
    let mut entries = Vec::new();
    consumer.peek_filled(at, 8, &mut entries).unwrap();
    for (entry, stamp) in entries.iter().zip(at.0 + 1..) {
        assert_eq!(entry.stamp, Stamp(stamp), "no hole");
        let mut payload = Vec::new();
        consumer.read_payload(entry, &mut payload).unwrap();
        assert_eq!(payload, pattern(entry.stamp, BYTES), "whole");
        assert_eq!(entry.fields, fields_of(entry.stamp, BYTES));
    }
    let upto = consumer.settle_scan(at, entries.len(), voids).unwrap();
    assert!(upto.0 <= at.0 + entries.len() as u64);
    at = upto;
    consumer.set_acked(at);
    at
}

fn run(ring: TestRing, origin: u64) {
    let consumer = consumer(&ring);
    let ring = Arc::new(ring);
    let book = Arc::new(Mutex::new(Book::default()));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (ring, book) = (Arc::clone(&ring), Arc::clone(&book));
            thread::spawn(move || produce(&ring, &book))
        })
        .collect();
    let (mut at, mut voids) = (Stamp(origin), Vec::new());
    let all = Stamp(origin + PRODUCERS * RECORDS);
    if cfg!(ring_loom) {
        // A loop that waits has no end there: it looks twice amid them, and once after.
        at = ship(&consumer, at, &mut voids);
        thread::yield_now();
        at = ship(&consumer, at, &mut voids);
    } else {
        while at < all {
            at = ship(&consumer, at, &mut voids);
            thread::yield_now();
        }
    }
    for producer in producers {
        producer.join().unwrap();
    }
    at = ship(&consumer, at, &mut voids);
    assert_eq!(at, all);
    let book = book.lock().unwrap();
    let void = book.done.iter().filter(|(_, is_settled)| !**is_settled);
    let void: Vec<Stamp> = void.map(|(stamp, _)| Stamp(*stamp)).collect();
    assert_eq!(voids, void);
    ring.try_reclaim().unwrap();
    assert_eq!(ring.acked(), all);
    assert_eq!(ring.settled_prefix(), all);
    assert_eq!(ring.usage().used_bytes, 0);
}

#[test]
fn records_of_two_producers_arrive_whole_once_and_in_order() {
    check(|| run(ring(if cfg!(ring_loom) { 2 } else { 4 }, 8192), 0));
}

#[test]
fn nothing_changes_where_stamps_and_positions_wrap_in_the_claim_word() {
    let stamp = (1 << 31) - 2;
    check(move || {
        let origin = Origin {
            stamp: Stamp(stamp),
            position_units: (1 << 32) - 1,
        };
        run(ring_at(4, 8192, origin), stamp);
    });
}
