//! What threads and processes share: the standard atomics, or those of a model checker.
//!
//! Built with `--cfg ring_loom` or `--cfg ring_shuttle` every access to a shared word
//! is a point where the checker may switch threads, and with loom may also show an older value.
//! Nothing else of the crate knows the difference but [`crate::mapping`], which keeps the words.

#[cfg(ring_loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
    sync::{Mutex, MutexGuard},
};
#[cfg(ring_shuttle)]
pub(crate) use shuttle::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
    sync::{Mutex, MutexGuard},
};
#[cfg(not(any(ring_loom, ring_shuttle)))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
    sync::{Mutex, MutexGuard},
};
