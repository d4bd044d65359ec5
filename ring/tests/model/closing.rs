//! Giving the stream up amid claims: nobody gets a place between the end and the gap.

use crate::checker::{check, thread};
use crate::common::{claim, fill, ring};
use ring::ClaimError;
use std::sync::Arc;
use wire::{Stamp, TimeMark};

#[test]
fn nothing_is_claimed_between_a_close_and_the_gap_that_ends_it() {
    check(|| {
        let ring = Arc::new(ring(8, 8192));
        let tap = Arc::clone(&ring);
        let producer = thread::spawn(move || {
            let mut stamps = Vec::new();
            for _ in 0..2 {
                match claim(&tap, 512) {
                    Ok(claimed) => {
                        stamps.push(claimed.stamp());
                        fill(claimed).settle();
                    }
                    Err(ClaimError::Closed) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
            stamps
        });
        let end = ring.close();
        assert!(ring.is_closed());
        let gap = ring.reopen(0, TimeMark(2)).unwrap();
        let gap_stamp = gap.stamp();
        drop(gap);
        assert!(!ring.is_closed(), "whoever claims next comes after the gap");
        assert_eq!(
            gap_stamp,
            Stamp(end.0 + 1),
            "the gap follows the end at once"
        );
        let stamps = producer.join().unwrap();
        assert!(!stamps.contains(&gap_stamp));
        let all = Stamp(stamps.len() as u64 + 1);
        assert_eq!((ring.captured(), ring.settled_prefix()), (all, all));
    });
}
