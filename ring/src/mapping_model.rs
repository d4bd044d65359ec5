//! The mappings of a file as a model checker sees them: its own atomics instead of memory.
//!
//! In the place of `mapping.rs` when built for a checker (see [`crate::sync`]). Mappings of one file
//! share one memory while any of them lives. Only the groups of words that small rings use are there
//! from the start, each as long as a descriptor, for a checker pays for every one and wants it made
//! before the threads are; payload is plain memory, since a checker runs one thread at a time
//! and who may touch a payload when is what the words decide.

#![allow(unsafe_code)]

use crate::descriptor::DESCRIPTOR_WORDS;
use crate::layout::WORD_BYTES;
use crate::sync::AtomicU64;
use rustix::fs;
use std::array;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The memory of each file that is mapped, by device and inode.
static FILES: Mutex<BTreeMap<(u64, u64), Weak<Memory>>> = Mutex::new(BTreeMap::new());

/// Groups that are there from the start: header, page, cursors, and the descriptors of eight slots.
const GROUPS: [usize; 15] = [
    0, 1, 2, 4, 64, 66, 68, 128, 129, 130, 131, 132, 133, 134, 135,
];

type Group = Box<[AtomicU64; DESCRIPTOR_WORDS]>;

/// A shared mapping of the first bytes of a file.
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: Arc<Memory>,
    bytes: usize,
}

#[derive(Debug)]
struct Memory {
    groups: Mutex<BTreeMap<usize, Group>>,
    payload: Mutex<Vec<u64>>,
}

impl Memory {
    fn new(words: usize) -> Self {
        let there = |group: &usize| (group + 1) * DESCRIPTOR_WORDS <= words;
        let groups = GROUPS.into_iter().filter(there);
        Self {
            groups: Mutex::new(groups.map(|group| (group, new_group())).collect()),
            payload: Mutex::new(vec![0; words]),
        }
    }
}

fn new_group() -> Group {
    Box::new(array::from_fn(|_| AtomicU64::new(0)))
}

impl Mapping {
    pub(crate) fn writable(file: impl AsFd, bytes: u64) -> io::Result<Self> {
        let stat = fs::fstat(file)?;
        let mut files = lock(&FILES);
        files.retain(|_, memory| memory.strong_count() > 0);
        let key = (stat.st_dev, stat.st_ino);
        let found = files.get(&key).and_then(Weak::upgrade);
        let memory = found.unwrap_or_else(|| {
            let memory = Arc::new(Memory::new((bytes / WORD_BYTES) as usize));
            files.insert(key, Arc::downgrade(&memory));
            memory
        });
        let bytes = bytes as usize;
        Ok(Self { memory, bytes })
    }

    pub(crate) fn read_only(file: impl AsFd, bytes: u64) -> io::Result<Self> {
        Self::writable(file, bytes)
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        lock(&self.memory.payload).as_mut_ptr().cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn words(&self, first: usize, count: usize) -> &[AtomicU64] {
        assert!(first + count <= self.bytes / WORD_BYTES as usize);
        let (group, at) = (first / DESCRIPTOR_WORDS, first % DESCRIPTOR_WORDS);
        assert!(at + count <= DESCRIPTOR_WORDS);
        let mut groups = lock(&self.memory.groups);
        let group = groups.entry(group).or_insert_with(new_group);
        // SAFETY: a group is boxed and stays until the memory is dropped, which `self` keeps.
        unsafe { slice::from_raw_parts(group.as_ptr().add(at), count) }
    }

    /// Payload, read as the plain memory it is.
    pub(crate) fn copy_out(&self, first: usize, out: &mut [u64]) {
        out.copy_from_slice(&lock(&self.memory.payload)[first..first + out.len()]);
    }

    pub(crate) fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn gather(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Held for a look only: no thread is switched away from while it has one of these.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
