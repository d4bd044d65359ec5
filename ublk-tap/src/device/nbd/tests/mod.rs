//! The parts by themselves, then all of them over a real socket, disk and ring.

mod client;
mod collision;
mod intake;
mod ledger;
mod live;
mod negotiate;
mod requests;
mod stage;
mod storm;
