//! What the ring promises, seen from outside: through the public API and the shared memory only.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;
mod create;
mod hostile;
mod recover;
mod stream;
mod stress;
mod wake;
