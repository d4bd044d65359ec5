//! The operator's socket: `RUN/GROUP/control.sock`, JSON lines, one request per connection.
//!
//! Root and the tap's own user may ask, as the kernel names them; anybody else is turned away.
//! Requests, connections and waits are bounded. The server only carries: it puts each request into
//! the group's inbox and sends back what the group answers.

mod client;
mod line;
mod message;
mod server;
mod status;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError};
pub use message::{
    AddRequest, Added, BarrierReached, BarrierRequest, RemoveRequest, Removed, Reply, Request,
    Settling, UpgradeRequest,
};
pub use server::{Asked, ReplyTo, Server};
pub use status::{GroupStatus, VolumeStatus, iso_8601};
