//! The seam between the journal and the system: files of equal size in one directory.
//!
//! Small on purpose: the tests put a store here that keeps unsynced pages apart and forgets some
//! of them, and one that fails at the n-th call.

use std::io;

/// Where segments live. One writer, opened exclusively.
pub trait Store: Send {
    /// A segment file.
    type Segment: SegmentFile;

    /// Numbers of all segments there are, ascending.
    fn list(&self) -> io::Result<Vec<u64>>;

    /// Makes the file of a segment, `bytes` long, room allocated, all zeroes. Neither the file nor
    /// its name is durable yet.
    fn create(&mut self, segment: u64, bytes: u64) -> io::Result<Self::Segment>;

    /// Opens the file of a segment.
    fn open(&self, segment: u64) -> io::Result<Self::Segment>;

    /// Removes the file of a segment.
    fn remove(&mut self, segment: u64) -> io::Result<()>;

    /// Makes names made or removed so far durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// One segment file. Offsets, lengths and addresses are multiples of 4096.
pub trait SegmentFile: Send {
    /// Its length.
    fn bytes(&self) -> io::Result<u64>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buffer` from `offset`; what lies past the end of the file reads as zeroes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Makes all written so far durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes the file `bytes` long again, as [`Store::create`] left it.
    fn allocate(&mut self, bytes: u64) -> io::Result<()>;
}
