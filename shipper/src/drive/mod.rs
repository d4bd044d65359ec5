//! Connects a session to the world: ring, tap and QUIC connection.
//!
//! One task of a current-thread runtime owns everything here; the connection's own tasks talk to it
//! through a bounded queue. It polls the ring about every millisecond while there is work and sleeps
//! on the ring's wake descriptor otherwise.

mod line;
mod ring_reader;
mod tap_end;
mod work;

pub use ring_reader::{RingBell, RingReader};
pub use tap_end::{TapEnd, TapError};
pub use work::{Ending, Work};

use std::time::Duration;

/// How often the ring is looked at while there is work.
pub const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How long nothing must have happened before the shipper sleeps until it is woken.
pub const SLEEP_AFTER: Duration = Duration::from_millis(50);
/// How long the rest of a ring is drained after its tap has gone.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(3);
