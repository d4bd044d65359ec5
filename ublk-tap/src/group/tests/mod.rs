//! Stories of a group: the core alone on virtual time, and the driver with devices that are no
//! devices, a real ring, real files and a shipper played by the test.

mod core;
mod driver;
mod ending;
mod faults;
mod recover;
mod upgrade;
mod world;
