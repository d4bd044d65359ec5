//! `ublk-tap`: the command line.
//!
//! Each verb prints what it did and ends with a documented exit code ([`Exit`]); an error is one
//! line on standard error with the cause and the next step. Verbs about a live group go to its tap
//! over the control socket; nothing here touches a ring or a device.

mod add;
mod args;
mod barrier;
mod cleanup;
mod join;
mod list;
mod look;
mod name;
mod preflight;
mod recover;
mod remove;
mod show;
mod status;
mod upgrade;

pub use args::Args;

use crate::daemon;
use crate::failure::{Exit, Failure};
use crate::group::HostFronts;
use crate::settings::Dirs;
use args::{RunArgs, Verb};
use clap::Parser;
use clap::error::ErrorKind;
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Parses the command line, carries it out, and says how it ended.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return misused(&error),
    };
    match carry_out(args, &Dirs::from_env()) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("ublk-tap: {}", failure.text);
            failure.exit.into()
        }
    }
}

fn carry_out(args: Args, dirs: &Dirs) -> Result<(), Failure> {
    match args.verb {
        Verb::Join(join) => join::join(dirs, &join),
        Verb::Add(add) => add::add(dirs, &add),
        Verb::Run(run) => run_tap(dirs, run),
        Verb::Remove(remove) => remove::remove(dirs, &remove),
        Verb::List { json } => list::list(dirs, json),
        Verb::Status(status) => status::status(dirs, &status),
        Verb::Barrier(barrier) => barrier::barrier(dirs, &barrier),
        Verb::Recover { group } => recover::recover(dirs, group.as_ref()),
        Verb::Upgrade { group, force } => upgrade::upgrade(dirs, group.as_ref(), force),
        Verb::Name { device } => name::name(&device),
        Verb::Hold { device, shared } => crate::device::hold(&device, shared)
            .map_err(|error| Failure::of_io("talk to the tap", &error)),
        Verb::Cleanup { group } => cleanup::cleanup(dirs, group.as_ref()),
    }
}

fn run_tap(dirs: &Dirs, run: RunArgs) -> Result<(), Failure> {
    start_log();
    let on_demand = run.on_demand;
    let ended = daemon::run(&daemon::Options {
        dirs: dirs.clone(),
        group: run.group,
        ring_bytes: run.ring_size.map(|size| size.0),
        on_demand,
        upgraded: run.upgraded,
        fronts: Arc::new(HostFronts),
    });
    if let Err(failure) = &ended
        && on_demand
    {
        // Whoever started it reads why it ended; its log has the line too.
        daemon::tell_starter(&daemon::Said::Failed(failure.clone()));
    }
    ended
}

/// Help and version are answers; anything else is one line.
fn misused(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // A reader that has gone away is no failure.
        let _ = error.print();
        return Exit::Ok.into();
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprintln!("ublk-tap: a subcommand is missing; see `ublk-tap --help`");
        return Exit::Usage.into();
    }
    let text = error.to_string();
    let paragraph = text.lines().take_while(|line| !line.trim().is_empty());
    let line = paragraph.map(str::trim).collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    eprintln!("ublk-tap: {line}; see `ublk-tap --help`");
    Exit::Usage.into()
}

/// Prints a text as lines. A reader that has gone away is no failure.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::of_io("write the output", &error))
        }
        _ => Ok(()),
    }
}

fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))
}

fn to_pretty_json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))
}

/// The tap's log goes to standard error; `UBLK_TAP_LOG` sets how much of it.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("UBLK_TAP_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false);
    if let Err(error) = log.with_writer(std::io::stderr).try_init() {
        eprintln!("ublk-tap: the log is set up already: {error}");
    }
}
