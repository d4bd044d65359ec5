//! A receiver as it is installed, and a source that speaks the real protocol over real QUIC and
//! does with it what no shipper would.

#![allow(
    clippy::unwrap_used,
    reason = "a test program: a failed unwrap is a failed test"
)]

mod behind;
mod bounds;
mod crash;
mod damage;
mod frames;
mod fsck;
mod geometry;
mod history;
mod identity;
mod lost;
mod many;
mod order;
mod pool;
mod settle;
mod several;
mod site;
mod source;
mod talk;
mod window;

use std::future::Future;
use std::time::Duration;

/// Longest any story here takes; what hangs is told apart from what is slow.
const STORY_PATIENCE: Duration = Duration::from_secs(60);

/// Runs a story to its end.
fn run(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bounded = tokio::time::timeout(STORY_PATIENCE, story);
        bounded.await.expect("the story ends in a minute");
    });
}

/// A small generator, so that a failing seed can be run again.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.roll(at + 1));
        }
    }
}
