//! What a segment begins and ends with: the checkpoint, and the index of its entries.

use super::FREED_RESERVE_BYTES;
use super::entry::{Body, Entry};
use super::error::JournalError;
use super::index::SegmentIndex;
use super::store::Store;
use super::writer::Writer;
use crate::fold::RecordAt;
use std::collections::VecDeque;
use std::io;
use wire::journal::{LiveSegment, StreamNumber};

/// What the writer itself has to say, or repeats.
enum Item {
    /// About the journal.
    Own(Body),
    /// About a stream.
    Of(Entry),
}

impl Item {
    fn stream(&self) -> StreamNumber {
        match self {
            Self::Own(_) => StreamNumber::default(),
            Self::Of(entry) => entry.stream(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Own(body) => wire::journal::entry_bytes(body.len()),
            Self::Of(entry) => entry.bytes(),
        }
    }

    /// What it takes in the index of its segment, at most.
    fn index_bytes(&self) -> usize {
        match self {
            Self::Own(_) => 0,
            Self::Of(entry) => entry.index_bytes(),
        }
    }

    fn body(&self) -> Body {
        match self {
            Self::Own(body) => body.clone(),
            Self::Of(entry) => entry.body(),
        }
    }
}

impl<S: Store> Writer<S> {
    /// Writes the index of the current segment, to which nothing is added from here on.
    pub(super) fn seal(&mut self) -> Result<(), JournalError> {
        let bytes = self.index.bytes_with(0);
        let begin = self.current.offset;
        let Some(parts) = self.index.finish(self.next_group) else {
            return Ok(());
        };
        // A crash between an index and its next segment leaves less room than was kept for it.
        if begin + bytes > self.segment_bytes {
            return Ok(());
        }
        let parts = parts.into_iter().map(|part| Item::Own(Body::index(part)));
        self.write_items(parts.collect(), 0)?;
        self.ledger.note_index(self.current.segment, begin);
        Ok(())
    }

    /// Begins the current segment: what is in use, who lives.
    pub(super) fn checkpoint(&mut self) -> Result<(), JournalError> {
        let live = LiveSegment::list_to_bytes(&self.ledger.live());
        self.ledger
            .begin_segment(self.current.segment, self.next_group);
        self.index = SegmentIndex::new(self.next_group);
        let mut items = VecDeque::from([Item::Own(Body::live(live))]);
        for (stream, open, close) in self.ledger.streams() {
            items.push_back(Item::Of(Entry::Open(stream, open.clone())));
            items.extend(close.map(|close| Item::Of(Entry::Close(stream, close))));
        }
        self.write_items(items, FREED_RESERVE_BYTES)
    }

    /// Says what a checkpoint of several groups could not say before it was cut: until it is whole,
    /// the segments before it hold who lives, and nothing may be freed.
    pub(super) fn complete_checkpoint(&mut self) -> Result<(), JournalError> {
        let mut items = VecDeque::new();
        for rest in self.ledger.unrepeated(self.current.segment) {
            let stream = rest.stream;
            let open = rest.open.map(|open| Entry::Open(stream, open));
            let close = rest.close.map(|close| Entry::Close(stream, close));
            items.extend(open.into_iter().chain(close).map(Item::Of));
        }
        self.write_items(items, FREED_RESERVE_BYTES)
    }

    /// Writes the items in as many groups as they take; `kept` bytes of the segment stay free.
    fn write_items(&mut self, mut items: VecDeque<Item>, kept: u64) -> Result<(), JournalError> {
        while !items.is_empty() {
            self.begin_group();
            let mut placed = Vec::new();
            while let Some(item) = items.front() {
                let index_bytes = item.index_bytes();
                if !self.joins_keeping(item.bytes(), index_bytes, kept) {
                    break;
                }
                self.index_pending_bytes += index_bytes;
                let offset = self.buffer.push(item.stream(), &item.body());
                placed.extend(items.pop_front().map(|item| (offset, item)));
            }
            if placed.is_empty() && self.index.bytes_with(0) > 0 {
                self.index.give_up();
                continue;
            }
            if placed.is_empty() {
                let small = io::Error::other("its segments are too small for so many streams");
                return Err(self.fail("begin a segment", small));
            }
            let (segment, group_at) = (self.current.segment, self.current.offset);
            self.write_group()?;
            for (offset, item) in placed {
                let offset_bytes = group_at + offset;
                if let Item::Of(entry) = item {
                    let at = RecordAt {
                        segment,
                        offset_bytes,
                    };
                    let (stream, durable) = entry.durable(at);
                    self.index.add(stream, offset_bytes, &durable);
                }
            }
        }
        Ok(())
    }
}
