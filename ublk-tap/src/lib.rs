//! The tap: wraps a disk as a ublk device and captures every change in its order.

pub mod device;
pub mod disk;
pub mod ranges;
