//! A shipper that lies, and a ring that holds what no tap wrote: nothing local may suffer.

use crate::common::{
    claim, consumer, descriptor, descriptor_word, fill, pattern, ring, scribble, write,
};
use memmap2::MmapOptions;
use ring::{AckViolation, ClaimError, Consumer, ConsumerFds, OpenError, Ring, RingFault};
use rustix::fs;
use rustix::io::Errno;
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use wire::{Stamp, TimeMark};

#[test]
fn memory_of_a_disk_write_in_flight_is_never_given_out_again() {
    let ring = ring(4, 1 << 14);
    let consumer = consumer(&ring);
    let in_flight = fill(claim(&ring, 4096).unwrap());
    write(&ring, 4096);
    write(&ring, 4096);
    consumer.set_acked(Stamp(3));
    let open = AckViolation::Unsettled {
        acked: Stamp(3),
        open: Stamp(1),
    };
    assert_eq!(ring.try_reclaim(), Err(open));
    write(&ring, 4096);
    assert_eq!(
        claim(&ring, 512).unwrap_err(),
        ClaimError::AckViolation(open)
    );
    assert_eq!(in_flight.payload(), pattern(Stamp(1), 4096));
    assert_eq!((ring.acked(), ring.violation()), (Stamp(0), Some(open)));
    in_flight.settle();
    assert_eq!(
        ring.try_reclaim(),
        Err(open),
        "a lie is not forgiven because it came true"
    );
}

#[test]
fn an_ack_that_goes_back_or_runs_ahead_breaks_the_group_until_it_is_reset() {
    for (page, expected) in [
        (
            1,
            AckViolation::Backwards {
                acked: Stamp(1),
                freed: Stamp(2),
            },
        ),
        (
            4,
            AckViolation::Ahead {
                acked: Stamp(4),
                captured: Stamp(3),
            },
        ),
        (
            u64::MAX,
            AckViolation::Ahead {
                acked: Stamp(u64::MAX),
                captured: Stamp(3),
            },
        ),
        (
            3 + (1 << 31),
            AckViolation::Ahead {
                acked: Stamp(3 + (1 << 31)),
                captured: Stamp(3),
            },
        ),
    ] {
        let ring = ring(8, 1 << 16);
        let consumer = consumer(&ring);
        for _ in 0..3 {
            write(&ring, 512);
        }
        consumer.set_acked(Stamp(2));
        assert_eq!(ring.try_reclaim(), Ok(2));
        consumer.set_acked(Stamp(page));
        assert_eq!(ring.try_reclaim(), Err(expected));
        consumer.set_acked(Stamp(3));
        assert_eq!(ring.try_reclaim(), Err(expected), "the violation stays");
        assert_eq!(ring.acked(), Stamp(2), "nothing was freed");

        ring.reset_acked();
        assert_eq!((consumer.acked(), ring.violation()), (Stamp(2), None));
        consumer.set_acked(Stamp(3));
        assert_eq!(ring.try_reclaim(), Ok(1));
    }
}

#[test]
fn scribbling_on_the_page_while_writes_go_on_never_frees_an_open_record() {
    let ring = ring(16, 1 << 16);
    let consumer = consumer(&ring);
    let mut random = 88172645463325252u64;
    let mut held = Vec::new();
    for _ in 0..20_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        consumer.set_acked(Stamp(random % 40));
        consumer.set_sent(Stamp(random));
        if let Ok(claim) = ring.claim(512, TimeMark(random)) {
            held.push(fill(claim));
        }
        if ring.try_reclaim().is_err() {
            ring.reset_acked();
        }
        assert!(ring.sent() >= ring.acked() && ring.sent() <= ring.captured());
        if held.len() > 8 {
            held.swap_remove(random as usize % held.len()).settle();
        }
        for filled in &held {
            assert!(filled.stamp() > ring.acked());
        }
    }
    for filled in &held {
        assert_eq!(filled.payload(), pattern(filled.stamp(), 512));
    }
}

