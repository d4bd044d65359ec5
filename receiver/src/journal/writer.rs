//! Writer: appends groups, one at a time, each with one sync. Blocking; driven by one thread.
//!
//! Order of everything durable here:
//!
//! ```text
//! segment   file made, allocated -> header written -> file synced -> directory synced -> used
//! group     written behind the last whole group -> file synced -> called durable
//! sealing   index written behind the last group -> file synced -> the next one's checkpoint names it
//! freeing   base committed (by apply) -> `freed` entry durable -> file removed
//! ```
//!
//! A segment is made ready before it is needed: without one the journal is full, and says so while
//! the current segment still has room for what frees space. The last page of every segment is kept
//! for `freed` entries for the same reason.

use super::entry::{Body, Durable, Entry};
use super::error::JournalError;
use super::group::{GroupBuffer, GroupPlace};
use super::index::SegmentIndex;
use super::ledger::Ledger;
use super::scan::Recovered;
use super::segment::{Begun, Current, is_no_space, make_segment};
use super::store::{SegmentFile, Store};
use super::{FREED_RESERVE_BYTES, Limits};
use crate::fold::RecordAt;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use wire::Stamp;
use wire::journal::{
    GROUP_ALIGN_BYTES, GROUP_BYTES_MAX, JOURNAL_HEADER_BYTES, JournalId, Position,
    SEGMENT_HEADER_BYTES, Segments, StreamNumber,
};

/// Most segments one `freed` entry names; it fits the reserve.
const FREED_MAX: usize = 400;
// Group header, entry header, a count, the numbers.
const _: () = assert!(2 * JOURNAL_HEADER_BYTES + 2 + FREED_MAX * 8 <= GROUP_ALIGN_BYTES);

/// What one commit made durable, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The entries.
    pub entries: Vec<(StreamNumber, Durable)>,
    /// Nothing could be written: there is no room for the first entry.
    pub no_room: bool,
}

/// The writing end of a journal.
pub struct Writer<S: Store> {
    store: S,
    path: PathBuf,
    id: JournalId,
    pub(super) segment_bytes: u64,
    segments_max: u64,
    pub(super) current: Current<S::Segment>,
    spare: Option<(u64, S::Segment)>,
    pub(super) next_group: u64,
    pub(super) ledger: Ledger,
    pub(super) index: SegmentIndex,
    /// What the entries of the group being assembled take in it, at most.
    pub(super) index_pending_bytes: usize,
    pub(super) buffer: GroupBuffer,
    failed: Option<String>,
}

impl<S: Store> Writer<S> {
    /// Goes on where `recovered` ended; an empty journal begins with `new_id`.
    pub fn start(
        store: S,
        path: PathBuf,
        recovered: Recovered,
        limits: Limits,
        new_id: JournalId,
    ) -> Result<Self, JournalError> {
        let (id, segment_bytes) = recovered.kind.unwrap_or((new_id, limits.segment_bytes));
        let mut begun = Begun {
            store,
            id,
            segment_bytes,
        };
        let given_up = recovered.tail.is_some_and(|tail| tail.given_up);
        let opened = match recovered.tail {
            Some(tail) => begun.reopen(tail),
            None => begun.begin(),
        };
        let (current, next_group) = opened.map_err(|source| JournalError::Io {
            what: "open",
            path: path.clone(),
            source,
        })?;
        let mut writer = Self {
            store: begun.store,
            path,
            id,
            segment_bytes,
            segments_max: limits.segments_max(segment_bytes),
            current,
            spare: None,
            next_group,
            ledger: recovered.ledger,
            index: recovered.index,
            index_pending_bytes: 0,
            buffer: GroupBuffer::new(id),
            failed: None,
        };
        if given_up {
            writer.leave()?;
        } else if writer.current.offset == SEGMENT_HEADER_BYTES {
            // Begun, but cut before its first group was durable: it is begun again.
            writer.ledger.freed(&[writer.current.segment]);
            writer.checkpoint()?;
        } else {
            writer.complete_checkpoint()?;
        }
        writer.maintain()?;
        Ok(writer)
    }

