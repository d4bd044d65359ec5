//! The daemon's end of the control socket: one thread that accepts, one per connection.

use super::daemon::Hold;
use super::line::{Lines, REQUEST_BYTES_MAX};
use super::message::{Request, Response};
use super::operator::Operator;
use crate::failure::Exit;
use ring::handoff::PeerCredentials;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most connections at a time.
pub const CONNECTIONS_MAX: usize = 16;
/// How long a connection may be idle, unless it holds apply.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The socket, served until this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
}

impl Server {
    /// Serves the verbs on `path`. The caller holds the catalog open, so a socket that is already
    /// there is a dead daemon's and is replaced.
    pub fn start(operator: Operator, path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let (theirs, operator) = (shared.clone(), Arc::new(operator));
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &operator, &theirs))?;
        Ok(Self {
            path: path.to_owned(),
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was gone already");
        }
    }
}

fn accept(listener: &UnixListener, operator: &Arc<Operator>, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        if !matches!(
            rustix::event::poll(&mut ready, Some(&ACCEPT_INTERVAL)),
            Ok(1..)
        ) {
            continue;
        }
        threads.retain(|thread| !thread.is_finished());
        match listener.accept() {
            Ok((socket, _)) => threads.extend(spawn(socket, operator, shared)),
            Err(error) => tracing::debug!(%error, "a control connection was lost"),
        }
    }
    // Each looks at `stop` while it waits for a line.
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a control connection's thread panicked");
        }
    }
}

/// Gives a connection its thread, unless there are too many or the peer is a stranger.
fn spawn(
    socket: UnixStream,
    operator: &Arc<Operator>,
    shared: &Arc<Shared>,
) -> Option<JoinHandle<()>> {
    let refused = if shared.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
        Some("too many control connections; try again")
    } else if !is_allowed(&socket) {
        Some("only root and the receiver's own user may control it")
    } else {
        None
    };
    socket.set_nonblocking(false).ok()?;
    let mut lines = Lines::new(socket, REQUEST_BYTES_MAX).ok()?;
    if let Some(text) = refused {
        tracing::warn!(text, "control connection refused");
        let refusal = Response::Refused {
            exit: Exit::Refused,
            text: text.into(),
        };
        drop(lines.send(&refusal));
        return None;
    }
    let slot = Slot::take(shared);
    let operator = operator.clone();
    let thread = std::thread::Builder::new()
        .name("control-peer".into())
        .spawn(move || {
            if let Err(error) = serve(&mut lines, &operator, &slot.0) {
                tracing::debug!(%error, "a control connection ended");
            }
        });
    thread
        .inspect_err(|error| tracing::warn!(%error, "no thread for a control connection"))
        .ok()
}

/// One of the connections there may be; given back when dropped.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// By its user alone: a peer in another namespace of process ids has no process id here.
fn is_allowed(socket: &UnixStream) -> bool {
    let own_uid = rustix::process::geteuid().as_raw();
    PeerCredentials::of(socket).is_ok_and(|peer| admits(peer, own_uid))
}

fn admits(peer: PeerCredentials, own_uid: u32) -> bool {
    peer.uid == 0 || peer.uid == own_uid
}

/// Answers requests until the peer hangs up; a hold ends with the connection.
fn serve(lines: &mut Lines, operator: &Operator, shared: &Shared) -> io::Result<()> {
    let mut hold: Option<Box<dyn Hold>> = None;
    loop {
        let until = hold.is_none().then(|| Instant::now() + IDLE_TIMEOUT);
        let line = lines.read(until, || shared.stop.load(Ordering::Relaxed))?;
        let Some(line) = line else { return Ok(()) };
        let response = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => operator.answer(&request, &mut hold),
            Err(error) => {
                let text = format!("not a request this version knows: {error}");
                Response::Refused {
                    exit: Exit::Usage,
                    text,
                }
            }
        };
        lines.send(&response)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(pid: i32, uid: u32) -> PeerCredentials {
        PeerCredentials { pid, uid, gid: 7 }
    }

    #[test]
    fn a_peer_is_judged_by_its_user_also_where_it_has_no_process_id_here() {
        let own = rustix::process::geteuid().as_raw();
        for pid in [0, 1, 4711] {
            assert!(admits(peer(pid, 0), own), "root, process {pid}");
            assert!(admits(peer(pid, own), own), "own user, process {pid}");
            assert!(
                !admits(peer(pid, own + 1), own),
                "a stranger, process {pid}"
            );
            // What the kernel says of somebody it cannot name.
            assert!(!admits(peer(pid, u32::MAX), own), "nobody, process {pid}");
        }
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(is_allowed(&one));
    }
}
