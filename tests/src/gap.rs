//! How long an application waits at most: direct writers that time every completion.

use crate::content::Bytes;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

/// Bytes of a write, and what memory and place of it are aligned to.
const BLOCK_BYTES: usize = 4096;

/// Writers at work on one device, one block at a time each.
#[derive(Debug)]
pub struct Writers {
    stops: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

/// What writers have seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Writes that completed well.
    pub writes: u64,
    /// Writes that failed.
    pub errors: u64,
    /// Longest time from one good completion of a writer to its next.
    pub longest: Duration,
}

impl Writers {
    /// `count` writers, each at random places of the first `span_bytes` of `device`.
    pub fn start(device: &Path, count: u64, span_bytes: u64) -> Self {
        let stops = Arc::new(AtomicBool::new(false));
        let one = |seed| {
            let (file, stops) = (open(device), Arc::clone(&stops));
            spawn(move || write(&file, seed, span_bytes, &stops))
        };
        let threads = (0..count).map(one).collect();
        Self { stops, threads }
    }

    /// Ends them all; the worst any of them has seen.
    pub fn end(self) -> Seen {
        self.stops.store(true, Ordering::Release);
        let seen = self.threads.into_iter().map(|thread| {
            let seen = thread.join();
            seen.unwrap_or_else(|_| panic!("a writer failed"))
        });
        seen.fold(Seen::default(), |all, one| Seen {
            writes: all.writes + one.writes,
            errors: all.errors + one.errors,
            longest: all.longest.max(one.longest),
        })
    }
}

fn open(device: &Path) -> File {
    let mut options = OpenOptions::new();
    let options = options.write(true).custom_flags(libc::O_DIRECT);
    options
        .open(device)
        .unwrap_or_else(|error| panic!("{}: {error}", device.display()))
}

fn write(file: &File, seed: u64, span_bytes: u64, stops: &AtomicBool) -> Seen {
    let mut bytes = Bytes::new(seed);
    let mut memory = vec![0; 2 * BLOCK_BYTES];
    let skip = memory.as_ptr().align_offset(BLOCK_BYTES);
    let block = &mut memory[skip..skip + BLOCK_BYTES];
    let mut seen = Seen::default();
    let mut last = Instant::now();
    while !stops.load(Ordering::Acquire) {
        bytes.fill(&mut block[..16]);
        let at = bytes.below(span_bytes / BLOCK_BYTES as u64) * BLOCK_BYTES as u64;
        if file.write_all_at(block, at).is_err() {
            seen.errors += 1;
            continue;
        }
        let now = Instant::now();
        seen.writes += 1;
        seen.longest = seen.longest.max(now - last);
        last = now;
    }
    seen
}
