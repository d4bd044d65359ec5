//! What a tap must know after everything else is gone: one small file per group.
//!
//! Owned by the group's tap while it lives. It holds the incarnation counter (written before a ring
//! uses it, P8), the generation, and per volume the disk it is bound to (P13) and whether it was
//! left clean (P5): with all its records durable at the receiver and the disk synced. A volume that
//! is live has no clean mark; so whatever ends a tap, its successor sees it.
//!
//! The file lies on no disk that is tapped. Its layout is in `docs/state.md`.

mod codec;
mod file;
mod model;
#[cfg(test)]
mod tests;

pub use file::{StateError, StateFile};
pub use model::{CleanMark, Registered, Rest, Service, State, Unclean, kept_path};