    /// Makes as many of the first entries of `queue` durable as one group takes.
    pub fn commit(&mut self, queue: &mut VecDeque<Entry>) -> Result<Committed, JournalError> {
        self.check()?;
        let Some(first) = queue.front() else {
            return Ok(Committed::default());
        };
        let (bytes, index_bytes) = (first.bytes(), first.index_bytes());
        if !self.fits(bytes, index_bytes) {
            if !self.roll()? {
                return Ok(Committed {
                    no_room: true,
                    ..Committed::default()
                });
            }
            if !self.fits(bytes, index_bytes) {
                self.index.give_up();
            }
        }
        self.begin_group();
        let mut placed = Vec::new();
        while let Some(entry) = queue.front() {
            let index_bytes = entry.index_bytes();
            if !self.joins(entry.bytes(), index_bytes) {
                break;
            }
            self.index_pending_bytes += index_bytes;
            let offset = self.buffer.push(entry.stream(), &entry.body());
            placed.extend(queue.pop_front().map(|entry| (offset, entry)));
        }
        assert!(
            !placed.is_empty(),
            "an entry larger than a segment was let in"
        );
        let group_at = self.current.offset;
        self.write_group()?;
        let segment = self.current.segment;
        let entries = placed.into_iter().map(|(offset, entry)| {
            let offset_bytes = group_at + offset;
            let (stream, durable) = entry.durable(RecordAt {
                segment,
                offset_bytes,
            });
            self.index.add(stream, offset_bytes, &durable);
            self.ledger.note(segment, stream, &durable);
            (stream, durable)
        });
        Ok(Committed {
            entries: entries.collect(),
            no_room: false,
        })
    }

    /// Records of the stream up to `applied` are in the base.
    pub fn applied(&mut self, stream: StreamNumber, applied: Stamp) {
        self.ledger.applied(stream, applied);
    }

    /// Nothing of the stream is needed any more.
    pub fn retire(&mut self, stream: StreamNumber) {
        self.ledger.retire(stream);
    }

    /// Frees segments nothing is needed of, and makes the next segment ready if there is room.
    pub fn maintain(&mut self) -> Result<(), JournalError> {
        self.check()?;
        self.free()?;
        self.prepare()
    }

    /// No segment is ready beside the current one: take no more records until one is.
    pub fn is_full(&self) -> bool {
        self.spare.is_none()
    }

    /// With nearly all segments in use: the newest of those that should be free.
    pub fn wanted_back(&self) -> Option<u64> {
        let spared = self.segments_max / 8 + 1;
        if self.segments() + spared <= self.segments_max {
            return None;
        }
        let kept = self.segments_max.saturating_sub(2 * spared).max(1);
        let count = self.ledger.segments().saturating_sub(kept);
        self.ledger.oldest(usize::try_from(count).ok()?)
    }

    /// The journal's id.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// Size of its segments.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Number of its segments, the one made ready included.
    pub fn segments(&self) -> u64 {
        self.ledger.segments() + u64::from(self.spare.is_some())
    }

    /// Most segments it may have.
    pub fn segments_max(&self) -> u64 {
        self.segments_max
    }

    /// Ends writing; gives the store back.
    pub fn into_store(self) -> S {
        self.store
    }

    fn check(&self) -> Result<(), JournalError> {
        match &self.failed {
            Some(reason) => Err(JournalError::Failed(reason.clone())),
            None => Ok(()),
        }
    }

    /// The first error is final: what the system kept of it, nobody knows.
    pub(super) fn fail(&mut self, what: &'static str, source: io::Error) -> JournalError {
        let reason = format!("cannot {what} in {}: {source}", self.path.display());
        self.failed = Some(reason.clone());
        JournalError::Failed(reason)
    }

    /// Whether entries of `bytes` fit an empty group in the current segment, and the index behind.
    fn fits(&self, bytes: usize, index_bytes: usize) -> bool {
        let whole = wire::journal::group_bytes(bytes) as u64;
        self.has_room(whole, index_bytes, FREED_RESERVE_BYTES)
    }

