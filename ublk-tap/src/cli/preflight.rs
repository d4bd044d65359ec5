//! Everything that can refuse an `add`, before anything is started or changed.

use super::args::AddArgs;
use crate::daemon::{of_enrolment, of_settings};
use crate::disk::Disk;
use crate::failure::{Exit, Failure};
use crate::group::clerk::{check_disk, of_device, of_disk, of_state};
use crate::group::{FrontKind, Fronts, HostFronts};
use crate::settings::{Dirs, Enrolment, Settings, Span, check_nbd, check_ring, check_shape};
use crate::shipper::{Account, Program};
use crate::state::{State, StateFile, kept_path};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the receiver is asked about.
struct Question {
    size_bytes: u64,
    sector_bytes: u32,
    identity: String,
}

/// Most of the time an add may take that goes into asking the receiver.
const ASK_PATIENCE_MAX: Duration = Duration::from_secs(20);
/// What the shipper may take beyond the time it is given.
const GRACE: Duration = Duration::from_secs(5);

/// Checks settings, disk, state, enrolment, kernel and receiver, in this order.
pub(super) fn check(dirs: &Dirs, args: &AddArgs, disk: &Path) -> Result<(), Failure> {
    let path = dirs.settings(&args.group);
    let settings = Settings::load(&path).map_err(|error| of_settings(&error))?;
    if let Some(size) = args.ring_size {
        check_ring(size.0).map_err(Failure::usage)?;
    }
    let (queues, depth) = (
        args.queues.unwrap_or(1),
        args.depth.unwrap_or(settings.depth),
    );
    check_shape(queues, depth).map_err(Failure::usage)?;
    if args.frontend == FrontKind::Nbd {
        let socket = dirs.nbd_socket(&args.group, &args.volume);
        check_nbd(&socket, depth).map_err(Failure::usage)?;
    }
    kept_path(disk).map_err(Failure::usage)?;
    let question = check_own(dirs, args, disk)?;
    Enrolment::load(&dirs.identity()).map_err(|error| of_enrolment(&error))?;
    HostFronts
        .check(args.frontend)
        .map_err(|error| of_device(&error))?;
    if args.offline {
        Ok(())
    } else {
        ask_receiver(dirs, args, &question)
    }
}

/// Opens the disk for a moment, as the tap will.
fn check_own(dirs: &Dirs, args: &AddArgs, path: &Path) -> Result<Question, Failure> {
    let disk = Disk::open(path, Duration::ZERO).map_err(|error| of_disk(&error))?;
    let group = &args.group;
    let state =
        StateFile::peek(&dirs.state_file(group), group).map_err(|error| of_state(&error))?;
    let state = state.unwrap_or_else(|| State::new(group.clone(), 0));
    check_disk(dirs, &state, &args.volume, &disk)?;
    Ok(Question {
        size_bytes: disk.size_bytes(),
        sector_bytes: disk.sector_bytes(),
        identity: disk.identity().to_owned(),
    })
}

/// The network is the shipper's: it asks, without privilege.
fn ask_receiver(dirs: &Dirs, args: &AddArgs, question: &Question) -> Result<(), Failure> {
    let program = Program::find().map_err(|error| Failure::failed(error.to_string()))?;
    let within = args
        .timeout
        .0
        .clamp(Duration::from_secs(1), ASK_PATIENCE_MAX);
    let mut command = program.command(dirs, Account::of_shipper());
    command.args([
        "check",
        "--group",
        args.group.as_str(),
        "--volume",
        args.volume.as_str(),
    ]);
    command.args(["--size", &question.size_bytes.to_string()]);
    command.args(["--sector", &question.sector_bytes.to_string()]);
    command.args(["--disk-identity", &question.identity]);
    command.args(["--timeout", &within.as_secs().to_string()]);
    run(command, within + GRACE)
}

fn run(mut command: Command, within: Duration) -> Result<(), Failure> {
    let spawned = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| Failure::of_io("start the shipper's check", &error))?;
    let deadline = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                let exit = Exit::from_code(code.unwrap_or(Exit::Failed as u8));
                return Err(Failure::new(exit, last_line(&mut child)));
            }
            Ok(None) if Instant::now() >= deadline => {
                // It is out of time either way.
                let _ = child.kill();
                let _ = child.wait();
                let text = format!("the receiver was not asked within {}", Span(within));
                return Err(Failure::late(text));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(Failure::of_io("wait for the shipper's check", &error)),
        }
    }
}

/// What the shipper has said last: its one line of error.
fn last_line(child: &mut Child) -> String {
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What cannot be read is as good as not said.
        let _ = stderr.take(64 << 10).read_to_string(&mut said);
    }
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or("the shipper's check failed without a word");
    last.strip_prefix("ublk-tap-shipper: ")
        .unwrap_or(last)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_script(script: &str, within: Duration) -> Result<(), Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, within)
    }

    #[test]
    fn what_the_shipper_says_last_is_what_the_operator_reads() {
        let script = "echo log >&2; echo 'ublk-tap-shipper: another size' >&2; exit 3";
        let failure = run_script(script, Duration::from_secs(10)).unwrap_err();
        assert_eq!(failure, Failure::refused("another size"));
        assert!(run_script("exit 0", Duration::from_secs(10)).is_ok());
        let silent = run_script("exit 9", Duration::from_secs(10)).unwrap_err();
        assert!(silent.exit == Exit::Failed && silent.text.contains("without a word"));
    }

    #[test]
    fn a_shipper_that_does_not_answer_is_not_waited_for() {
        let failure = run_script("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
    }
}
