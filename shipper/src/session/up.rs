//! A session that is up: what was sent, what was acknowledged, what may go next.

use super::acks::{Acks, Said};
use super::error::Violation;
use super::marks::Marks;
use super::volumes::VolumeTable;
use super::{
    BEAT_INTERVAL, Batch, IN_FLIGHT_BATCHES_MAX, IN_FLIGHT_BYTES_MAX, Moment, SILENCE_MAX,
    WISH_INTERVAL,
};
use ring::handoff::Progress;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::control::{Ack, Heartbeat, HelloAck};
use wire::limits::{BATCH_BYTES_GOAL, BATCH_RECORDS_MAX, SETTLE_VOIDS_MAX};
use wire::{RecordHeader, SettleMark, Stamp, TimeMark, VolumeIndex};

/// State of one session.
#[derive(Debug)]
pub(super) struct Up {
    session: u64,
    since: Duration,
    heard: Duration,
    beat_due: Duration,
    /// The newest heartbeat, and the clock as it was, not lifted.
    beat: Option<(Heartbeat, TimeMark)>,
    clock_offset_ns: i64,
    acks: Acks,
    /// Newest record handed to the transport in this session.
    pub(super) sent: Stamp,
    /// The disk has answered up to here, as the ring showed in this session.
    scanned: Stamp,
    /// End of the newest settle mark sent in this session.
    marked: Stamp,
    in_flight_bytes: u64,
    in_flight_batches: usize,
    /// When the receiver last wished for a copy of what; announced volumes only.
    wishes: BTreeMap<Option<VolumeIndex>, Duration>,
}

impl Up {
    /// Starts where the receiver's hello and the oldest record still held allow.
    pub(super) fn new(now: Duration, ack: &HelloAck, oldest: Stamp) -> Self {
        Self {
            session: ack.session,
            since: now,
            heard: now,
            beat_due: now,
            beat: None,
            clock_offset_ns: 0,
            acks: Acks::new(ack),
            sent: ack.resume.max(oldest.prev()),
            scanned: oldest.prev(),
            marked: ack.settled.max(oldest.prev()),
            in_flight_bytes: 0,
            in_flight_batches: 0,
            wishes: BTreeMap::new(),
        }
    }

    /// The next batch out of `records`, if there is one and room for it.
    pub(super) fn next_batch(
        &mut self,
        records: &[RecordHeader],
        volumes: &VolumeTable,
        marks: &mut Marks,
    ) -> Option<Batch> {
        if !self.has_room() {
            return None;
        }
        let mut payload_bytes = 0;
        let mut batch = Vec::new();
        let known = records
            .iter()
            .skip_while(|record| record.stamp <= self.sent);
        for (record, stamp) in known.zip(self.sent.0 + 1..) {
            assert!(
                record.stamp == Stamp(stamp),
                "the ring gives contiguous records"
            );
            payload_bytes += record.payload_bytes;
            let is_full = !batch.is_empty() && payload_bytes > BATCH_BYTES_GOAL;
            if is_full || batch.len() >= BATCH_RECORDS_MAX as usize || !volumes.covers(record) {
                break;
            }
            let mut record = *record;
            record.mark = marks.number(record.stamp, record.mark);
            batch.push(record);
        }
        self.sent = batch.last()?.stamp;
        let batch = Batch {
            session: self.session,
            records: batch,
        };
        self.in_flight_bytes += batch.bytes();
        self.in_flight_batches += 1;
        Some(batch)
    }

    /// A batch has arrived.
    pub(super) fn delivered(&mut self, bytes: u64) {
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        self.in_flight_batches = self.in_flight_batches.saturating_sub(1);
    }

    /// Whether another batch may go.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight_batches < IN_FLIGHT_BATCHES_MAX && self.in_flight_bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Where to look for settle states, and how many records far.
    pub(super) fn settling(&self) -> Option<(Stamp, usize)> {
        let ahead = usize::try_from(self.sent.records_since(self.scanned)).unwrap_or(usize::MAX);
        (ahead > 0).then_some((self.scanned, ahead.min(SETTLE_VOIDS_MAX)))
    }

