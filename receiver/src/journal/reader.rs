//! Reader: gives apply the records back. Its own descriptors, through the page cache.
//!
//! Small records that lie close together are read with one call. The entry header proves that the
//! place is the right one of the right journal; the loader of apply verifies header and payload
//! against the shipper's checksum (P9).

use super::dir::name_of;
use crate::apply::{PayloadError, PayloadSource};
use crate::fold::RecordAt;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use wire::journal::{EntryHeader, EntryKind, JOURNAL_HEADER_BYTES, JournalId, Position};
use wire::{RECORD_HEADER_BYTES, RecordHeader};

/// Most segment files kept open.
const FILES_MAX: usize = 8;
/// Read at once, in bytes.
const WINDOW_BYTES: usize = 256 << 10;
const HEADERS_BYTES: usize = JOURNAL_HEADER_BYTES + RECORD_HEADER_BYTES;

/// Reads records of one journal.
pub struct Reader {
    dir: PathBuf,
    journal: JournalId,
    segment_bytes: u64,
    files: VecDeque<(u64, File)>,
    window: Window,
}

#[derive(Default)]
struct Window {
    segment: u64,
    offset: u64,
    bytes: Vec<u8>,
}

impl Reader {
    /// A reader of the journal in `dir`.
    pub fn new(dir: PathBuf, journal: JournalId, segment_bytes: u64) -> Self {
        let files = VecDeque::with_capacity(FILES_MAX);
        Self {
            dir,
            journal,
            segment_bytes,
            files,
            window: Window::default(),
        }
    }

    /// Forgets what was read ahead: the journal has grown since, over what was nothing then.
    pub fn refresh(&mut self) {
        self.window = Window::default();
    }

    fn read_record(&mut self, at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, Fault> {
        let start = at
            .offset_bytes
            .checked_sub(JOURNAL_HEADER_BYTES as u64)
            .ok_or_else(nothing)?;
        self.look_at(at.segment, start)?;
        let seen = self.window.from(at.segment, start).unwrap_or_default();
        let (entry, record) = seen
            .split_first_chunk::<JOURNAL_HEADER_BYTES>()
            .ok_or_else(nothing)?;
        let entry = EntryHeader::parse(entry).map_err(|_| nothing())?;
        let position = Position(at.segment * self.segment_bytes + start);
        let ours = entry.journal == self.journal && entry.position == position;
        if !ours || entry.kind != EntryKind::Record {
            return Err(nothing().into());
        }
        let header = RecordHeader::parse(record).map_err(Fault::Record)?;
        let (length, tail) = (
            header.payload_bytes as usize,
            &record[RECORD_HEADER_BYTES..],
        );
        payload.clear();
        payload.extend_from_slice(&tail[..length.min(tail.len())]);
        let held = payload.len();
        if held < length {
            payload.resize(length, 0);
            let from = at.offset_bytes + (RECORD_HEADER_BYTES + held) as u64;
            self.file(at.segment)?
                .read_exact_at(&mut payload[held..], from)?;
        }
        Ok(header)
    }

    /// Has the window hold both headers at `offset`.
    fn look_at(&mut self, segment: u64, offset: u64) -> io::Result<()> {
        let held = self.window.from(segment, offset);
        if held.is_some_and(|held| held.len() >= HEADERS_BYTES) {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.window.bytes);
        bytes.resize(WINDOW_BYTES, 0);
        let mut filled = 0;
        while filled < HEADERS_BYTES {
            let file = self.file(segment)?;
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        self.window = Window {
            segment,
            offset,
            bytes,
        };
        Ok(())
    }

    fn file(&mut self, segment: u64) -> io::Result<&File> {
        let known = self.files.iter().position(|(number, _)| *number == segment);
        if known.is_none() {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
            let file = options.open(self.dir.join(name_of(segment)))?;
            self.files.truncate(FILES_MAX - 1);
            self.files.push_front((segment, file));
        }
        let known = known.unwrap_or(0);
        self.files
            .get(known)
            .map(|(_, file)| file)
            .ok_or_else(nothing)
    }
}

impl Window {
    /// The bytes held from `offset` on.
    fn from(&self, segment: u64, offset: u64) -> Option<&[u8]> {
        let skip = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        if segment != self.segment {
            return None;
        }
        self.bytes.get(skip..)
    }
}

impl PayloadSource for Reader {
    fn read(&mut self, at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, PayloadError> {
        let read = self.read_record(at, payload);
        read.map_err(|fault| match fault {
            Fault::System(source) => PayloadError::Io { at, source },
            Fault::Record(reason) => PayloadError::Bad { at, reason },
        })
    }
}

enum Fault {
    System(io::Error),
    Record(wire::RecordError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

fn nothing() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "no record of this journal lies there",
    )
}
