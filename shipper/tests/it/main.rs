//! The shipper between a real ring and a receiver reached over QUIC.

#![allow(
    clippy::unwrap_used,
    reason = "a test program: a failed unwrap is a failed test"
)]

mod commands;
mod confined;
mod host;
mod link;
mod receiver;
mod throughput;

use std::time::{Duration, Instant};

/// Waits until `holds` does, and says what was waited for when it never does.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
