//! Skeleton.

/// Entry point.
fn main() {}
