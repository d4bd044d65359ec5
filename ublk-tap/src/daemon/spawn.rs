//! Starting a tap in the background, hearing why it did not start, and putting another in our place.

use super::{Options, clear_run_dir, left, live_pid};
use crate::control::{Client, ClientError};
use crate::failure::Failure;
use crate::group::Become;
use crate::settings::Dirs;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::Name;

/// A tap that answers, and was started for it unless somebody else was faster.
#[derive(Debug)]
pub struct Spawned {
    child: Option<Child>,
}

/// What a tap tells whoever started it, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// What it waits for.
    Waits(String),
    /// Why it ends.
    Failed(Failure),
}

/// Most a tap may say to its starter.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// How long one that could not be used may take to end.
const END_PATIENCE: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Starts the tap of a group in the background and waits until it answers, at most `patience`.
///
/// It logs to `RUN/GROUP/tap.log`. If it ends instead, its failure is ours.
pub fn spawn(
    dirs: &Dirs,
    group: &Name,
    ring_bytes: Option<u64>,
    patience: Duration,
) -> Result<Spawned, Failure> {
    await_end(dirs, group);
    let started = start(dirs, group, ring_bytes);
    let mut child =
        started.map_err(|error| Failure::of_io("start the tap in the background", &error))?;
    let mut listener = child.stdout.take().map(listen);
    let deadline = Instant::now() + patience;
    let mut failure = None;
    loop {
        match Client::connect(&dirs.control_socket(group)) {
            Ok(_) => {
                let child = failure.is_none().then_some(child);
                return Ok(Spawned { child });
            }
            Err(ClientError::NotRunning) => {}
            Err(error) => return Err(Failure::failed(error.to_string())),
        }
        if failure.is_none() && matches!(child.try_wait(), Ok(Some(_))) {
            failure = Some(why(listener.take()));
        }
        // Another one that has the lock may be ours to use in a moment.
        if let Some(failure) = &failure
            && live_pid(dirs, group).is_none()
        {
            // What a killed tap has left is what its devices can be recovered with.
            if left::refuse(dirs, group).is_ok() {
                clear_run_dir(dirs, group);
            }
            return Err(failure.clone());
        }
        if Instant::now() >= deadline {
            let log = dirs.tap_log(group);
            let text = format!("the tap does not answer; see {}", log.display());
            return Err(Failure::late(text));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Waits for a tap that is just ending, which no longer listens but still has its lock.
pub fn await_end(dirs: &Dirs, group: &Name) {
    let deadline = Instant::now() + END_PATIENCE;
    let listens = || Client::connect(&dirs.control_socket(group)).is_ok();
    while live_pid(dirs, group).is_some() && !listens() && Instant::now() < deadline {
        std::thread::sleep(LOOK_INTERVAL);
    }
}

impl Spawned {
    /// Waits for a tap that could not be used to end, so that it leaves nothing behind.
    pub fn await_end(self) {
        let Some(mut child) = self.child else { return };
        let deadline = Instant::now() + END_PATIENCE;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

fn start(dirs: &Dirs, group: &Name, ring_bytes: Option<u64>) -> io::Result<Child> {
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o755)
        .create(dirs.group_run(group))?;
    let mut options = OpenOptions::new();
    let log = options
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dirs.tap_log(group))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--group", group.as_str(), "--on-demand"]);
    if let Some(bytes) = ring_bytes {
        command.args(["--ring-size", &bytes.to_string()]);
    }
    command.envs(dirs.to_env()).current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
}

/// What makes another program of this process, run as this one was.
pub(super) fn successor(options: &Options) -> Become {
    let group = options.group.to_string();
    let (ring_bytes, on_demand) = (options.ring_bytes, options.on_demand);
    Box::new(move |program| {
        let mut command = Command::new(program);
        command.args(["run", "--group", &group, "--upgraded"]);
        if let Some(bytes) = ring_bytes {
            command.args(["--ring-size", &bytes.to_string()]);
        }
        if on_demand {
            command.arg("--on-demand");
        }
        let error = command.exec();
        Failure::of_io(&format!("become {}", program.display()), &error)
    })
}

/// Tells whoever started us.
pub fn tell_starter(said: &Said) {
    let line = serde_json::to_string(said).unwrap_or_default();
    // A starter that has gone away needs to hear nothing.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What a tap says, line by line, until it ends; its failure, if it says one.
fn listen(stdout: ChildStdout) -> JoinHandle<Option<Failure>> {
    let listen = move || {
        let mut failed = None;
        let lines = BufReader::new(stdout.take(SAID_BYTES_MAX)).lines();
        for line in lines.map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Said::Waits(text)) => {
                    // As above.
                    let _ = writeln!(io::stdout().lock(), "{text}");
                }
                Ok(Said::Failed(failure)) => failed = Some(failure),
                Err(error) => tracing::debug!(%error, line, "not a word of a tap"),
            }
        }
        failed
    };
    std::thread::spawn(listen)
}

/// What a tap that ended has said last.
fn why(listener: Option<JoinHandle<Option<Failure>>>) -> Failure {
    let said = listener.and_then(|listener| listener.join().ok().flatten());
    said.unwrap_or_else(|| Failure::failed("the tap ended while it started; see its log"))
}
