//! Walking the groups of one segment.

use super::group::{self, GroupContent};
use super::readable::Unreadable;
use crate::aligned::AlignedBuffer;
use crate::journal::store::SegmentFile;
use std::io;
use wire::journal::{
    GROUP_ALIGN_BYTES, GROUP_BYTES_MAX, GroupHeader, JOURNAL_HEADER_BYTES, JournalId, Position,
    SEGMENT_HEADER_BYTES,
};

/// Which segment is walked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) journal: JournalId,
    pub(super) segment: u64,
    pub(super) segment_bytes: u64,
}

/// The next thing in a segment.
pub(super) enum Step {
    /// A group whose header is sound.
    Group {
        header: GroupHeader,
        offset: u64,
        content: GroupContent,
        /// Some of it cannot be read.
        unreadable: bool,
    },
    /// No group header here, but there is one further on.
    Hole { offset: u64, unreadable: bool },
    /// No group header from here to the end of the segment.
    End { offset: u64, unreadable: bool },
}

/// A walk over one segment.
pub(super) struct Walk<'a, F> {
    file: &'a F,
    place: Place,
    offset: u64,
    buffer: AlignedBuffer,
    /// What the buffer holds: from where, and how much.
    held: (u64, usize),
    unreadable: Unreadable,
}

impl<'a, F: SegmentFile> Walk<'a, F> {
    pub(super) fn new(file: &'a F, place: Place) -> Self {
        Self::from(file, place, SEGMENT_HEADER_BYTES)
    }

    /// A walk that begins at `offset`.
    pub(super) fn from(file: &'a F, place: Place, offset: u64) -> Self {
        let rest = place.segment_bytes.saturating_sub(offset);
        let bytes = rest.clamp(GROUP_ALIGN_BYTES as u64, u64::from(GROUP_BYTES_MAX));
        let buffer = AlignedBuffer::new(bytes as usize);
        Self {
            file,
            place,
            offset,
            buffer,
            held: (0, 0),
            unreadable: Unreadable::default(),
        }
    }

    /// The segment that is walked.
    pub(super) fn segment(&self) -> u64 {
        self.place.segment
    }

    pub(super) fn next(&mut self) -> io::Result<Step> {
        let offset = self.offset;
        if let Some(header) = self.header_at(offset)? {
            let place = self.place;
            let bytes = self.look_at(offset, header.bytes as usize)?;
            let content = group::read(&header, place.segment, offset, bytes);
            let length = u64::from(header.bytes);
            self.offset += length;
            return Ok(Step::Group {
                header,
                offset,
                content,
                unreadable: self.unreadable.touches(offset, length),
            });
        }
        let unreadable = self.unreadable.touches(offset, GROUP_ALIGN_BYTES as u64);
        match self.search_from(offset + GROUP_ALIGN_BYTES as u64)? {
            Some(found) => {
                assert!(found > offset, "a search goes forward");
                self.offset = found;
                Ok(Step::Hole { offset, unreadable })
            }
            None => Ok(Step::End { offset, unreadable }),
        }
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Option<GroupHeader>> {
        if offset + GROUP_ALIGN_BYTES as u64 > self.place.segment_bytes {
            return Ok(None);
        }
        let place = self.place;
        let page = self.look_at(offset, GROUP_ALIGN_BYTES)?;
        Ok(place.group_header(page, offset))
    }

    /// The `length` bytes at `offset`; reads ahead as far as the buffer goes.
    fn look_at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        assert!(
            length <= self.buffer.len(),
            "a group is larger than it may be"
        );
        let (from, held) = self.held;
        let inside = offset >= from && offset + length as u64 <= from + held as u64;
        if !inside {
            let rest = self.place.segment_bytes.saturating_sub(offset);
            let ahead = rest.min(self.buffer.len() as u64) as usize;
            self.held = (0, 0);
            let buffer = &mut self.buffer.as_mut()[..ahead];
            self.unreadable.read(self.file, offset, buffer)?;
            self.held = (offset, ahead);
        }
        let skip = (offset - self.held.0) as usize;
        Ok(&self.buffer.as_slice()[skip..skip + length])
    }

    /// The first offset from `offset` on at which a group header lies.
    fn search_from(&mut self, mut offset: u64) -> io::Result<Option<u64>> {
        while offset + GROUP_ALIGN_BYTES as u64 <= self.place.segment_bytes {
            if self.header_at(offset)?.is_some() {
                return Ok(Some(offset));
            }
            offset += GROUP_ALIGN_BYTES as u64;
        }
        Ok(None)
    }
}

impl Place {
    /// The group header at the start of `page`, if it is of this journal and this very place.
    fn group_header(&self, page: &[u8], offset: u64) -> Option<GroupHeader> {
        let header = GroupHeader::parse(page.first_chunk::<JOURNAL_HEADER_BYTES>()?).ok()?;
        let position = Position(self.segment * self.segment_bytes + offset);
        let fits = offset + u64::from(header.bytes) <= self.segment_bytes;
        (header.journal == self.journal && header.position == position && fits).then_some(header)
    }
}
