//! `ublk-tap-receiver`: the command line.
//!
//! Each verb prints what it did in one line and ends with a documented exit code ([`Exit`]); an
//! error is one line on standard error with the cause and the next step. Verbs go to the running
//! daemon over its control socket, or work on the catalog directly while none runs.

mod args;
mod confirm;
mod export;
mod fsck;
mod init;
mod patch;
mod reach;
mod show;

pub use args::{Args, Verb};

use crate::catalog::Catalog;
use crate::config::{ByteSize, Settings};
use crate::control::{Request, Response, VolumeAdd};
use crate::failure::{Exit, Failure};
use crate::journal::{self, DirStore};
use crate::target::NewTarget;
use args::VolumeVerb;
use clap::Parser;
use reach::Reach;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// The daemon: serves until it is told to stop.
pub type Serve = fn(Settings, Arc<Catalog>) -> Result<(), Failure>;

/// Parses the command line, carries it out, and says how it ended.
pub fn main(serve: Serve) -> ExitCode {
    let args = Args::parse();
    match run(args, serve) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("ublk-tap-receiver: {}", failure.text);
            failure.exit.into()
        }
    }
}

fn run(args: Args, serve: Serve) -> Result<(), Failure> {
    let dir = std::path::absolute(&args.dir).map_err(|error| Failure::usage(error.to_string()))?;
    match args.verb {
        Verb::Init(init) => init::init(&dir, &init),
        Verb::Serve { new_journal } => run_serve(&dir, serve, new_journal),
        Verb::Token { source, expires } => {
            let request = Request::Token {
                source,
                expires_s: expires.0,
            };
            match ask(&dir, &request)? {
                Response::Token { token } => say(&token),
                other => Err(unexpected(&other)),
            }
        }
        Verb::Revoke { source } => match ask(
            &dir,
            &Request::Revoke {
                source: source.clone(),
            },
        )? {
            Response::Revoked { fresh: true } => say(&format!("revoked {source}")),
            Response::Revoked { fresh: false } => say(&format!("{source} was revoked already")),
            other => Err(unexpected(&other)),
        },
        Verb::Volume(verb) => volume(&dir, verb),
        Verb::Fsck { json } => fsck::fsck(&Settings::load(&dir)?, json),
        Verb::Detach {
            group,
            source,
            confirm,
        } => {
            confirm::detaching(&mut reach(&dir)?, (&group, &source), confirm.as_deref())?;
            let text = format!("detached {source}: the points of {group} go on without it");
            match ask(&dir, &Request::Detach { group, source })? {
                Response::Detached => say(&text),
                other => Err(unexpected(&other)),
            }
        }
        Verb::Points { group, json } => match ask(
            &dir,
            &Request::Points {
                group: group.clone(),
            },
        )? {
            Response::Points { runs } => say(&show::points(&group, &runs, json)?),
            other => Err(unexpected(&other)),
        },
        Verb::Status { json, watch } => show::status(|| reach(&dir), json, watch),
    }
}

fn run_serve(dir: &Path, serve: Serve, new_journal: bool) -> Result<(), Failure> {
    let settings = Settings::load(dir)?;
    start_log();
    let catalog = reach::open_alone(&settings)?;
    if new_journal {
        give_up_journal(&settings, &catalog)?;
    }
    serve(settings, Arc::new(catalog))
}

/// The operator says that the journal is lost. One that is there is never given up: the word may
/// have been left in a unit file.
fn give_up_journal(settings: &Settings, catalog: &Catalog) -> Result<(), Failure> {
    let dir = &settings.journal_dir;
    let store = DirStore::open(dir)?;
    if journal::is_there(&store, dir)? {
        return Err(Failure::refused(format!(
            "there is a journal in {}, nothing is lost: run `ublk-tap-receiver serve` without \
             --new-journal",
            dir.display()
        )));
    }
    catalog.release_journal()?;
    tracing::warn!(dir = %dir.display(), "the journal is given up, a new one is begun");
    Ok(())
}

fn volume(dir: &Path, verb: VolumeVerb) -> Result<(), Failure> {
    match verb {
        VolumeVerb::Add {
            volume,
            source,
            size,
            sector,
            targets,
            layout,
        } => {
            let targets: Result<Vec<_>, _> = targets.iter().map(|t| new_target(t)).collect();
            let targets = targets?;
            let (size_bytes, sector_bytes) = (size.0, sector);
            let add = VolumeAdd {
                volume,
                source,
                size_bytes,
                sector_bytes,
                layout,
                targets,
            };
            match ask(dir, &Request::VolumeAdd(add))? {
                Response::Added(info) => say(&show::added(&info)),
                other => Err(unexpected(&other)),
            }
        }
        VolumeVerb::List { json } => match ask(dir, &Request::VolumeList)? {
            Response::Volumes { volumes } => say(&show::volumes(&volumes, json)?),
            other => Err(unexpected(&other)),
        },
        VolumeVerb::Remove { volume, confirm } => {
            confirm::removal(&mut reach(dir)?, &volume, confirm.as_deref())?;
            match ask(dir, &Request::VolumeRemove { volume })? {
                Response::Removed(info) => say(&show::removed(&info)),
                other => Err(unexpected(&other)),
            }
        }
        VolumeVerb::Export { volume, file, at } => {
            export::export(&mut reach(dir)?, &volume, &file, at)
        }
    }
}

/// A target as it was named: PATH, or PATH=SIZE where there is no such file.
fn new_target(named: &Path) -> Result<NewTarget, Failure> {
    let text = named.to_str().unwrap_or_default();
    let sized = text.rsplit_once('=').filter(|_| !named.exists());
    let sized = sized.and_then(|(path, size)| Some((Path::new(path), size.parse().ok()?)));
    let (path, size): (&Path, Option<ByteSize>) = match sized {
        Some((path, size)) => (path, Some(size)),
        None => (named, None),
    };
    let path = std::path::absolute(path).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(NewTarget {
        path,
        size_bytes: size.map(|size| size.0),
    })
}

fn reach(dir: &Path) -> Result<Reach, Failure> {
    Reach::new(Settings::load(dir)?)
}

fn ask(dir: &Path, request: &Request) -> Result<Response, Failure> {
    reach(dir)?.ask(request)
}

fn unexpected(response: &Response) -> Failure {
    Failure::failed(format!(
        "the receiver gave another answer than asked for: {response:?}"
    ))
}

/// Prints a text as lines. A reader that has gone away is no failure.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// The daemon's log goes to standard error; `RUST_LOG` sets how much of it.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if let Err(error) = log.try_init() {
        eprintln!("ublk-tap-receiver: the log is set up already: {error}");
    }
}

#[cfg(test)]
mod tests;
