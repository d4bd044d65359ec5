//! `ublk-tap add`: a disk becomes a volume.

use super::args::AddArgs;
use super::{look, preflight, say, show};
use crate::control::{AddRequest, Added, Client, ClientError, Reply, Request};
use crate::daemon;
use crate::failure::Failure;
use crate::group::FrontKind;
use crate::settings::Dirs;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// What making a device may take beyond the time the operator gives.
const GRACE: Duration = Duration::from_secs(35);
/// How long a tap may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How often a copy is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is told where nobody watches a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// A tap that is just ending is waited for; one that keeps ending is not.
const TRIES_MAX: usize = 3;

/// Checks everything, starts the group's tap if none runs, and has it wrap the disk.
pub(super) fn add(dirs: &Dirs, args: &AddArgs) -> Result<(), Failure> {
    let disk =
        std::path::absolute(&args.disk).map_err(|error| Failure::usage(error.to_string()))?;
    preflight::check(dirs, args, &disk)?;
    let added = ask(dirs, args, &disk)?;
    say(&told(args, &added))?;
    if args.wait { wait(dirs, args) } else { Ok(()) }
}

fn ask(dirs: &Dirs, args: &AddArgs, disk: &Path) -> Result<Added, Failure> {
    let request = Request::Add(AddRequest {
        disk: disk.to_owned(),
        volume: args.volume.to_string(),
        queues: args.queues,
        depth: args.depth,
        ring_bytes: args.ring_size.map(|size| size.0),
        frontend: args.frontend,
    });
    for _ in 0..TRIES_MAX {
        match ask_once(dirs, args, &request)? {
            Some(Reply::Added(added)) => return Ok(added),
            Some(other) => return Err(look::unexpected(other)),
            None => std::thread::sleep(LOOK_INTERVAL),
        }
    }
    Err(Failure::failed(format!(
        "the tap of group {} keeps ending; see its log",
        args.group
    )))
}

/// Asks the tap that runs, or one started for this. `None`: it was just ending.
fn ask_once(dirs: &Dirs, args: &AddArgs, request: &Request) -> Result<Option<Reply>, Failure> {
    let within = args.timeout.0 + GRACE;
    let group = &args.group;
    match Client::connect(&dirs.control_socket(group)) {
        Ok(client) => match client.ask(request, within) {
            Ok(reply) => Ok(Some(reply)),
            Err(ClientError::Ended) => Ok(None),
            Err(error) => Err(look::of_client(&error)),
        },
        Err(ClientError::NotRunning) => {
            daemon::left::refuse(dirs, group)?;
            let ring_bytes = args.ring_size.map(|size| size.0);
            let spawned = daemon::spawn(dirs, group, ring_bytes, START_PATIENCE)?;
            let reply = look::ask(dirs, group, request, within);
            if !matches!(reply, Ok(Reply::Added(_))) {
                spawned.await_end();
            }
            reply.map(Some).map_err(|error| look::of_client(&error))
        }
        Err(error) => Err(look::of_client(&error)),
    }
}

/// What happened, and what happens next.
fn told(args: &AddArgs, added: &Added) -> String {
    let (group, volume) = (&args.group, &args.volume);
    let (device, link) = (added.device.display(), added.link.display());
    let first = match added.frontend {
        FrontKind::Ublk => format!("{group}/{volume} is {device}; use it as {link}"),
        FrontKind::Nbd => {
            format!("{group}/{volume} is served over NBD; use it as nbd+unix:///?socket={link}")
        }
    };
    let next = match &added.copy {
        Some(reason) => format!(
            "its content is copied to the receiver while in use ({reason}); see `ublk-tap status \
             {group} --watch`"
        ),
        None => "nothing needs to be copied: unchanged since it was removed clean".to_owned(),
    };
    format!("{first}\n{next}")
}

/// Shows how the copy goes until the volume is whole at the receiver.
fn wait(dirs: &Dirs, args: &AddArgs) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut said = None;
    loop {
        let status = look::status(dirs, &args.group)?;
        let volume = status
            .volumes
            .iter()
            .find(|v| v.name == args.volume.as_str());
        let Some(volume) = volume else {
            let text = format!("{}/{} was removed meanwhile", args.group, args.volume);
            return Err(Failure::failed(text));
        };
        let is_whole = volume.state == "ready";
        let is_due = said.is_none_or(|said: Instant| said.elapsed() >= LINE_INTERVAL);
        if is_terminal {
            show::redraw(&show::progress(volume), is_whole)?;
        } else if is_due || is_whole {
            said = Some(Instant::now());
            say(&show::progress(volume))?;
        }
        if is_whole {
            return Ok(());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}
