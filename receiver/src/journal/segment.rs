//! Making a segment, and opening the one a journal goes on in.

use super::scan::Tail;
use super::store::{SegmentFile, Store};
use crate::aligned::AlignedBuffer;
use std::io;
use wire::journal::{JournalId, SEGMENT_HEADER_BYTES, SegmentHeader};

/// Number of the first segment and of the first group.
const FIRST: u64 = 1;

/// The segment that is written.
pub(super) struct Current<F> {
    pub(super) segment: u64,
    pub(super) file: F,
    pub(super) offset: u64,
}

/// A journal being opened.
pub(super) struct Begun<S> {
    pub(super) store: S,
    pub(super) id: JournalId,
    pub(super) segment_bytes: u64,
}

impl<S: Store> Begun<S> {
    /// Begins the first segment; gives the number of the next group too.
    pub(super) fn begin(&mut self) -> io::Result<(Current<S::Segment>, u64)> {
        let file = make_segment(&mut self.store, self.id, FIRST, self.segment_bytes)?;
        let current = Current {
            segment: FIRST,
            file,
            offset: SEGMENT_HEADER_BYTES,
        };
        Ok((current, FIRST))
    }

    /// Goes on behind `tail`.
    pub(super) fn reopen(&mut self, tail: Tail) -> io::Result<(Current<S::Segment>, u64)> {
        let mut file = self.store.open(tail.segment)?;
        if file.bytes()? != self.segment_bytes {
            file.allocate(self.segment_bytes)?;
        }
        // What was read is only durable for certain after a sync that did not fail.
        file.sync()?;
        self.store.sync()?;
        let current = Current {
            segment: tail.segment,
            file,
            offset: tail.offset,
        };
        Ok((current, tail.group.max(FIRST)))
    }
}

/// Makes a segment that outlives a crash, or leaves no file of it.
pub(super) fn make_segment<S: Store>(
    store: &mut S,
    journal: JournalId,
    segment: u64,
    bytes: u64,
) -> io::Result<S::Segment> {
    let mut file = store.create(segment, bytes)?;
    let begun = begin_segment(store, &mut file, journal, segment, bytes);
    if let Err(error) = begun {
        // The name must not stay: when there is room again the next try makes it anew.
        let _ = store.remove(segment);
        return Err(error);
    }
    Ok(file)
}

/// Has the file of a segment, and its name, outlive a crash.
fn begin_segment<S: Store>(
    store: &mut S,
    file: &mut S::Segment,
    journal: JournalId,
    segment: u64,
    bytes: u64,
) -> io::Result<()> {
    let mut page = AlignedBuffer::new(SEGMENT_HEADER_BYTES as usize);
    let header = SegmentHeader {
        journal,
        segment,
        bytes,
    }
    .to_bytes();
    page.as_mut()[..header.len()].copy_from_slice(&header);
    file.write_at(0, page.as_slice())?;
    file.sync()?;
    store.sync()
}

/// Whether there is no room for a segment now.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
