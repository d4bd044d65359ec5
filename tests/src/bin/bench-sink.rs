//! A consumer that only advances the cursor: `bench-sink SHIPPER_SOCKET`.
//!
//! It takes the shipper's place at the tap's socket, so that the block path is measured without
//! checksums, encryption and network. It is part of the bench, never of the product.

use e2e::consumer::attach;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;
use wire::Stamp;

/// Rhythm of the shipper while there is work.
const TURN: Duration = Duration::from_millis(1);
const SCAN: usize = 4096;

fn main() {
    let Some(socket) = std::env::args().nth(1) else {
        eprintln!("usage: bench-sink SHIPPER_SOCKET");
        std::process::exit(2);
    };
    let (_channel, consumer) = attach(Path::new(&socket));
    let mut at = consumer.freed();
    let mut voids = Vec::new();
    loop {
        voids.clear();
        let upto = consumer
            .settle_scan(at, SCAN, &mut voids)
            .unwrap_or_else(|fault| {
                eprintln!("bench-sink: {fault}");
                std::process::exit(1);
            });
        if upto == at {
            sleep(TURN);
            continue;
        }
        at = advance(&consumer, upto);
    }
}

fn advance(consumer: &ring::Consumer, upto: Stamp) -> Stamp {
    consumer.set_sent(upto);
    consumer.set_acked(upto);
    upto
}
