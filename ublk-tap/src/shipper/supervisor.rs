//! The shipper's process: started, started again when it ends, taken along when the tap ends.
//!
//! One thread, owner of the child. A shipper that ends over and over is started less and less
//! often; why it ended is kept for status.

use crate::group::Backoff;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
};
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// The shipper's keeper. Dropped, it ends the shipper.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    pid: Arc<AtomicI32>,
    ends: AtomicBool,
    replaces: AtomicBool,
    words: Mutex<String>,
}

const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a shipper may take to end when asked to.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait before a shipper that keeps ending is started again.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Starts the thread, which starts what `command` makes; the child's process id appears in
    /// `pid`.
    pub fn start(
        pid: Arc<AtomicI32>,
        command: impl Fn() -> io::Result<Command> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            pid,
            ends: AtomicBool::new(false),
            replaces: AtomicBool::new(false),
            words: Mutex::new("the shipper is being started".into()),
        });
        let own = Arc::clone(&shared);
        let keep = move || own.keep(&command);
        let thread = Builder::new().name("supervisor".into()).spawn(keep)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Kills the shipper; another is started.
    pub fn replace(&self) {
        self.shared.replaces.store(true, Ordering::Release);
    }

    /// Why there is no shipper, in words; empty while one runs.
    pub fn words(&self) -> String {
        self.shared.lock().clone()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the supervisor ended in a panic");
        }
    }
}

impl Shared {
    fn keep(&self, command: &impl Fn() -> io::Result<Command>) {
        if let Err(error) = bound_children() {
            tracing::warn!(%error, "the shipper is started with capabilities within its bounds");
        }
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        while !self.ends.load(Ordering::Acquire) {
            if !backoff.is_over(Instant::now()) {
                std::thread::sleep(LOOK_INTERVAL);
                continue;
            }
            let words = match command().and_then(|mut command| command.spawn()) {
                Ok(child) => self.watch(child),
                Err(error) => format!("the shipper cannot be started: {error}"),
            };
            backoff.failed(Instant::now());
            let wait = backoff.left(Instant::now()).as_secs().max(1);
            tracing::warn!("{words}");
            self.say(format!("{words}; started again in {wait} s"));
        }
    }

    /// Watches a shipper until it has ended; why it did.
    fn watch(&self, mut child: Child) -> String {
        self.say(String::new());
        self.replaces.store(false, Ordering::Release);
        let pid = i32::try_from(child.id()).unwrap_or(0);
        self.pid.store(pid, Ordering::Release);
        tracing::info!(pid, "the shipper is started");
        let status = loop {
            if self.ends.load(Ordering::Acquire) {
                break end(&mut child);
            }
            if self.replaces.load(Ordering::Acquire) {
                break child.kill().and_then(|()| child.wait());
            }
            match child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK_INTERVAL),
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            }
        };
        self.pid.store(0, Ordering::Release);
        match status {
            Ok(status) => format!("the shipper ended ({status}); see its log"),
            Err(error) => format!("the shipper is lost: {error}"),
        }
    }

    fn say(&self, words: String) {
        *self.lock() = words;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, String> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing this thread starts can have a capability, whatever it runs. Once it is another user's the
/// shipper cannot see to that itself. What this thread and all others may do stays as it is.
fn bound_children() -> io::Result<()> {
    if !capabilities(None)?
        .effective
        .contains(CapabilitySet::SETPCAP)
    {
        return Ok(());
    }
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Asks the shipper to end, and kills it if it does not.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)?;
    }
    let deadline = Instant::now() + END_PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()
}
