//! A process of its own that syncs a device of ours, and holds it until told to let go.
//!
//! A sync waits in the kernel for as long as the disk takes. A thread of the tap that waits there
//! when the tap is killed would wait for requests that wait for a successor, and keep the dead tap's
//! memory, without the end of which the driver takes no successor. This process shares nothing with
//! the tap: it waits on, and the successor answers it.
//!
//! It says one line (`held`, `busy`, or what failed) and ends when its input does.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;

/// The verb that makes such a process of our program.
const VERB: &str = "hold";
/// Its answer when the device is written and held, and when somebody else has it.
const HELD: &str = "held";
const BUSY: &str = "busy";
/// Most it may say.
const ANSWER_BYTES_MAX: u64 = 4096;

/// A device that is written and held; dropped, it is let go.
#[derive(Debug)]
pub(super) struct Held {
    _input: ChildStdin,
}

/// What such a process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Terms {
    /// Fails if anybody else has the device for himself.
    Alone,
    /// Holds it for us alone only if nobody else does.
    Shared,
}

/// Starts one for `device`. What becomes of it arrives when it does; "busy" is an error of that
/// kind.
pub(super) fn start(device: &Path, terms: Terms) -> io::Result<Receiver<io::Result<Held>>> {
    // This very program, also when its file has been replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg(VERB).arg(device);
    if terms == Terms::Shared {
        command.arg("--shared");
    }
    start_as(command)
}

/// The same with another program, in a thread that also sees to its end.
pub(super) fn start_as(mut command: Command) -> io::Result<Receiver<io::Result<Held>>> {
    let (tell, told) = channel();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::null());
    let keep = move || keep(command, &tell);
    Builder::new().name("ublk-sync".into()).spawn(keep)?;
    Ok(told)
}

fn keep(mut command: Command, tell: &Sender<io::Result<Held>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let (input, output) = (child.stdin.take(), child.stdout.take());
    // Whoever waits no longer lets the input go with what is sent, and so the process.
    let _ = tell.send(hear(input, output));
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "who held a device is lost");
    }
}

fn hear(input: Option<ChildStdin>, output: Option<ChildStdout>) -> io::Result<Held> {
    let (Some(input), Some(output)) = (input, output) else {
        return Err(io::Error::other("it has no pipes"));
    };
    let mut line = String::new();
    io::BufRead::read_line(
        &mut io::BufReader::new(output.take(ANSWER_BYTES_MAX)),
        &mut line,
    )?;
    match line.trim() {
        HELD => Ok(Held { _input: input }),
        BUSY => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        "" => Err(io::Error::other("who synced it was killed")),
        words => Err(io::Error::other(words.to_owned())),
    }
}

/// The process itself: syncs, says so, holds.
pub fn hold(device: &Path, is_shared: bool) -> io::Result<()> {
    let (line, _file) = match synced(device, is_shared) {
        Ok(file) => (HELD.to_owned(), Some(file)),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => (BUSY.to_owned(), None),
        Err(error) => (format!("sync {}: {error}", device.display()), None),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())?;
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn synced(device: &Path, is_shared: bool) -> io::Result<File> {
    let file = open(device, is_shared)?;
    // Whatever it says, it is no mount.
    file.sync_all()
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(file)
}

/// Read-only, so that closing it does not have udev look at a device that goes.
fn open(device: &Path, is_shared: bool) -> io::Result<File> {
    let open = |flags| {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags).open(device)
    };
    match open(libc::O_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && is_shared => open(0),
        other => other,
    }
}
