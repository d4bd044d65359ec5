//! Deterministic simulation: tap, ring, shipper and receiver as they stand, in one thread, with
//! simulated time, disks, network, clocks and deaths.
//!
//! Table of contents: [`world`] is one run and all that takes part, [`disk`] what forgets, [`oracle`]
//! what judges, [`faults`] what a seed draws, [`planted`] bugs that must be found, [`probes`] states
//! that must be reached, [`trace`] what happened, [`runner`] many seeds.
//!
//! Promises: a seed at a commit is one run, event for event; nothing of the products is changed for
//! it but what they show. Played, as they are threads or sockets in the products: drivers of group
//! and session, the copier, the catalog, QUIC.

pub mod dice;
pub mod disk;
pub mod faults;
pub mod oracle;
pub mod planted;
pub mod probes;
pub mod runner;
pub mod trace;
pub mod world;
