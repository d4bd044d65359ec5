//! Real processes under attack: tap, shipper and receiver as they are installed, killed, stopped and
//! restarted at random while applications write and the network between them misbehaves.
//!
//! Table of contents: [`history`] is the oracle: what the disks may have held and when, and which images
//! are a moment of that; [`mutants`] damaged images it must refuse, [`planted`] faults that must be found;
//! [`plan`] what a seed draws; [`nbd`] a client, [`writer`] the applications; [`proxy`] the network; [`site`]
//! the daemons, [`command`] what is asked of them; [`checker`] exports points and has them judged; [`run`] one
//! run.
//!
//! Promises: the same seed draws the same faults at the same times. What real time and the kernel's
//! scheduler make of them is not repeated: a violation is told with the facts, not only its seed.
//! Stamped sectors and dice are those of the simulation. SIGKILL is no power cut: the page cache
//! survives. Two requests in flight never overlap here; tests of the NBD front end have that.

pub mod checker;
pub mod command;
pub mod history;
pub mod mutants;
pub mod nbd;
pub mod plan;
pub mod planted;
pub mod proxy;
pub mod run;
pub mod site;
pub mod writer;
