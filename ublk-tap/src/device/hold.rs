//! A process of its own that holds a device of ours until told to let go, and syncs it meanwhile.
//!
//! A sync waits in the kernel for as long as the disk takes, and closing a device nobody else has
//! open is one. The group's loop must not wait so. Nor a thread of the tap: one that waits there when
//! the tap is killed would wait for requests that wait for a successor, and keep the dead tap's
//! memory, without the end of which the driver takes no successor. This process shares nothing with
//! the tap: it waits on, and the successor answers it.
//!
//! It says one line when it is started (`held`, `busy`, or what failed), one more when it is told to
//! write (`written`, or what failed), and ends when its input does.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::Builder;

/// The verb that makes such a process of our program.
const VERB: &str = "hold";
/// Its answers: the device is held, somebody else has it, and what was cached is written.
const HELD: &str = "held";
const BUSY: &str = "busy";
const WRITTEN: &str = "written";
/// What it is told.
const WRITE: &[u8] = b"write\n";
/// Most it may say.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Such a process. Dropped, it lets go of the device.
#[derive(Debug)]
pub(super) struct Holder {
    told: Receiver<io::Result<Said>>,
    /// Once it holds the device.
    input: Option<ChildStdin>,
}

/// What it has said.
#[derive(Debug)]
enum Said {
    Held(ChildStdin),
    Written,
}

/// What such a process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Terms {
    /// Fails if anybody else has the device for himself.
    Alone,
    /// Holds it for us alone only if nobody else does.
    Shared,
}

impl Holder {
    /// One for `device`.
    pub(super) fn start(device: &Path, terms: Terms) -> io::Result<Self> {
        // This very program, also when its file has been replaced.
        let mut command = Command::new("/proc/self/exe");
        command.arg(VERB).arg(device);
        if terms == Terms::Shared {
            command.arg("--shared");
        }
        Self::start_as(command)
    }

    /// The same with another program, in a thread that also sees to its end.
    pub(super) fn start_as(mut command: Command) -> io::Result<Self> {
        let (tell, told) = channel();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let keep = move || keep(command, &tell);
        Builder::new().name("ublk-sync".into()).spawn(keep)?;
        Ok(Self { told, input: None })
    }

    /// What became of what it was asked last, if it has: "busy" is an error of that kind.
    pub(super) fn poll(&mut self) -> Option<io::Result<()>> {
        match self.told.try_recv() {
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("its thread panicked"))),
            Ok(Ok(Said::Held(input))) => {
                self.input = Some(input);
                Some(Ok(()))
            }
            Ok(Ok(Said::Written)) => Some(Ok(())),
            Ok(Err(error)) => Some(Err(error)),
        }
    }

    /// Has what is cached for the device written. It must hold it.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let input = self.input.as_mut();
        let input = input.ok_or_else(|| io::Error::other("it holds nothing yet"))?;
        // Far less than a pipe takes.
        input.write_all(WRITE)
    }
}

fn keep(mut command: Command, tell: &Sender<io::Result<Said>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    if let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) {
        hear(input, output, tell);
    }
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "who held a device is lost");
    }
}

/// Whoever waits no longer lets the input go with what is sent, and so the process.
fn hear(input: ChildStdin, output: ChildStdout, tell: &Sender<io::Result<Said>>) {
    let mut output = BufReader::new(output.take(ANSWER_BYTES_MAX));
    let held = answer(&mut output, HELD).map(|()| Said::Held(input));
    let is_held = held.is_ok();
    let _ = tell.send(held);
    if is_held {
        let _ = tell.send(answer(&mut output, WRITTEN).map(|()| Said::Written));
    }
}

fn answer(output: &mut impl BufRead, good: &str) -> io::Result<()> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    match line.trim() {
        said if said == good => Ok(()),
        BUSY => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        "" => Err(io::Error::other("who held it was killed")),
        words => Err(io::Error::other(words.to_owned())),
    }
}

/// The process itself: holds, says so, syncs when told to.
pub fn hold(device: &Path, is_shared: bool) -> io::Result<()> {
    let file = match open(device, is_shared) {
        Ok(file) => say(HELD).map(|()| Some(file)),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => say(BUSY).map(|()| None),
        Err(error) => say(&format!("open {}: {error}", device.display())).map(|()| None),
    }?;
    for line in io::stdin().lock().lines() {
        line?;
        // Whatever a sync says, it is no mount.
        match file.as_ref().map_or(Ok(()), File::sync_all) {
            Ok(()) => say(WRITTEN)?,
            Err(error) => say(&format!("sync {}: {error}", device.display()))?,
        }
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
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
