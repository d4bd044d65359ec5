//! Batches: one unidirectional stream each, read whole, verified, handed on.

use crate::serve::{Line, Room, Rooms, Share};
use bytes::Bytes;
use link::FrameError;
use std::time::Duration;
use tokio::sync::Semaphore;
use wire::{BatchHeader, RECORD_HEADER_BYTES, RecordHeader};

/// Longest a batch that has begun may stand still: those behind it wait for it.
const STALL_PATIENCE: Duration = Duration::from_secs(20);

/// How the batches of a session come in: one at a time is read, into memory of the session's own;
/// the others stay in the link's window. Only when it is whole it takes room that all sessions
/// share: who sends slowly, or nothing, takes none of it.
pub(super) struct Inlet {
    turn: Semaphore,
    share: Share,
}

impl Inlet {
    /// Nothing has come in.
    pub(super) fn new(rooms: &Rooms) -> Self {
        Self {
            turn: Semaphore::new(1),
            share: rooms.share(),
        }
    }
}

/// What a batch was found to be.
pub(super) enum Found {
    /// Verified records and the room they take.
    Records(Vec<(RecordHeader, Bytes)>, Room),
    /// It is of another session: dropped.
    Other,
}

/// Reads one batch of `session`. An error ends the session, in words.
pub(super) async fn read(
    (rooms, inlet): (&Rooms, &Inlet),
    line: &Line,
    session: u64,
    stream: &mut quinn::RecvStream,
) -> Result<Found, String> {
    let text = |error: FrameError| error.to_string();
    let header = link::read_batch_header(stream).await.map_err(text)?;
    if header.session != session {
        return Ok(Found::Other);
    }
    // Waiting here leaves the bytes in the link's window, and so with the source.
    let turn = inlet.turn.acquire().await;
    let stopping = || "the receiver is stopping".to_owned();
    let turn = turn.map_err(|_| stopping())?;
    let body = read_body(stream, header.bytes as usize).await?;
    line.may_pass().await;
    let room = rooms.room(&inlet.share, header.bytes).await;
    let room = room.ok_or_else(stopping)?;
    drop(turn);
    Ok(Found::Records(split(&header, Bytes::from(body))?, room))
}

/// The body of a batch, all of its stream.
async fn read_body(stream: &mut quinn::RecvStream, bytes: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::with_capacity(bytes);
    while let Some(chunk) = read_some(stream).await? {
        if chunk.len() > bytes - body.len() {
            return Err(FrameError::Trailing.to_string());
        }
        body.extend_from_slice(&chunk);
    }
    if body.len() < bytes {
        return Err(FrameError::Truncated.to_string());
    }
    Ok(body)
}

/// What comes next of a stream, as it lies in memory: no more of it than has arrived.
async fn read_some(stream: &mut quinn::RecvStream) -> Result<Option<Bytes>, String> {
    let read = tokio::time::timeout(STALL_PATIENCE, stream.read_chunk(usize::MAX, true)).await;
    let read = read.map_err(|_| "a batch stands still".to_owned())?;
    let chunk = read.map_err(|error| FrameError::from(error).to_string())?;
    Ok(chunk.map(|chunk| chunk.bytes))
}

/// The records of a body, each verified against its checksum (P9).
pub fn split(header: &BatchHeader, mut body: Bytes) -> Result<Vec<(RecordHeader, Bytes)>, String> {
    let mut records = Vec::with_capacity(header.records as usize);
    for _ in 0..header.records {
        let record = RecordHeader::parse(&body).map_err(|error| error.to_string())?;
        let end = RECORD_HEADER_BYTES + record.payload_bytes as usize;
        if body.len() < end {
            return Err("a batch ends inside a record".into());
        }
        let mut whole = body.split_to(end);
        let payload = whole.split_off(RECORD_HEADER_BYTES);
        record.verify(&payload).map_err(|error| error.to_string())?;
        records.push((record, payload));
    }
    if !body.is_empty() {
        return Err("a batch is longer than its records".into());
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{RecordKind, Stamp, TimeMark, VolumeIndex};

    fn record(stamp: u64) -> Vec<u8> {
        let header = RecordHeader {
            kind: RecordKind::Write,
            fua: false,
            volume: VolumeIndex(0),
            stamp: Stamp(stamp),
            mark: TimeMark(stamp),
            offset_bytes: 0,
            length_bytes: 512,
            payload_bytes: 512,
            incarnation_id: 7,
            checksum: 0,
        };
        let payload = [stamp as u8; 512];
        let mut bytes = header.sealed(&payload).to_bytes().to_vec();
        bytes.extend_from_slice(&payload);
        bytes
    }

    fn header(records: u32, body: &[u8]) -> BatchHeader {
        BatchHeader {
            session: 1,
            records,
            bytes: body.len() as u32,
        }
    }

    #[test]
    fn a_whole_batch_is_split_and_every_cut_of_it_is_refused() {
        let body = [record(1), record(2)].concat();
        let split_at = |cut: usize, count| {
            let part = Bytes::copy_from_slice(&body[..cut]);
            split(&header(count, &part), part)
        };
        assert_eq!(split_at(body.len(), 2).unwrap().len(), 2);
        assert!(split_at(body.len(), 1).is_err(), "left-over bytes");
        assert!(split_at(body.len(), 3).is_err(), "a missing record");
        for cut in 0..body.len() {
            assert!(split_at(cut, 2).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_ends_the_session() {
        let good = record(5);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                split(&header(1, &bad), Bytes::from(bad)).is_err(),
                "bit {bit}"
            );
        }
    }
}
