//! Trace: what happened, as a hash always, and in words when asked for.

use xxhash_rust::xxh3::xxh3_64;

/// Lines kept for a violation.
const LINES_MAX: usize = 400;

/// What is done with words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Words {
    /// None are made: the fastest.
    #[default]
    None,
    /// The last ones are kept.
    Kept,
    /// The same, and all are printed as they come.
    Printed,
}

/// The trace of one run.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    lines: std::collections::VecDeque<String>,
    words: Words,
}

impl Trace {
    /// An empty one.
    pub fn new(words: Words) -> Self {
        Self {
            words,
            ..Self::default()
        }
    }

    /// An event at a time.
    pub fn event(&mut self, now_ns: u64, kind: u64) {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..16].copy_from_slice(&now_ns.to_le_bytes());
        bytes[16..].copy_from_slice(&kind.to_le_bytes());
        self.hash = xxh3_64(&bytes);
    }

    /// A line in words, if any are wanted.
    pub fn line(&mut self, now_ns: u64, words: impl FnOnce() -> String) {
        if self.words == Words::None {
            return;
        }
        let line = format!("{:>12.6} s  {}", now_ns as f64 / 1e9, words());
        if self.words == Words::Printed {
            println!("{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }

    /// Hash of all events.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let skip = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skip).cloned().collect()
    }
}
