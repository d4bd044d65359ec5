//! The tap's side of its shipper: the socket it connects to, and the process itself.
//!
//! The shipper owns the network and has no privilege: it is started as a user of its own, gets the
//! ring read-only and one page, and is started again whenever it ends. Nothing it says is believed
//! beyond what it says about the link; that it cannot harm the disk is the ring's business (P1).
//!
//! This module does not decide when a shipper is not to be trusted, and runs no network code.

mod account;
mod command;
mod port;
mod supervisor;
#[cfg(test)]
mod tests;

pub use account::Account;
pub use command::{Program, ProgramError};
pub use port::{Admission, Port, PortEvent};
pub use supervisor::Supervisor;
