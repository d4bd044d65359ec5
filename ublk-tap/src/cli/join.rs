//! `ublk-tap join`: the shipper's business, under the operator's one command.

use super::args::JoinArgs;
use crate::failure::Failure;
use crate::settings::Dirs;
use crate::shipper::Program;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Becomes `ublk-tap-shipper join`, which enrols this host; returns only if that is not possible.
pub(super) fn join(dirs: &Dirs, args: &JoinArgs) -> Result<(), Failure> {
    let program = Program::find().map_err(|error| Failure::failed(error.to_string()))?;
    let mut command = Command::new(program.path());
    command.arg("join").arg(&args.token).envs(dirs.to_env());
    if args.force {
        command.arg("--force");
    }
    let what = format!("run {}", program.path().display());
    Err(Failure::of_io(&what, &command.exec()))
}
