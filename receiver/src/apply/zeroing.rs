//! Making a range of a target read as zeroes, by the cheapest way the target knows.
//!
//! Punching keeps files sparse and thin disks thin. Where the target cannot, the next way is
//! tried, and remembered; writing zeroes always works.

use crate::aligned::AlignedBuffer;
use crate::fold::ByteRange;
use rustix::io::Errno;
use std::cell::Cell;
use std::io;
use tokio_uring::fs::File;

/// Most bytes of one call: a disk that writes zeroes itself is not asked for hours of them.
const CALL_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of one write of zeroes.
const WRITE_BYTES_MAX: u64 = 1 << 20;

/// A way to zero a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Zeroing {
    /// Give the blocks back.
    #[default]
    Punch,
    /// Let the file system or disk write them.
    Range,
    /// Write zeroes.
    Write,
}

impl Zeroing {
    fn flags(self) -> Option<i32> {
        match self {
            Self::Punch => Some(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
            Self::Range => Some(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE),
            Self::Write => None,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Punch => Self::Range,
            Self::Range | Self::Write => Self::Write,
        }
    }
}

/// Makes `range` read as zeroes; `way` is what has worked so far.
pub(super) async fn zero(file: &File, way: &Cell<Zeroing>, range: ByteRange) -> io::Result<()> {
    for part in pieces(range, CALL_BYTES_MAX) {
        zero_part(file, way, part).await?;
    }
    Ok(())
}

async fn zero_part(file: &File, way: &Cell<Zeroing>, range: ByteRange) -> io::Result<()> {
    loop {
        let tried = way.get();
        let Some(flags) = tried.flags() else {
            return write_zeroes(file, range).await;
        };
        match file
            .fallocate(range.offset_bytes, range.len_bytes, flags)
            .await
        {
            Err(error) if is_unsupported(&error) => {
                tracing::info!(?tried, %error, "target cannot zero this way, trying the next");
                if way.get() == tried {
                    way.set(tried.next());
                }
            }
            done => return done,
        }
    }
}

async fn write_zeroes(file: &File, range: ByteRange) -> io::Result<()> {
    let zeroes = AlignedBuffer::new(range.len_bytes.min(WRITE_BYTES_MAX) as usize).freeze();
    for part in pieces(range, WRITE_BYTES_MAX) {
        let data = zeroes.slice(..part.len_bytes as usize);
        file.write_all_at(data, part.offset_bytes).await.0?;
    }
    Ok(())
}

fn is_unsupported(error: &io::Error) -> bool {
    let codes = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::NODEV, Errno::INVAL];
    error
        .raw_os_error()
        .is_some_and(|raw| codes.contains(&Errno::from_raw_os_error(raw)))
}

/// The range in pieces of at most `len_bytes_max`.
fn pieces(range: ByteRange, len_bytes_max: u64) -> impl Iterator<Item = ByteRange> {
    let count = range.len_bytes.div_ceil(len_bytes_max);
    (0..count).map(move |index| {
        let start = range.offset_bytes + index * len_bytes_max;
        ByteRange::between(start, range.end_bytes().min(start + len_bytes_max))
    })
}
