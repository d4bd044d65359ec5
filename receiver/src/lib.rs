//! The receiver of ublk-tap, as a library for its binary and its tests.
//!
//! Table of contents, the way of a record: [`session`] takes it from a source, [`intake`] verifies
//! its place in the stream, [`journal`] keeps it, [`points`] says where the stream is complete,
//! [`fold`] what a run of records leaves behind, [`apply`] writes that to the disks [`target`]
//! opens. [`serve`] has the threads around them and decides for each group, [`recovery`] what a start makes of what it finds, [`daemon`] is the process. [`catalog`] remembers
//! what is not in the journal, [`verifier`] looks at all of it without touching it; [`config`], [`control`] and [`cli`] are the operator's side, [`failure`] how it is told no.

pub mod apply;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod failure;
pub mod fold;
pub mod intake;
pub mod journal;
pub mod points;
pub mod recovery;
pub mod serve;
pub mod session;
pub mod target;
pub mod verifier;

mod aligned;
mod clock;
mod foreign;
mod secret;