    /// Takes a look at settle states; the mark to send, when the receiver does not have it yet.
    pub(super) fn settled(&mut self, upto: Stamp, voids: &[Stamp]) -> Option<SettleMark> {
        assert!(
            upto <= self.sent,
            "settle states are asked for up to the newest record sent"
        );
        self.scanned = self.scanned.max(upto);
        if upto <= self.marked {
            return None;
        }
        let after = self.marked;
        self.marked = upto;
        let voids = voids.iter().copied().filter(|void| *void > after);
        Some(SettleMark {
            after,
            upto,
            voids: voids.collect(),
        })
    }

    /// Takes an acknowledgement; what the tap should know, when that is new.
    pub(super) fn acknowledged(
        &mut self,
        wall: TimeMark,
        ack: &Ack,
    ) -> Result<Option<Progress>, Violation> {
        let before = self.acks.last;
        let beat = self.beat.map_or(TimeMark(0), |(beat, _)| beat.clock);
        let said = Said {
            sent: self.sent,
            settled: self.marked,
            beat,
        };
        self.acks.take(ack, said)?;
        if ack.echo > before.echo && ack.echo == beat {
            self.measure_offset(wall, ack.clock);
        }
        let is_news = (before.durable, before.settled, before.applied, before.echo)
            != (ack.durable, ack.settled, ack.applied, ack.echo)
            || before.recoverable != ack.recoverable;
        Ok(is_news.then_some(Progress {
            durable: ack.durable,
            settled: ack.settled,
            applied: ack.applied,
            recoverable: ack.recoverable,
            clock_offset_ns: self.clock_offset_ns,
        }))
    }

    /// The receiver's clock against the middle between sending and hearing back.
    fn measure_offset(&mut self, wall: TimeMark, theirs: TimeMark) {
        if let Some((_, sent_at)) = self.beat {
            let middle = (i128::from(sent_at.0) + i128::from(wall.0)) / 2;
            let offset = i128::from(theirs.0) - middle;
            let bounded = offset.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
            self.clock_offset_ns = bounded as i64;
        }
    }

    /// The heartbeat that is due, if one is.
    pub(super) fn beat(&mut self, now: Moment, marks: &mut Marks) -> Option<Heartbeat> {
        if now.elapsed < self.beat_due {
            return None;
        }
        self.beat_due = now.elapsed + BEAT_INTERVAL;
        let beat = match now.is_closed {
            // Writes may be missing from the stream by now: nothing can be promised.
            true => marks.last_beat(),
            false => marks.beat(now.wall, now.captured),
        };
        self.beat = Some((beat, now.wall));
        Some(beat)
    }

    /// Durable with its settle mark, and settled as far as the ring itself showed.
    pub(super) fn safe_to_free(&self) -> Stamp {
        let last = &self.acks.last;
        last.durable.min(last.settled).min(self.scanned)
    }

    /// Whether everything sent and settled is acknowledged.
    pub(super) fn is_drained(&self) -> bool {
        let last = &self.acks.last;
        last.durable >= self.sent && last.settled >= self.marked
    }

    /// Whether the receiver wishes for this copy for the first time in a while.
    pub(super) fn is_new_wish(&mut self, now: Duration, volume: Option<VolumeIndex>) -> bool {
        let last = self.wishes.get(&volume).copied();
        let is_new = last.is_none_or(|last| now.saturating_sub(last) >= WISH_INTERVAL);
        if is_new {
            self.wishes.insert(volume, now);
        }
        is_new
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    pub(super) fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard) >= SILENCE_MAX
    }

    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self, is_quiet: bool) -> Duration {
        let silent = self.heard + SILENCE_MAX;
        if is_quiet {
            silent
        } else {
            silent.min(self.beat_due)
        }
    }
}
