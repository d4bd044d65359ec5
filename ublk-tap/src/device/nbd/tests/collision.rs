//! Writes that overlap, on connections that know nothing of each other: whatever order they come in,
//! the disk and the records end up with the same bytes (P3).

use super::client::Client;
use super::stage::{Setup, Stage};
use crate::device::Shape;
use crate::ranges::RangeTable;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

const CLIENTS: usize = 4;
const ROUNDS: u32 = 1000;
/// Where they collide.
const AREA_BYTES: u64 = 256 << 10;
/// Requests a client has in flight.
const DEPTH: usize = 4;

/// A small generator; the seed is in the message of whatever fails.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Plays the rounds; the first in which disk and records differ.
fn first_difference(ranges: RangeTable, rounds: u32) -> Option<u32> {
    let stage = Stage::new(Setup {
        size_bytes: 1 << 20,
        shape: Shape {
            io_bytes_max: 64 << 10, // the largest are cut in two
            ..Shape::default()
        },
        ranges,
        ..Setup::default()
    });
    let (start, end) = (Barrier::new(CLIENTS + 1), Barrier::new(CLIENTS + 1));
    let is_over = AtomicBool::new(false);
    let mut found = None;
    std::thread::scope(|scope| {
        for number in 0..CLIENTS as u64 {
            let (start, end, is_over, path) = (&start, &end, &is_over, stage.path());
            scope.spawn(move || {
                let mut client = Client::connect(&path, number % 2 == 0);
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number + 1));
                loop {
                    start.wait();
                    if is_over.load(Ordering::Acquire) {
                        return;
                    }
                    collide(&mut client, &mut dice);
                    end.wait();
                }
            });
        }
        for round in 0..rounds {
            start.wait();
            end.wait();
            if stage.difference(0..AREA_BYTES as usize).is_some() {
                found = Some(round);
                break;
            }
        }
        is_over.store(true, Ordering::Release);
        start.wait();
    });
    found
}

fn collide(client: &mut Client, dice: &mut Dice) {
    for _ in 0..DEPTH {
        let length = 4096 * (1 + dice.below(32));
        let at = 4096 * dice.below((AREA_BYTES - length) / 4096 + 1);
        let fill = 1 + dice.below(255) as u8;
        if dice.below(8) == 0 {
            client.ask((super::client::ZEROES, 0), at, length as u32, &[]);
        } else {
            client.ask_write(at, &vec![fill; length as usize]);
        }
    }
    for _ in 0..DEPTH {
        assert_eq!(client.answer().error, 0);
    }
}

#[test]
fn overlapping_writes_on_four_connections_leave_disk_and_replica_the_same() {
    assert_eq!(first_difference(RangeTable::new(), ROUNDS), None, "P3");
}

#[test]
fn a_tap_that_does_not_see_overlaps_is_found_out() {
    let found = first_difference(RangeTable::blind(), ROUNDS);
    assert!(found.is_some(), "the test above proves nothing");
}
