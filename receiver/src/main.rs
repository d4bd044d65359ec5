//! `ublk-tap-receiver`: see [`receiver::cli`].

use receiver::{cli, daemon};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(daemon::run)
}
