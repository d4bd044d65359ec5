//! What of the disk below is allocated, for clients that leave out what is not.

use super::replies::Extent;
use crate::disk::Disk;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Most extents of one answer; a client asks again from where it ends.
const EXTENTS_MAX: usize = 512;

/// The extents of `length_bytes` from `offset_bytes`, or of a part of it; one at least.
///
/// What cannot be known is said to be allocated, which is always true enough. Holes of a file read
/// as zeroes; a block device does not say.
pub(super) fn extents(disk: &Disk, offset_bytes: u64, length_bytes: u32, one: bool) -> Vec<Extent> {
    let end = offset_bytes + u64::from(length_bytes);
    let most = if one { 1 } else { EXTENTS_MAX };
    let mut found = Vec::new();
    let mut at = offset_bytes;
    while at < end && found.len() < most {
        let (is_hole, next) = match disk.is_file() {
            true => extent(disk, at, end),
            false => (false, end),
        };
        found.push(Extent {
            length_bytes: (next - at) as u32,
            is_hole,
        });
        at = next;
    }
    found
}

/// Whether there is a hole at `at`, and where what is there ends; whole sectors.
fn extent(disk: &Disk, at: u64, end: u64) -> (bool, u64) {
    let sector = u64::from(disk.sector_bytes());
    match rustix::fs::seek(disk, SeekFrom::Data(at)) {
        // Behind the last data there is nothing but a hole.
        Err(Errno::NXIO) => (true, end),
        Err(_) => (false, end),
        // Data that begins inside a sector makes all of it data.
        Ok(data) if data - data % sector > at => (true, (data - data % sector).min(end)),
        Ok(_) => match rustix::fs::seek(disk, SeekFrom::Hole(at)) {
            Ok(hole) if hole > at => (false, hole.next_multiple_of(sector).min(end)),
            _ => (false, end),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    #[test]
    fn holes_of_a_file_are_found_and_every_byte_is_told_of_once() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        file.as_file().write_all_at(&[7; 8192], 65536).unwrap();
        let disk = Disk::open(file.path(), Duration::ZERO).unwrap();
        let told = |offset, length, one| -> Vec<(u32, bool)> {
            let found = extents(&disk, offset, length, one);
            found
                .iter()
                .map(|extent| (extent.length_bytes, extent.is_hole))
                .collect()
        };
        let whole = [(65536, true), (8192, false), ((1 << 20) - 73728, true)];
        assert_eq!(told(0, 1 << 20, false), whole);
        assert_eq!(told(0, 1 << 20, true), whole[..1]);
        assert_eq!(told(66048, 512, false), [(512, false)]);
        assert_eq!(told(1 << 19, 4096, true), [(4096, true)]);
    }

    #[test]
    fn an_answer_has_so_many_extents_and_no_more() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        for at in (0..16_u64 << 20).step_by(8192) {
            file.as_file().write_all_at(&[7], at).unwrap();
        }
        let disk = Disk::open(file.path(), Duration::ZERO).unwrap();
        assert_eq!(extents(&disk, 0, 16 << 20, false).len(), EXTENTS_MAX);
    }
}
