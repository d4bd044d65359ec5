//! The receiver of ublk-tap, as a library for its binary and its tests.
//!
//! Table of contents: [`fold`] says what a run of records leaves behind, [`apply`] writes that to
//! the disks [`target`] opens, [`catalog`] remembers what is not in the journal, [`config`],
//! [`control`] and [`cli`] are the operator's side.

pub mod apply;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod fold;
pub mod intake;
pub mod journal;
pub mod points;
pub mod serve;
pub mod session;
pub mod target;

mod aligned;
mod secret;
