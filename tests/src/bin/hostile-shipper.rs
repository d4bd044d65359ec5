//! A shipper gone bad: `hostile-shipper SHIPPER_SOCKET`.
//!
//! It has what a shipper has, the ring read-only and one writable page, and writes the worst it can
//! think of on that page, for ever.

use e2e::consumer::attach;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;
use wire::Stamp;

fn main() {
    let Some(socket) = std::env::args().nth(1) else {
        eprintln!("usage: hostile-shipper SHIPPER_SOCKET");
        std::process::exit(2);
    };
    let (_channel, consumer) = attach(Path::new(&socket));
    // Ahead of what is captured, ahead of what is settled, backwards, and the ends of the range.
    for turn in 0u64.. {
        let captured = consumer.captured().unwrap_or_default();
        let lie = match turn % 6 {
            0 => Stamp(captured.0 + 1),
            1 => captured,
            2 => Stamp(captured.0 / 2),
            3 => Stamp(u64::MAX),
            4 => Stamp(captured.0 + (1 << 31)),
            _ => Stamp(0),
        };
        consumer.set_acked(lie);
        consumer.set_sent(lie);
        consumer.prepare_sleep();
        sleep(Duration::from_micros(200));
    }
}
