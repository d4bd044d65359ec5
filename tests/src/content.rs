//! Bytes: made from a seed, compared without mercy.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A small generator (splitmix64): the same seed gives the same bytes on every machine.
#[derive(Clone, Debug)]
pub struct Bytes(u64);

impl Bytes {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.word() % limit
    }

    /// Fills `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// `count` bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }
}

/// Overwrites the first `length_bytes` of `path` with bytes of `seed` and syncs them.
pub fn fill(path: &Path, length_bytes: u64, seed: u64) {
    let mut bytes = Bytes::new(seed);
    let mut file = writable(path);
    let mut left = length_bytes;
    while left > 0 {
        let chunk = bytes.take(left.min(1 << 20) as usize);
        file.write_all(&chunk)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        left -= chunk.len() as u64;
    }
    file.sync_all()
        .unwrap_or_else(|error| panic!("sync {}: {error}", path.display()));
}

/// Writes `bytes` at `offset` of `path` and syncs them.
pub fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = writable(path);
    file.write_all_at(bytes, offset)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.sync_all()
        .unwrap_or_else(|error| panic!("sync {}: {error}", path.display()));
}

/// Fails at the first byte in which two devices or files of the same size differ.
#[track_caller]
pub fn same(left: &Path, right: &Path) {
    drop_cache(left);
    drop_cache(right);
    let (mut a, mut b) = (readable(left), readable(right));
    let (mut one, mut two) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0u64;
    loop {
        let (n, m) = (read_full(&mut a, &mut one), read_full(&mut b, &mut two));
        if one[..n] != two[..m] {
            let skip = one[..n]
                .iter()
                .zip(&two[..m])
                .take_while(|(x, y)| x == y)
                .count();
            let (left, right) = (left.display(), right.display());
            let place = at + skip as u64;
            panic!(
                "{left} and {right} differ at byte {place} (sector {})",
                place / 512
            );
        }
        if n == 0 {
            return;
        }
        at += n as u64;
    }
}

/// All regular files below `root`, as relative paths, sorted.
pub fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    if let Ok(relative) = entry.path().strip_prefix(root) {
                        found.push(relative.to_path_buf());
                    }
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// A hash of a file's bytes, for comparing trees without keeping them.
pub fn digest(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.chunks(8).fold(bytes.len() as u64, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        Bytes::new(sum ^ u64::from_le_bytes(word)).word()
    })
}

fn writable(path: &Path) -> File {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn readable(path: &Path) -> File {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.seek(SeekFrom::Start(0))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) => panic!("read: {error}"),
        }
    }
    filled
}

/// Block devices written behind the page cache's back must be read from the medium.
fn drop_cache(path: &Path) {
    if let Ok(file) = File::open(path) {
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "differ at byte 700000")]
    fn one_different_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let mut bytes = Bytes::new(1).take(1 << 20);
        fs::write(&a, &bytes).unwrap();
        bytes[700_000] ^= 1;
        fs::write(&b, &bytes).unwrap();
        same(&a, &b);
    }

    #[test]
    #[should_panic(expected = "differ at byte 100")]
    fn a_shorter_file_differs_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, [0; 100]).unwrap();
        fs::write(&b, [0; 101]).unwrap();
        same(&a, &b);
    }
}
