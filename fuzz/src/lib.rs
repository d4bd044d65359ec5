//! What a fuzzer calls: everything a peer, an operator or a disk can hand us.
//!
//! One function a target, each taking any bytes at all. It panics where a promise breaks: something was
//! read that is written differently, a bound was passed, a damaged journal gave what was never in it
//! (P9, P11, P14). Two things call them: `scripts/fuzz`, which builds them with libFuzzer, and the plain
//! test of this crate, which replays the corpus in the repository and bytes drawn at random.
//!
//! Not here, since their entries are private to their crates and held by property tests there: requests
//! over NBD, what lies in the ring, sequences of operations (the simulation).

mod files;
mod journal;
mod sockets;
mod wire_formats;

pub use files::settings;
pub use journal::{golden_edits, recovery};
pub use sockets::control_socket;
pub use wire_formats::{control_frame, join, journal_body, record_batch};

/// A target, as the fuzzer and the test find it.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: [(&str, Target); 7] = [
    ("control_frame", control_frame),
    ("control_socket", control_socket),
    ("join", join),
    ("journal_body", journal_body),
    ("record_batch", record_batch),
    ("recovery", recovery),
    ("settings", settings),
];
