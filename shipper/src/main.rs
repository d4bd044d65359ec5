//! `ublk-tap-shipper`: carries a group's writes to its receiver.

use clap::{Args, Parser, Subcommand};
use link::ConnectError;
use shipper::check::{self, CheckError, Question};
use shipper::confine::{self, ConfineError};
use shipper::join::{self, JoinError};
use shipper::run::{self, Options};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use wire::{Name, Token, VolumeIndex, VolumeSpec};

/// It failed.
const FAILED: u8 = 1;
/// It was called wrongly.
const USAGE: u8 = 2;
/// Refused: identity, token, volume, or the host has joined already or not yet.
const REFUSED: u8 = 3;
/// Nobody answers, or too late.
const UNREACHABLE: u8 = 4;
/// A privilege is missing.
const PRIVILEGE: u8 = 5;
/// No space.
const SPACE: u8 = 6;

/// Carries a group's writes to its receiver.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    /// Configuration directory.
    #[arg(
        long,
        env = "UBLK_TAP_CONFIG_DIR",
        default_value = "/etc/ublk-tap",
        global = true
    )]
    config_dir: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 called wrongly, 3 refused, \
    4 unreachable or timed out, 5 a privilege is missing, 6 no space.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the tap of a group until a signal comes; started by the tap itself.
    Run(RunArgs),
    /// Enrol this host with a token from `ublk-tap-receiver token`.
    Join(JoinArgs),
    /// Ask the receiver whether a volume would be accepted.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The group.
    #[arg(long)]
    group: Name,
    /// Run directory.
    #[arg(long, env = "UBLK_TAP_RUN_DIR", default_value = "/run/ublk-tap")]
    run_dir: PathBuf,
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// The token, one line that starts with ut1.
    token: String,
    /// Join anew although this host has joined; makes a new key.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The group.
    #[arg(long)]
    group: Name,
    /// The volume's name inside the group.
    #[arg(long)]
    volume: Name,
    /// Its size in bytes.
    #[arg(long)]
    size: u64,
    /// Its logical sector size in bytes.
    #[arg(long)]
    sector: u32,
    /// What identifies its disk.
    #[arg(long)]
    disk_identity: String,
    /// Seconds the receiver has to answer.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("UBLK_TAP_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    match prepare(&cli).and_then(|runtime| runtime.block_on(perform(cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            eprintln!("ublk-tap-shipper: {text}");
            ExitCode::from(code)
        }
    }
}

/// Whatever has the key and speaks to the network is confined first; `join` writes files.
fn prepare(cli: &Cli) -> Result<Runtime, (u8, String)> {
    if !matches!(cli.verb, Verb::Join(_)) {
        confine::confine(&cli.config_dir)
            .map_err(|error| (confine_code(&error), error.to_string()))?;
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| (FAILED, format!("cannot start: {error}")))
}

fn confine_code(error: &ConfineError) -> u8 {
    if error.is_not_joined() {
        REFUSED
    } else {
        PRIVILEGE
    }
}

async fn perform(cli: Cli) -> Result<(), (u8, String)> {
    match cli.verb {
        Verb::Run(args) => perform_run(cli.config_dir, args).await,
        Verb::Join(args) => perform_join(cli.config_dir, args).await,
        Verb::Check(args) => perform_check(cli.config_dir, args).await,
    }
}

async fn perform_run(config: PathBuf, args: RunArgs) -> Result<(), (u8, String)> {
    let stop = stop_signal().map_err(|error| (FAILED, format!("cannot watch signals: {error}")))?;
    let options = Options {
        config,
        run: args.run_dir,
        group: args.group,
    };
    run::run(&options, stop).await;
    Ok(())
}

async fn perform_join(config: PathBuf, args: JoinArgs) -> Result<(), (u8, String)> {
    let token: Token = args
        .token
        .parse()
        .map_err(|error: wire::TokenError| (USAGE, error.to_string()))?;
    match join::join(&config, &token, args.force).await {
        Ok(()) => {
            println!("joined {} as {}", token.address, token.source);
            Ok(())
        }
        Err(error) => Err((join_code(&error), error.to_string())),
    }
}

async fn perform_check(config: PathBuf, args: CheckArgs) -> Result<(), (u8, String)> {
    let volume = VolumeSpec {
        index: VolumeIndex(0),
        name: args.volume,
        size_bytes: args.size,
        sector_bytes: args.sector,
        identity: args.disk_identity,
    };
    if !volume.is_sound() || volume.identity.len() > wire::limits::IDENTITY_BYTES_MAX {
        let text = "size, sector size or identity are not those of a disk: \
            the size is a multiple of the sector size, which is 512 to 4096";
        return Err((USAGE, text.into()));
    }
    let question = Question {
        group: args.group.clone(),
        volume,
        patience: Duration::from_secs(args.timeout),
    };
    match check::check(&config, &question).await {
        Ok(address) => {
            let name = &question.volume.name;
            println!("{address} accepts {}/{name}", args.group);
            Ok(())
        }
        Err(error) => Err((check_code(&error), error.to_string())),
    }
}

fn check_code(error: &CheckError) -> u8 {
    match error {
        CheckError::NotJoined(_) | CheckError::Refused(_) | CheckError::Identity(_) => REFUSED,
        CheckError::Unreachable { .. } => UNREACHABLE,
    }
}

fn join_code(error: &JoinError) -> u8 {
    match (error, error.system_error().map(io::Error::kind)) {
        (_, Some(io::ErrorKind::PermissionDenied)) => PRIVILEGE,
        (_, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) => SPACE,
        (JoinError::Joined { .. } | JoinError::Refused(_), _) => REFUSED,
        (JoinError::Silent(_), _) => UNREACHABLE,
        (JoinError::Connect(error), _) => connect_code(error),
        _ => FAILED,
    }
}

fn connect_code(error: &ConnectError) -> u8 {
    match error {
        ConnectError::Endpoint(_) => FAILED,
        error if error.is_refusal() => REFUSED,
        _ => UNREACHABLE,
    }
}

/// Holds true once the process is asked to stop.
fn stop_signal() -> io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (asked, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.send_replace(true);
    });
    Ok(stop)
}
