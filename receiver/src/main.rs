//! `ublk-tap-receiver`: see [`receiver::cli`].

use receiver::cli::{self, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(|_settings, _catalog| Err(Failure::failed("this build cannot serve yet")))
}
