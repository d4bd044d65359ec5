//! End-to-end tests: the three real daemons on a real kernel, driven as an operator drives them.
//!
//! Everything here runs as root in the lab (`scripts/lab`), or on a host whose kernel has ublk. The
//! stories are in `lab/`; this library holds what they are told with: a [`Site`] of one protected
//! host and one receiver, [`disk`]s made by the kernel, and [`Run`], a command with a time limit
//! whose failure shows everything it printed. The oracle is always a byte comparison, never a word
//! of the product about itself.
//!
//! It does not know any crate's inside except the ring's hand-over, which two programs here play:
//! the sink of the bench and the hostile shipper.

pub mod consumer;
pub mod content;
pub mod demo;
pub mod disk;
pub mod filesystem;
pub mod gap;
pub mod kernel;
pub mod log_writes;
pub mod rublk;
pub mod run;
pub mod scsi;
pub mod site;
pub mod thin;

pub use run::Run;
pub use site::Site;