    /// Whether an entry of `bytes` fits the group being assembled.
    fn joins(&self, bytes: usize, index_bytes: usize) -> bool {
        self.joins_keeping(bytes, index_bytes, FREED_RESERVE_BYTES)
    }

    pub(super) fn joins_keeping(&self, bytes: usize, index_bytes: usize, kept: u64) -> bool {
        let whole = self.buffer.bytes_with(bytes) as u64;
        let index_bytes = self.index_pending_bytes + index_bytes;
        whole <= u64::from(GROUP_BYTES_MAX) && self.has_room(whole, index_bytes, kept)
    }

    fn has_room(&self, group_bytes: u64, index_bytes: usize, kept: u64) -> bool {
        let behind = self.index.bytes_with(index_bytes) + kept;
        self.current.offset + group_bytes + behind <= self.segment_bytes
    }

    pub(super) fn begin_group(&mut self) {
        let position = Position(self.current.segment * self.segment_bytes + self.current.offset);
        self.buffer.begin(GroupPlace {
            journal: self.id,
            position,
            number: self.next_group,
        });
        self.index_pending_bytes = 0;
    }

    /// Writes and syncs the assembled group.
    pub(super) fn write_group(&mut self) -> Result<(), JournalError> {
        let group = self.buffer.seal();
        let bytes = group.len() as u64;
        assert!(
            self.current.offset + bytes <= self.segment_bytes,
            "a group ends in its segment"
        );
        let written = self.current.file.write_at(self.current.offset, group);
        if let Err(source) = written.and_then(|()| self.current.file.sync()) {
            return Err(self.fail("write a segment", source));
        }
        self.current.offset += bytes;
        self.next_group += 1;
        self.ledger
            .note_group(self.current.segment, self.next_group);
        Ok(())
    }

    /// Goes on in the next segment; false if none is ready.
    fn roll(&mut self) -> Result<bool, JournalError> {
        let Some((segment, file)) = self.spare.take() else {
            return Ok(false);
        };
        assert!(segment > self.current.segment, "segment numbers grow");
        self.seal()?;
        self.current = Current {
            segment,
            file,
            offset: SEGMENT_HEADER_BYTES,
        };
        self.checkpoint()?;
        Ok(true)
    }

    /// Goes on in a new segment, whatever the bound: what follows in this one cannot be read.
    fn leave(&mut self) -> Result<(), JournalError> {
        let segment = self.current.segment + 1;
        let made = make_segment(&mut self.store, self.id, segment, self.segment_bytes);
        let file = made.map_err(|source| self.fail("make a segment", source))?;
        self.current = Current {
            segment,
            file,
            offset: SEGMENT_HEADER_BYTES,
        };
        self.checkpoint()
    }

    fn free(&mut self) -> Result<(), JournalError> {
        loop {
            let mut free = self.ledger.freeable();
            free.truncate(FREED_MAX);
            let bytes = Segments(free.clone()).to_bytes();
            let body = Body::freed(bytes);
            let group = wire::journal::group_bytes(wire::journal::entry_bytes(body.len())) as u64;
            // Without room even in the reserve it waits for the next segment.
            if free.is_empty() || self.current.offset + group > self.segment_bytes {
                return Ok(());
            }
            if !self.has_room(group, 0, 0) {
                self.index.give_up();
            }
            self.begin_group();
            self.buffer.push(StreamNumber::default(), &body);
            self.write_group()?;
            self.ledger.freed(&free);
            for segment in free {
                if let Err(source) = self.store.remove(segment) {
                    return Err(self.fail("remove a segment", source));
                }
            }
        }
    }

    /// Makes the next segment ready, if the bound and the filesystem allow it.
    fn prepare(&mut self) -> Result<(), JournalError> {
        if self.spare.is_some() || self.ledger.segments() >= self.segments_max {
            return Ok(());
        }
        let segment = self.current.segment + 1;
        match make_segment(&mut self.store, self.id, segment, self.segment_bytes) {
            Ok(file) => self.spare = Some((segment, file)),
            Err(error) if is_no_space(&error) => {}
            Err(source) => return Err(self.fail("make a segment", source)),
        }
        Ok(())
    }
}
