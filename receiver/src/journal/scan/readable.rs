//! Reading what the disk still gives back.
//!
//! A sector that cannot be read is damage of that sector, not of the journal: what lies around it
//! is read all the same, and it reads as zeroes, which no header and no checksum takes for data.
//! Errors that say nothing about the medium (no file, no permission) are errors.

use crate::journal::store::SegmentFile;
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use wire::journal::GROUP_ALIGN_BYTES;

/// What an unreadable medium, a bad checksum below, or a disk that is gone is called.
const MEDIUM: [Errno; 7] = [
    Errno::IO,
    Errno::NODATA,
    Errno::ILSEQ,
    Errno::REMOTEIO,
    Errno::TIMEDOUT,
    Errno::BADMSG,
    Errno::UCLEAN,
];
/// With so many unreadable places known, no others are looked for one by one: each may take the
/// disk seconds.
const PLACES_MAX: usize = 256;

/// Where a file cannot be read.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    places: Vec<Range<u64>>,
}

impl Unreadable {
    /// Whether any of `length` bytes from `offset` on cannot be read.
    pub(super) fn touches(&self, offset: u64, length: u64) -> bool {
        let end = offset + length;
        self.places
            .iter()
            .any(|place| place.start < end && offset < place.end)
    }

    /// Fills `buffer` from `offset`, with zeroes where nothing can be read.
    pub(super) fn read<F: SegmentFile>(
        &mut self,
        file: &F,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        match file.read_at(offset, buffer) {
            Err(error) if !is_medium(&error) => return Err(error),
            Ok(()) => return Ok(()),
            Err(_) => {}
        }
        if buffer.len() <= GROUP_ALIGN_BYTES || self.places.len() >= PLACES_MAX {
            buffer.fill(0);
            self.note(offset..offset + buffer.len() as u64);
            return Ok(());
        }
        let half = (buffer.len() / 2).next_multiple_of(GROUP_ALIGN_BYTES);
        let (first, second) = buffer.split_at_mut(half);
        self.read(file, offset, first)?;
        self.read(file, offset + half as u64, second)
    }

    fn note(&mut self, place: Range<u64>) {
        if self.touches(place.start, place.end - place.start) {
            return;
        }
        match self
            .places
            .iter_mut()
            .find(|known| known.end == place.start)
        {
            Some(before) => before.end = place.end,
            None => self.places.push(place),
        }
    }
}

fn is_medium(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    MEDIUM
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == code)
}
