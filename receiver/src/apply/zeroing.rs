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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Zeroes the middle of a file of ones, starting with `way`; returns the way that worked.
    fn zeroed(dir: &Path, way: Zeroing) -> Zeroing {
        let path = dir.join("target");
        std::fs::write(&path, vec![1; 4 << 20]).unwrap();
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let way = Cell::new(way);
        tokio_uring::start(async {
            let file = File::from_std(file);
            let range = ByteRange::new(512, (3 << 20) + 512);
            zero(&file, &way, range).await.unwrap();
            file.close().await.unwrap();
        });
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 4 << 20, "the size stays");
        let hole = 512..(3 << 20) + 1024;
        assert!(bytes[hole.clone()].iter().all(|byte| *byte == 0));
        assert!(
            bytes[..hole.start]
                .iter()
                .chain(&bytes[hole.end..])
                .all(|byte| *byte == 1)
        );
        way.get()
    }

    #[test]
    fn every_way_of_zeroing_leaves_zeroes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for way in [Zeroing::Punch, Zeroing::Range, Zeroing::Write] {
            zeroed(dir.path(), way);
        }
    }

    #[test]
    fn a_way_the_target_lacks_is_given_up_for_the_next() {
        // tmpfs punches holes but has no ZERO_RANGE.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        assert_eq!(zeroed(dir.path(), Zeroing::Range), Zeroing::Write);
        assert_eq!(zeroed(dir.path(), Zeroing::Punch), Zeroing::Punch);
    }

    #[test]
    fn pieces_cover_a_range_exactly() {
        for (len_bytes, count) in [(1, 1), (10, 1), (11, 2), (30, 3)] {
            let range = ByteRange::new(5, len_bytes);
            let pieces: Vec<ByteRange> = pieces(range, 10).collect();
            assert_eq!(pieces.len(), count);
            let end = pieces.iter().fold(5, |end, piece| {
                assert_eq!(piece.offset_bytes, end);
                piece.end_bytes()
            });
            assert_eq!(end, range.end_bytes());
        }
    }
}
