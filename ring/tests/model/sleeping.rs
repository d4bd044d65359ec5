//! A shipper that falls asleep at the very moment a record comes.

use crate::checker::{check, thread};
use crate::common::{claim, consumer, fill, ring};
use std::sync::Arc;
use wire::Stamp;

#[test]
fn a_record_is_seen_before_the_sleep_or_wakes_the_sleeper() {
    check(|| {
        let ring = Arc::new(ring(2, 8192));
        let consumer = consumer(&ring);
        let tap = Arc::clone(&ring);
        let producer = thread::spawn(move || {
            fill(claim(&tap, 512).unwrap()).settle();
            tap.notify_consumer();
        });
        consumer.prepare_sleep();
        let seen = consumer
            .peek_filled(Stamp::ZERO, 8, &mut Vec::new())
            .unwrap();
        let settled = consumer
            .settle_scan(Stamp::ZERO, 8, &mut Vec::new())
            .unwrap();
        producer.join().unwrap();
        let is_woken = consumer.wake_fd().unwrap().drain().unwrap();
        assert!(
            is_woken || (seen == 1 && settled == Stamp(1)),
            "missed each other"
        );
    });
}
