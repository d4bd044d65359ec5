//! The shipper: carries a ring's records to the receiver.
//!
//! An unprivileged process of its own. It has the ring read-only and one page to write; it owns the
//! network and nothing else, and gives up everything else when it starts: [`confine`]. What decides is [`session`], a state machine without I/O; everything
//! else here is thin: [`drive`] connects it to a ring, a tap and a QUIC connection; [`join`] and
//! [`check`] are the two short conversations an operator starts.
//!
//! Whatever comes out of this process changes nothing of what the host's applications read (P1).

pub mod check;
pub mod confine;
pub mod drive;
pub mod enrolment;
pub mod join;
pub mod run;
pub mod session;

pub use ring::handoff::user;
