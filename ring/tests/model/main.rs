//! The ring under model checkers: what native stress cannot force, every order is tried here.
//!
//! `scripts/model` builds and runs this; without a checker it is empty. Small rings, few records, and
//! the code of the products as it is: only where the words live differs (`ring/src/sync.rs`).

#![cfg(any(ring_loom, ring_shuttle))]

mod checker;
#[path = "../behaviour/common.rs"]
#[allow(dead_code)]
mod common;

mod closing;
mod reclaiming;
mod sleeping;
mod stream;
