//! `ublk-tap`: see [`ublk_tap::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ublk_tap::cli::main()
}
