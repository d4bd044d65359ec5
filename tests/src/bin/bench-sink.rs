//! A consumer that only advances the cursor: `bench-sink SHIPPER_SOCKET [--checksum]`.
//!
//! It takes the shipper's place at the tap's socket, so that the block path is measured without
//! encryption and network. With `--checksum` it also reads every record out of the ring and seals
//! it, as the shipper does. It is part of the bench, never of the product.

use e2e::consumer::attach;
use ring::{Consumer, Entry, RingFault};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;
use wire::{RecordHeader, Stamp};

/// Rhythm of the shipper while there is work.
const TURN: Duration = Duration::from_millis(1);
const SCAN: usize = 4096;

struct Sink {
    consumer: Consumer,
    checksum: bool,
    at: Stamp,
    voids: Vec<Stamp>,
    entries: Vec<Entry>,
    payload: Vec<u8>,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (socket, option) = (args.next(), args.next());
    let known = option
        .as_deref()
        .is_none_or(|option| option == "--checksum");
    let Some(socket) = socket.filter(|socket| known && !socket.starts_with('-')) else {
        eprintln!("usage: bench-sink SHIPPER_SOCKET [--checksum]");
        std::process::exit(2);
    };
    let (_channel, consumer) = attach(Path::new(&socket));
    let at = consumer.freed();
    let (voids, entries, payload) = (Vec::new(), Vec::new(), Vec::new());
    let mut sink = Sink {
        consumer,
        checksum: option.is_some(),
        at,
        voids,
        entries,
        payload,
    };
    loop {
        match sink.turn() {
            Ok(true) => {}
            Ok(false) => sleep(TURN),
            Err(fault) => {
                eprintln!("bench-sink: {fault}");
                std::process::exit(1);
            }
        }
    }
}

impl Sink {
    /// Acknowledges what has settled; false if there was nothing.
    fn turn(&mut self) -> Result<bool, RingFault> {
        self.voids.clear();
        let upto = self.consumer.settle_scan(self.at, SCAN, &mut self.voids)?;
        if upto == self.at {
            return Ok(false);
        }
        if self.checksum {
            self.seal(upto)?;
        }
        self.consumer.set_sent(upto);
        self.consumer.set_acked(upto);
        self.at = upto;
        Ok(true)
    }

    fn seal(&mut self, upto: Stamp) -> Result<(), RingFault> {
        self.entries.clear();
        let most = upto.records_since(self.at) as usize;
        self.consumer
            .peek_filled(self.at, most, &mut self.entries)?;
        for entry in &self.entries {
            self.payload.clear();
            self.consumer.read_payload(entry, &mut self.payload)?;
            let header = RecordHeader {
                kind: entry.fields.kind,
                fua: entry.fields.fua,
                volume: entry.fields.volume,
                stamp: entry.stamp,
                mark: entry.mark,
                offset_bytes: entry.fields.offset_bytes,
                length_bytes: entry.fields.length_bytes,
                payload_bytes: entry.fields.payload_bytes,
                incarnation_id: self.consumer.incarnation().id,
                checksum: 0,
            };
            std::hint::black_box(header.sealed(&self.payload));
        }
        Ok(())
    }
}
