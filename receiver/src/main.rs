//! `ublk-tap-receiver`.

/// Entry point.
fn main() {}
