//! The workloads of `scripts/bench receiver`; each prints one JSON object.
//!
//! ```text
//! bench send DIR ADDRESS RECORD_BYTES TOTAL_BYTES DEPTH SOURCES TOKEN...   through a running receiver
//! bench quinn RECORD_BYTES TOTAL_BYTES                       the same batches to nobody
//! bench core DIR RECORD_BYTES TOTAL_BYTES                    the journal alone, from memory
//! bench apply DIR TARGETS TOTAL_BYTES                        a step on files, from memory
//! bench fold DIR                                             what ten overwrites of a block cost
//! ```
//!
//! `send`: DEPTH 0 sends as fast as the link takes it and never settles, so that nothing is
//! applied; otherwise DEPTH records at a time, each waited for, a whole volume that ends applied.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench: a failed unwrap is a failed run"
)]

mod core;
mod send;

use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().unwrap();
    let said = match words.as_slice() {
        [
            "send",
            dir,
            address,
            record,
            total,
            depth,
            sources,
            tokens @ ..,
        ] => {
            let load = send::Load {
                record_bytes: number(record),
                total_bytes: number(total),
                depth: number(depth),
            };
            assert_eq!(
                number(sources),
                tokens.len() as u64,
                "a token for each source"
            );
            send::send(dir.as_ref(), address, load, tokens)
        }
        ["quinn", record, total] => send::quinn_alone(number(record), number(total)),
        ["core", dir, record, total] => core::journal(dir.as_ref(), number(record), number(total)),
        ["apply", dir, targets, total] => {
            core::apply(dir.as_ref(), number(targets) as usize, number(total))
        }
        ["fold", dir] => core::fold(dir.as_ref()),
        _ => {
            eprintln!("usage: see the top of receiver/examples/bench/main.rs");
            std::process::exit(2);
        }
    };
    println!("{said}");
}

/// Bytes per second, in words of JSON.
fn rate(bytes: u64, time: Duration) -> serde_json::Value {
    let seconds = time.as_secs_f64();
    serde_json::json!({"bytes": bytes, "seconds": seconds, "rate": bytes as f64 / seconds})
}

/// A payload no filesystem or disk can make smaller.
fn noise(bytes: u64, seed: u64) -> Vec<u8> {
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice.to_le_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).collect()
}
