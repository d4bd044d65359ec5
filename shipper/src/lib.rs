//! The shipper: carries a ring's records to the receiver.

pub mod session;
