//! The tap: wraps a disk as a ublk device and captures every change in its order.
//!
//! Table of contents: [`disk`] is what is wrapped, [`device`] what the application sees, [`ranges`]
//! the order of what overlaps. [`copier`] reads a disk into the stream. [`group`] decides and drives,
//! [`state`] remembers, [`settings`] says how, [`shipper`] is the tap's side of the link, [`daemon`]
//! the life of the process, [`control`] and [`cli`] the operator's side, [`failure`] how it is told no.

pub mod cli;
pub mod control;
pub mod copier;
pub mod daemon;
pub mod device;
pub mod disk;
pub mod failure;
pub mod group;
pub mod ranges;
pub mod settings;
pub mod shipper;
pub mod state;

mod clock;
