//! How fast a ring empties over loopback; a figure, not a test.
//!
//! `cargo test --release -p ublk-tap-shipper --test it -- --ignored --nocapture throughput`

use crate::host::Host;
use crate::receiver::Receiver;
use ring::handoff::LinkState;
use std::time::Instant;

const RING_BYTES: u64 = 64 << 20;

/// Producer, shipper and receiver are threads of this process and share its processors.
#[test]
#[ignore = "a measurement; run it by name, in release mode, on an idle machine"]
fn throughput_of_the_link_over_loopback() {
    for (bytes, count) in [(128 << 10, 8192), (4 << 10, 131_072)] {
        let receiver = Receiver::new();
        receiver.journal().is_forgetful = true;
        let mut host = Host::new(&receiver.address, receiver.pin(), RING_BYTES);
        host.ship();
        host.until_link(LinkState::Up);
        let start = Instant::now();
        let mut last = host.write(bytes);
        for _ in 1..count {
            last = host.write(bytes);
        }
        host.until_acked(last);
        let seconds = start.elapsed().as_secs_f64();
        let journal = receiver.journal();
        let mib = journal.bytes as f64 / f64::from(1 << 20);
        println!(
            "{:4} KiB records: {:6.0} MiB/s, {:8.0} records/s, {:.1} records per batch",
            bytes >> 10,
            mib / seconds,
            f64::from(count) / seconds,
            f64::from(count) / journal.batches as f64,
        );
    }
}
