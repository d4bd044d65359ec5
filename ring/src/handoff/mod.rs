//! How the shipper gets the ring, and what both tell each other afterwards.
//!
//! A Unix socket of the packet kind: one message, one packet, at most [`MESSAGE_BYTES_MAX`] bytes
//! of JSON. The tap speaks first: a [`Welcome`] with the ring's three descriptors. Both sides check
//! every value they read; texts from the shipper are cut and freed of control characters here, so
//! they may be shown and logged as they are. All sockets are non-blocking.

mod channel;
mod message;
mod peer;
pub mod user;

pub use channel::{Channel, ChannelError, Listener, MESSAGE_BYTES_MAX};
pub use message::{
    CopyWanted, GenerationReport, LinkReport, LinkState, Progress, ToShipper, ToTap, Volumes,
    Welcome,
};
pub use peer::PeerCredentials;

use std::os::fd::OwnedFd;

/// What a shipper needs to open a ring.
#[derive(Debug)]
pub struct ConsumerFds {
    /// The ring, opened read-only.
    pub ring: OwnedFd,
    /// The consumer page.
    pub page: OwnedFd,
    /// The read end of the wake pipe.
    pub wake: OwnedFd,
}

#[cfg(test)]
mod tests;
