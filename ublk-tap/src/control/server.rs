//! The tap's end of the socket.

use super::line;
use super::message::{Reply, Request};
use crate::failure::{Exit, Failure};
use ring::handoff::PeerCredentials;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Whom to answer.
    pub reply: ReplyTo,
}

/// Where an answer goes. Dropped without one, the asker is told that the tap is ending.
#[derive(Debug)]
pub struct ReplyTo {
    post: SyncSender<Reply>,
    asker: Option<i32>,
    is_gone: Arc<AtomicBool>,
}

/// The listening socket; it goes away with this.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    ends: Arc<AtomicBool>,
    /// Requests being answered.
    count: Arc<AtomicUsize>,
}

/// Requests being answered at once.
const CONNECTIONS_MAX: usize = 16;
/// How long an asker may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether an asker still waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long the last answers may take to leave.
const END_PATIENCE: Duration = Duration::from_secs(2);

impl ReplyTo {
    /// Where an answer goes, and where it arrives, for who asks from within the tap.
    pub(crate) fn pair() -> (Self, std::sync::mpsc::Receiver<Reply>) {
        let (post, answer) = sync_channel(1);
        let is_gone = Arc::default();
        let asker = None;
        (
            Self {
                post,
                asker,
                is_gone,
            },
            answer,
        )
    }

    /// The process that asks, if it is known.
    pub fn asker(&self) -> Option<i32> {
        self.asker
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Answers.
    pub fn send(self, reply: Reply) {
        // An asker that has gone away needs no answer.
        let _ = self.post.send(reply);
    }

    /// Answers that it was not done.
    pub fn fail(self, failure: Failure) {
        self.send(Reply::Failed(failure));
    }
}

impl Server {
    /// Listens at `path`, in place of what a dead tap left there; requests go to `inbox`.
    pub fn start<T: From<Asked> + Send + 'static>(
        path: &Path,
        inbox: Sender<T>,
    ) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let ends = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let server = Self {
            path: path.to_owned(),
            ends: Arc::clone(&ends),
            count: Arc::clone(&count),
        };
        let accept = move || accept(&listener, &inbox, &ends, &count);
        Builder::new().name("control".into()).spawn(accept)?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes the thread that accepts; it sees the end and goes.
        drop(UnixStream::connect(&self.path));
        // Nothing is lost if it stays: the next tap replaces it.
        let _ = fs::remove_file(&self.path);
        let deadline = Instant::now() + END_PATIENCE;
        while self.count.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn accept<T: From<Asked> + Send + 'static>(
    listener: &UnixListener,
    inbox: &Sender<T>,
    ends: &AtomicBool,
    count: &Arc<AtomicUsize>,
) {
    for socket in listener.incoming() {
        if ends.load(Ordering::Acquire) {
            return;
        }
        let Ok(socket) = socket else {
            std::thread::sleep(Duration::from_millis(50)); // out of descriptors, for now
            continue;
        };
        let place = Place::take(count);
        let inbox = inbox.clone();
        let spawned = Builder::new().name("asker".into()).spawn(move || {
            let reply = answer(&socket, place.is_some(), &inbox);
            if let Err(error) = line::send(&socket, &reply) {
                tracing::debug!(%error, "an asker went away");
            }
            drop(place);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a request");
        }
    }
}

fn answer<T: From<Asked>>(socket: &UnixStream, has_place: bool, inbox: &Sender<T>) -> Reply {
    if !may_ask(socket) {
        let text = "only root and the tap's own user may ask; run as root";
        return Reply::Failed(Failure::new(Exit::Privilege, text));
    }
    if !has_place {
        let text = format!("{CONNECTIONS_MAX} requests are running already; try again");
        return Reply::Failed(Failure::failed(text));
    }
    let request = match line::receive(socket, REQUEST_TIMEOUT) {
        Ok(Some(request)) => request,
        Ok(None) => return Reply::Failed(Failure::usage("nothing was asked")),
        Err(error) => {
            return Reply::Failed(Failure::usage(format!(
                "not a request of this version: {error}"
            )));
        }
    };
    let (post, answer) = sync_channel(1);
    let is_gone = Arc::new(AtomicBool::new(false));
    let reply = ReplyTo {
        post,
        asker: pid_of(socket),
        is_gone: Arc::clone(&is_gone),
    };
    if inbox.send(Asked { request, reply }.into()).is_err() {
        return Reply::Ending;
    }
    loop {
        match answer.recv_timeout(LOOK_INTERVAL) {
            Ok(reply) => return reply,
            Err(RecvTimeoutError::Timeout) if has_hung_up(socket) => {
                is_gone.store(true, Ordering::Release);
                return Reply::Ending;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Reply::Ending,
        }
    }
}

/// Whether the asker waits no longer: a place is not kept for him then.
fn has_hung_up(socket: &UnixStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(
        rustix::net::recv(socket, &mut [0_u8; 1], flags),
        Ok((0, _)) | Err(Errno::CONNRESET)
    )
}

fn may_ask(socket: &UnixStream) -> bool {
    let Ok(peer) = PeerCredentials::of(socket) else {
        return false;
    };
    peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw()
}

fn pid_of(socket: &UnixStream) -> Option<i32> {
    PeerCredentials::of(socket).ok()?.process()
}

/// One of the bounded places for requests.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(count: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(count));
        // A refused place is given back by its drop.
        (place.0.fetch_add(1, Ordering::AcqRel) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
