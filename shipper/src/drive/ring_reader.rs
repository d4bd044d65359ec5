//! Reads records out of the ring and makes batches of them.
//!
//! A record is copied once, from the ring into its batch, and its checksum is made over that copy
//! at once (P9): what the ring holds later cannot change what is sent.

use crate::session::Batch;
use bytes::Bytes;
use ring::{Consumer, Entry, RingFault};
use std::io;
use std::os::fd::AsFd;
use tokio::net::unix::pipe;
use wire::limits::{BATCH_BYTES_GOAL, BATCH_RECORDS_MAX};
use wire::{BATCH_HEADER_BYTES, BatchHeader, RECORD_HEADER_BYTES, RecordHeader, Stamp};

/// Entries looked at at once.
const LOOK_RECORDS: usize = 8;
const _: () = assert!((BATCH_RECORDS_MAX as usize).is_multiple_of(LOOK_RECORDS));

/// The ring, with the records looked at last.
#[derive(Debug)]
pub struct RingReader {
    consumer: Consumer,
    entries: Vec<Entry>,
    headers: Vec<RecordHeader>,
    voids: Vec<Stamp>,
}

/// Rung by the tap when the shipper sleeps.
#[derive(Debug)]
pub struct RingBell {
    wake: pipe::Receiver,
}

impl RingReader {
    /// Takes over a ring.
    pub fn new(consumer: Consumer) -> Self {
        Self {
            consumer,
            entries: Vec::new(),
            headers: Vec::new(),
            voids: Vec::new(),
        }
    }

    /// The ring itself.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// The filled records after `after`, a batch's worth at most, with the marks the tap noted.
    pub fn peek(&mut self, after: Stamp) -> Result<&[RecordHeader], RingFault> {
        self.entries.clear();
        self.headers.clear();
        self.look(after)?;
        let incarnation_id = self.consumer.incarnation().id;
        for entry in &self.entries {
            self.headers.push(header(entry, incarnation_id)?);
        }
        Ok(&self.headers)
    }

    /// Looks at so many entries as one batch can take, and no more: whoever reads on in one go lets
    /// the settle marks and the receiver wait.
    fn look(&mut self, mut after: Stamp) -> Result<(), RingFault> {
        let mut payload_bytes = 0_u64;
        while self.entries.len() < BATCH_RECORDS_MAX as usize
            && payload_bytes < u64::from(BATCH_BYTES_GOAL)
        {
            let looked_at = self.entries.len();
            if self
                .consumer
                .peek_filled(after, LOOK_RECORDS, &mut self.entries)?
                == 0
            {
                break;
            }
            let new = &self.entries[looked_at..];
            payload_bytes += new
                .iter()
                .map(|entry| u64::from(entry.fields.payload_bytes))
                .sum::<u64>();
            after = new.last().map_or(after, |entry| entry.stamp);
        }
        Ok(())
    }

    /// The bytes of `batch`, whose records were among those looked at last.
    pub fn assemble(&self, batch: &Batch) -> Result<Bytes, RingFault> {
        let records = u32::try_from(batch.records.len()).unwrap_or(u32::MAX);
        let bytes = u32::try_from(batch.bytes()).unwrap_or(u32::MAX);
        let head = BatchHeader {
            session: batch.session,
            records,
            bytes,
        };
        let mut out = Vec::with_capacity(BATCH_HEADER_BYTES + bytes as usize);
        out.extend_from_slice(&head.to_bytes());
        for record in &batch.records {
            self.append(record, &mut out)?;
        }
        assert!(
            out.len() == BATCH_HEADER_BYTES + bytes as usize,
            "a batch has the length its header says"
        );
        Ok(out.into())
    }

    fn append(&self, record: &RecordHeader, out: &mut Vec<u8>) -> Result<(), RingFault> {
        let first = self.entries.first().map_or(0, |entry| entry.stamp.0);
        let at = usize::try_from(record.stamp.0.wrapping_sub(first)).unwrap_or(usize::MAX);
        let entry = self
            .entries
            .get(at)
            .filter(|entry| entry.stamp == record.stamp);
        let entry = entry.expect("batches are made of the records looked at last");
        let head = out.len();
        let payload = head + RECORD_HEADER_BYTES;
        out.resize(payload, 0);
        self.consumer.read_payload(entry, out)?;
        let sealed = record.sealed(&out[payload..]);
        out[head..payload].copy_from_slice(&sealed.to_bytes());
        Ok(())
    }

    /// How far the disk has answered after `after`, and the void stamps on the way.
    pub fn scan(&mut self, after: Stamp, count_max: usize) -> Result<(Stamp, &[Stamp]), RingFault> {
        self.voids.clear();
        let upto = self
            .consumer
            .settle_scan(after, count_max, &mut self.voids)?;
        Ok((upto, &self.voids))
    }
}

impl RingBell {
    /// The bell of a ring; needs a tokio runtime.
    pub fn new(consumer: &Consumer) -> io::Result<Self> {
        let wake = consumer.wake_fd()?.as_fd().try_clone_to_owned()?;
        Ok(Self {
            wake: pipe::Receiver::from_owned_fd(wake)?,
        })
    }

    /// Waits until the tap wakes a sleeper; see [`Consumer::prepare_sleep`].
    pub async fn woken(&self) {
        if self.wake.readable().await.is_err() {
            // The pipe cannot be watched: the tick will have to do.
            return std::future::pending().await;
        }
        let mut wakes = [0; 64];
        while self.wake.try_read(&mut wakes).is_ok_and(|read| read > 0) {}
    }
}

/// What of a ring entry travels; a shape no record can have means that the ring is broken.
fn header(entry: &Entry, incarnation_id: u128) -> Result<RecordHeader, RingFault> {
    let fields = &entry.fields;
    let (offset, length, payload) = (
        fields.offset_bytes,
        fields.length_bytes,
        fields.payload_bytes,
    );
    if !fields.kind.allows(offset, length, payload) {
        return Err(RingFault::Corrupt {
            stamp: entry.stamp,
            what: "shape",
        });
    }
    Ok(RecordHeader {
        kind: fields.kind,
        fua: fields.fua,
        volume: fields.volume,
        stamp: entry.stamp,
        mark: entry.mark,
        offset_bytes: offset,
        length_bytes: length,
        payload_bytes: payload,
        incarnation_id,
        checksum: 0,
    })
}
