//! A volume served over NBD, as an operator and the clients he has meet it: the real tap, a disk that
//! is a file, the ring emptied by the test into a replica. Nothing here needs a kernel with ublk.

#![allow(clippy::unwrap_used)]

mod bench;
mod clients;
mod footprint;
mod host;
mod killed;
mod life;
mod resize;
mod returns;
mod sink;
mod state;
