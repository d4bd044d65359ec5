//! Walking the groups of one segment.

use super::group::{self, GroupContent};
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
    },
    /// No group header here, but there is one further on.
    Hole { offset: u64 },
    /// No group header from here to the end of the segment.
    End { offset: u64 },
}

/// A walk over one segment.
pub(super) struct Walk<'a, F> {
    file: &'a F,
    place: Place,
    offset: u64,
    buffer: AlignedBuffer,
}

impl<'a, F: SegmentFile> Walk<'a, F> {
    pub(super) fn new(file: &'a F, place: Place) -> Self {
        let bytes = place.segment_bytes.min(u64::from(GROUP_BYTES_MAX));
        let buffer = AlignedBuffer::new(bytes as usize);
        Self {
            file,
            place,
            offset: SEGMENT_HEADER_BYTES,
            buffer,
        }
    }

    pub(super) fn next(&mut self) -> io::Result<Step> {
        let offset = self.offset;
        if let Some(header) = self.header_at(offset)? {
            let bytes = u64::from(header.bytes);
            let buffer = &mut self.buffer.as_mut()[..header.bytes as usize];
            self.file.read_at(offset, buffer)?;
            let content = group::read(&header, self.place.segment, offset, buffer);
            self.offset += bytes;
            return Ok(Step::Group {
                header,
                offset,
                content,
            });
        }
        match self.search_from(offset + GROUP_ALIGN_BYTES as u64)? {
            Some(found) => {
                assert!(found > offset, "a search goes forward");
                self.offset = found;
                Ok(Step::Hole { offset })
            }
            None => Ok(Step::End { offset }),
        }
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Option<GroupHeader>> {
        if offset + GROUP_ALIGN_BYTES as u64 > self.place.segment_bytes {
            return Ok(None);
        }
        let page = &mut self.buffer.as_mut()[..GROUP_ALIGN_BYTES];
        self.file.read_at(offset, page)?;
        Ok(self.place.group_header(page, offset))
    }

    /// The first offset from `offset` on at which a group header lies.
    fn search_from(&mut self, mut offset: u64) -> io::Result<Option<u64>> {
        while offset < self.place.segment_bytes {
            let left = self.place.segment_bytes - offset;
            let length = left.min(self.buffer.len() as u64) as usize;
            let chunk = &mut self.buffer.as_mut()[..length];
            self.file.read_at(offset, chunk)?;
            for page in chunk.chunks_exact(GROUP_ALIGN_BYTES) {
                if self.place.group_header(page, offset).is_some() {
                    return Ok(Some(offset));
                }
                offset += GROUP_ALIGN_BYTES as u64;
            }
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
