//! `ublk-tap-receiver`: see [`receiver::cli`].

use receiver::{cli, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(serve::run)
}
