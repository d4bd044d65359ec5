//! What waking the shipper costs a thread that writes, counted by the kernel.

use crate::common::{claim, consumer, fill, ring};
use ring::{Consumer, Ring};
use std::fs;

const WRITES: u64 = 1000;

/// System calls by which this thread has written anything to anywhere.
fn write_calls() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("syscw: "));
    line.unwrap().parse().unwrap()
}

/// As a queue thread does: a record, the disk's answer, a call after each.
fn write_often(ring: &Ring, consumer: &Consumer) -> u64 {
    let before = write_calls();
    for _ in 0..WRITES {
        let filled = fill(claim(ring, 512).unwrap());
        let stamp = filled.stamp();
        ring.notify_consumer();
        filled.settle();
        ring.notify_consumer();
        consumer.set_acked(stamp);
    }
    write_calls() - before
}

#[test]
fn a_shipper_that_is_awake_costs_a_write_no_system_call_and_one_that_sleeps_costs_one_in_all() {
    let ring = ring(8, 1 << 14);
    let consumer = consumer(&ring);
    let wake = consumer.wake_fd().unwrap();
    assert_eq!(write_often(&ring, &consumer), 0);
    assert!(!wake.drain().unwrap());
    for _ in 0..3 {
        consumer.prepare_sleep();
        assert_eq!(write_often(&ring, &consumer), 1);
        assert!(wake.drain().unwrap());
        assert_eq!(write_often(&ring, &consumer), 0, "it is awake again");
    }
    consumer.prepare_sleep();
    consumer.cancel_sleep();
    assert_eq!(write_often(&ring, &consumer), 0, "it has found work itself");
    assert!(!wake.drain().unwrap());
}
