//! Ledger: which segments are in use, for whom, and what every new segment repeats. Pure.
//!
//! A segment may go when nothing in it is needed: every entry has a stamp of its stream from which
//! on, once applied, it is not. Who a stream is, and whether it is closed, is repeated at the head
//! of every segment while the stream lives, so those entries hold no segment.

use super::entry::Durable;
use std::collections::BTreeMap;
use wire::Stamp;
use wire::journal::{LiveSegment, StreamClose, StreamNumber, StreamOpen};

/// The ledger of a journal.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    streams: BTreeMap<StreamNumber, Stream>,
    segments: BTreeMap<u64, Segment>,
    last_stream: StreamNumber,
}

#[derive(Debug)]
struct Stream {
    open: StreamOpen,
    close: Option<StreamClose>,
    applied: Stamp,
    /// Segments of the last entry that said so.
    opened_in: u64,
    closed_in: u64,
}

/// What is missing of a stream in a checkpoint.
#[derive(Debug)]
pub(super) struct Unrepeated {
    pub(super) stream: StreamNumber,
    pub(super) open: Option<StreamOpen>,
    pub(super) close: Option<StreamClose>,
}

#[derive(Debug, Default)]
struct Segment {
    groups_end: u64,
    /// Where its index begins; zero without one.
    index_offset: u32,
    needs: BTreeMap<StreamNumber, Stamp>,
    /// It holds more than what every segment begins with.
    written_on: bool,
}

impl Ledger {
    /// A segment is in use from here on.
    pub(super) fn begin_segment(&mut self, segment: u64, groups_end: u64) {
        let newest = self.newest();
        assert!(
            newest.is_none_or(|newest| newest < segment),
            "{segment} after {newest:?}"
        );
        self.segments.insert(
            segment,
            Segment {
                groups_end,
                ..Segment::default()
            },
        );
    }

    /// The last group of `segment` so far is the one before `groups_end`.
    pub(super) fn note_group(&mut self, segment: u64, groups_end: u64) {
        if let Some(held) = self.segments.get_mut(&segment) {
            held.groups_end = groups_end;
        }
    }

    /// The index of `segment` begins at `offset`.
    pub(super) fn note_index(&mut self, segment: u64, offset: u64) {
        let offset = u32::try_from(offset).unwrap_or(0);
        if let Some(held) = self.segments.get_mut(&segment) {
            held.index_offset = offset;
        }
    }

    /// An entry of `segment` is durable.
    pub(super) fn note(&mut self, segment: u64, stream: StreamNumber, durable: &Durable) {
        self.last_stream = self.last_stream.max(stream);
        match durable {
            Durable::Open(open) => self.open(segment, stream, open),
            Durable::Close(close) => {
                if let Some(known) = self.streams.get_mut(&stream) {
                    (known.close, known.closed_in) = (Some(*close), segment);
                }
            }
            _ => self.note_written_on(segment),
        }
        let until = durable.needed_until();
        let applied = self.streams.get(&stream).map(|known| known.applied);
        // Nobody will ever apply what belongs to a stream that is not open.
        if until > Stamp::ZERO
            && applied.is_some_and(|applied| until > applied)
            && let Some(held) = self.segments.get_mut(&segment)
        {
            let need = held.needs.entry(stream).or_default();
            *need = until.max(*need);
        }
    }

    /// The checkpoint `segment` begins with is whole: something follows it.
    pub(super) fn note_written_on(&mut self, segment: u64) {
        if let Some(held) = self.segments.get_mut(&segment) {
            held.written_on = true;
        }
    }

    fn open(&mut self, segment: u64, stream: StreamNumber, open: &StreamOpen) {
        match self.streams.get_mut(&stream) {
            Some(known) => (known.open, known.opened_in) = (open.clone(), segment),
            None => {
                let new = Stream {
                    open: open.clone(),
                    close: None,
                    applied: Stamp::ZERO,
                    opened_in: segment,
                    closed_in: 0,
                };
                self.streams.insert(stream, new);
            }
        }
    }

    /// Everything of the stream up to `applied` is in the base.
    pub(super) fn applied(&mut self, stream: StreamNumber, applied: Stamp) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.applied = known.applied.max(applied);
            let applied = known.applied;
            for segment in self.segments.values_mut() {
                if segment
                    .needs
                    .get(&stream)
                    .is_some_and(|need| *need <= applied)
                {
                    segment.needs.remove(&stream);
                }
            }
        }
    }

    /// Nothing of the stream is needed any more.
    pub(super) fn retire(&mut self, stream: StreamNumber) {
        self.streams.remove(&stream);
        for segment in self.segments.values_mut() {
            segment.needs.remove(&stream);
        }
    }

    /// The segments are no longer in use.
    pub(super) fn freed(&mut self, segments: &[u64]) {
        for segment in segments {
            self.segments.remove(segment);
        }
    }

    /// Segments nothing is needed of; never the newest.
    pub(super) fn freeable(&self) -> Vec<u64> {
        let newest = self.newest();
        let idle = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.needs.is_empty());
        idle.map(|(number, _)| *number)
            .filter(|number| Some(*number) != newest)
            .collect()
    }

    /// Segments in use.
    pub(super) fn live(&self) -> Vec<LiveSegment> {
        let live = self.segments.iter();
        live.map(|(&segment, held)| LiveSegment {
            segment,
            groups_end: held.groups_end,
            index_offset: held.index_offset,
        })
        .collect()
    }

    /// Streams that live, and whether they are closed.
    pub(super) fn streams(
        &self,
    ) -> impl Iterator<Item = (StreamNumber, &StreamOpen, Option<StreamClose>)> {
        self.streams
            .iter()
            .map(|(number, stream)| (*number, &stream.open, stream.close))
    }

    /// What a checkpoint that was cut still has to say in `segment`, as it was found at the start.
    ///
    /// Streams are repeated in the order of their numbers. One below the last that was repeated is
    /// retired, and must not come after a younger one of the same incarnation.
    pub(super) fn unrepeated(&self, segment: u64) -> Vec<Unrepeated> {
        let held = self.segments.get(&segment);
        if held.is_none_or(|held| held.written_on) {
            return Vec::new();
        }
        let repeated = |stream: &Stream| stream.opened_in == segment;
        let last = self.streams.iter().rfind(|(_, stream)| repeated(stream));
        let first = last.map_or(StreamNumber(0), |(number, _)| *number);
        let rest = self.streams.range(first..);
        let rest = rest.map(|(number, stream)| Unrepeated {
            stream: *number,
            open: (!repeated(stream)).then(|| stream.open.clone()),
            close: stream.close.filter(|_| stream.closed_in != segment),
        });
        rest.filter(|rest| rest.open.is_some() || rest.close.is_some())
            .collect()
    }

    /// The last of the `count` oldest segments in use.
    pub(super) fn oldest(&self, count: usize) -> Option<u64> {
        self.segments.keys().nth(count.checked_sub(1)?).copied()
    }

    /// How many segments are in use.
    pub(super) fn segments(&self) -> u64 {
        self.segments.len() as u64
    }

    /// A number above that of every stream seen in any segment that is still there.
    pub(super) fn next_stream(&self) -> StreamNumber {
        StreamNumber(self.last_stream.0 + 1)
    }

    fn newest(&self) -> Option<u64> {
        self.segments.last_key_value().map(|(number, _)| *number)
    }
}