#[test]
fn the_shipper_cannot_write_the_ring_nor_shrink_the_page() {
    let ring = ring(8, 1 << 16);
    let fds = ring.consumer_fds().unwrap();
    assert_eq!(rustix::io::pwrite(&fds.ring, b"x", 0), Err(Errno::BADF));
    assert_eq!(fs::ftruncate(&fds.ring, 0), Err(Errno::INVAL));
    let writable = MmapOptions::new().len(4096).map_raw(&fds.ring);
    assert_eq!(writable.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(
        MmapOptions::new()
            .len(4096)
            .map_raw_read_only(&fds.ring)
            .is_ok()
    );

    assert_eq!(fs::ftruncate(&fds.page, 0), Err(Errno::PERM));
    assert_eq!(fs::ftruncate(&fds.page, 1 << 20), Err(Errno::PERM));
    let seals = fs::fcntl_add_seals(&fds.page, fs::SealFlags::WRITE);
    assert_eq!(seals, Err(Errno::PERM), "nor take the page from the tap");
}

#[test]
fn a_shipper_that_never_drains_its_wakes_does_not_hold_up_a_write() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    let fds = ring.consumer_fds().unwrap();
    // On an eventfd this flag is the tap's as well; on our end of the pipe it is ours alone.
    let flags = fs::fcntl_getfl(&fds.wake).unwrap();
    fs::fcntl_setfl(&fds.wake, flags - fs::OFlags::NONBLOCK).unwrap();
    let start = Instant::now();
    for _ in 0..100_000 {
        consumer.prepare_sleep();
        ring.notify_consumer();
    }
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_page_punched_out_reads_as_an_ack_that_went_back() {
    let ring = ring(8, 1 << 16);
    let consumer = consumer(&ring);
    write(&ring, 512);
    consumer.set_acked(Stamp(1));
    ring.try_reclaim().unwrap();
    let fds = ring.consumer_fds().unwrap();
    let punch = fs::FallocateFlags::PUNCH_HOLE | fs::FallocateFlags::KEEP_SIZE;
    fs::fallocate(&fds.page, punch, 0, 4096).unwrap();
    assert!(matches!(
        ring.try_reclaim(),
        Err(AckViolation::Backwards { .. })
    ));
}

#[test]
fn descriptors_no_tap_wrote_are_refused_by_name() {
    let scribbled = |word: u64, value: u64| {
        let ring = ring(8, 1 << 14);
        let consumer = consumer(&ring);
        write(&ring, 1024);
        write(&ring, 1024);
        scribble(&ring, descriptor_word(2) + word, value);
        let mut entries = Vec::new();
        let result = consumer.peek_filled(Stamp(0), 10, &mut entries);
        assert!(
            result.is_ok() || entries.is_empty(),
            "nothing is handed out with an error"
        );
        result
    };
    let corrupt = |what| {
        Err(RingFault::Corrupt {
            stamp: Stamp(2),
            what,
        })
    };
    assert_eq!(scribbled(4, 1 << 40), corrupt("payload position"));
    assert_eq!(scribbled(4, u64::MAX), corrupt("payload position"));
    assert_eq!(scribbled(5, u64::MAX), corrupt("payload position"));
    assert_eq!(scribbled(5, 3), corrupt("payload length"));
    assert_eq!(scribbled(3, 1 << 63 | 1024), corrupt("payload length"));
    assert_eq!(scribbled(3, 512), corrupt("range"));
    assert_eq!(scribbled(2, 3), corrupt("range"));
    assert_eq!(scribbled(6, 0), corrupt("kind"));
    assert_eq!(scribbled(6, u64::MAX), corrupt("kind"));
    assert_eq!(scribbled(7, 1), corrupt("flags"));
    assert_eq!(
        scribbled(0, 2 << 3 | 7),
        Ok(1),
        "an unknown state is not filled"
    );
    assert_eq!(
        scribbled(0, 10 << 3 | 2),
        Ok(1),
        "another lap's record is not this one"
    );
}

/// The words of the second record's descriptor, one bit of them changed.
fn flipped(ring: &Ring, words: &[u64; 8], at: u64) {
    for (word, value) in (0u64..).zip(words) {
        let bit = if at / 64 == word { 1 << (at % 64) } else { 0 };
        scribble(ring, descriptor_word(2) + word, value ^ bit);
    }
}

#[test]
fn whatever_bit_of_a_descriptor_changes_nothing_impossible_is_handed_out() {
    let ring = ring(8, 1 << 14);
    let consumer = consumer(&ring);
    write(&ring, 1024);
    write(&ring, 1024);
    let words = descriptor(&ring, 2);
    let mut refused = Vec::new();
    for at in 0..8 * 64 {
        flipped(&ring, &words, at);
        let (mut entries, mut payload) = (Vec::new(), Vec::new());
        match consumer.peek_filled(Stamp(0), 10, &mut entries) {
            Err(RingFault::Corrupt { stamp, .. }) => {
                assert_eq!(stamp, Stamp(2), "bit {at}");
                refused.push(at);
            }
            Err(other) => panic!("bit {at}: {other}"),
            // The state word says that it is not there; time, volume and place on it may be any, and
            // the memory any in the ring: whoever reads on knows the volumes, and who wrote the
            // ring can write its payload.
            Ok(count) => {
                assert!(at / 64 != 7, "bit {at} is not looked at");
                assert_eq!(count, entries.len());
                for entry in &entries {
                    consumer.read_payload(entry, &mut payload).unwrap();
                    let fields = &entry.fields;
                    let kind = fields.kind;
                    assert!(kind.allows(
                        fields.offset_bytes,
                        fields.length_bytes,
                        fields.payload_bytes
                    ));
                }
                assert_eq!(payload.len(), count * 1024);
            }
        }
        let (mut voids, scanned) = (Vec::new(), Stamp(0));
        assert!(consumer.settle_scan(scanned, 10, &mut voids).unwrap() <= Stamp(2));
    }
    assert!(refused.len() > 250, "{} bits are refused", refused.len());
}

#[test]
fn a_claim_word_out_of_reach_is_an_error_and_not_a_loop() {
    let ring = ring(8, 1 << 14);
    let consumer = consumer(&ring);
    scribble(&ring, 512, u64::MAX >> 1);
    assert!(matches!(
        consumer.captured(),
        Err(RingFault::Corrupt {
            what: "claim word",
            ..
        })
    ));
    scribble(&ring, 512, 0);
}

#[test]
fn a_file_that_is_no_ring_is_refused_before_it_is_mapped_further() {
    let open = |change: fn(&mut ConsumerFds)| {
        let ring = ring(8, 1 << 14);
        let mut fds = ring.consumer_fds().unwrap();
        change(&mut fds);
        Consumer::open(fds).map(|_| ()).unwrap_err()
    };
    let small = open(|fds| fds.ring = fds.wake.try_clone().unwrap());
    assert!(
        matches!(small, OpenError::BadSize { found_bytes: 0 }),
        "{small}"
    );
    let page = open(|fds| fds.ring = fds.page.try_clone().unwrap());
    assert!(matches!(page, OpenError::NotARing), "{page}");
    let swapped = open(|fds| std::mem::swap(&mut fds.ring, &mut fds.page));
    assert!(matches!(swapped, OpenError::BadSize { .. }), "{swapped}");

    for (word, value) in [(0, 0), (1, 2), (5, 7), (5, 128), (6, 1 << 15), (6, 1 << 40)] {
        let ring = ring(8, 1 << 14);
        scribble(&ring, word, value);
        let fds = ring.consumer_fds().unwrap();
        assert!(
            Consumer::open(fds).is_err(),
            "header word {word} is {value}"
        );
    }
}
