//! Taking clients: who may come, how many, and a thread for each.

use super::ledger::Ledger;
use super::negotiate::{Haggle, Step, Terms};
use super::payload::Pool;
use super::port::ClientPort;
use super::requests::Limits;
use super::roster::{Guest, Roster, Seat};
use super::session::{Client, Session};
use super::uring::Uring;
use super::{NbdPlace, POOL_BYTES, Plan};
use crate::device::buffers::Buffers;
use crate::device::error::DeviceError;
use crate::device::progress::Ways;
use crate::device::registered::Area;
use crate::device::wake::Waker;
use crate::device::worker::{Parts, Worker};
use ring::handoff::PeerCredentials;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long a client may take to say what it wants.
const HAGGLE_PATIENCE: Duration = Duration::from_secs(10);
/// How often the system is asked again for what it does not have.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Largest ring every client's io_uring is told of: it takes a moment that grows with the ring.
const REGISTERED_BYTES_MAX: usize = 1 << 30;
/// Bytes read at once while haggling: the longest option, with room.
const HAGGLE_BYTES: usize = 32 << 10;

/// Listens at `place`, in place of what a dead tap left there, in a thread of its own.
pub(super) fn start(
    place: &NbdPlace,
    plan: Plan,
    roster: Arc<Roster>,
    bell: Arc<Waker>,
) -> Result<JoinHandle<()>, DeviceError> {
    let listener = listen(place).map_err(|source| DeviceError::Socket {
        path: place.socket.clone(),
        source,
    })?;
    let (path, is_for_group) = (place.socket.clone(), place.group.is_some());
    let accept = move || {
        accept(&listener, &Arc::new(plan), &roster, &bell, is_for_group);
        drop(listener);
        // Nothing is lost if it stays: the next one replaces it.
        let _ = fs::remove_file(&path);
    };
    let thread = Builder::new().name("nbd-listener".to_owned()).spawn(accept);
    thread.map_err(|error| DeviceError::refused("start a thread", error))
}

fn listen(place: &NbdPlace) -> io::Result<UnixListener> {
    let path: &Path = &place.socket;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let mode = match place.group {
        Some(group) => {
            chown(path, None, Some(group))?;
            0o660
        }
        None => 0o600,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(
    listener: &UnixListener,
    plan: &Arc<Plan>,
    roster: &Arc<Roster>,
    bell: &Waker,
    is_for_group: bool,
) {
    let ends = || roster.ends().load(std::sync::atomic::Ordering::Acquire);
    while !ends() {
        let mut polled = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(bell, PollFlags::IN),
        ];
        if poll(&mut polled, None).is_err() {
            std::thread::sleep(RETRY_INTERVAL); // interrupted, or out of memory
            continue;
        }
        match listener.accept() {
            Ok((socket, _)) => {
                if let Err(error) = take(socket, plan, roster, is_for_group) {
                    tracing::warn!(%error, "an NBD client was not taken");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Out of descriptors, for now.
            Err(_) => std::thread::sleep(RETRY_INTERVAL),
        }
    }
}

fn take(
    socket: UnixStream,
    plan: &Arc<Plan>,
    roster: &Arc<Roster>,
    is_for_group: bool,
) -> io::Result<()> {
    let peer = PeerCredentials::of(&socket)?;
    // The socket's mode lets in whom it should; without a group that is us alone, and root.
    let own = rustix::process::geteuid().as_raw();
    if !is_for_group && peer.uid != 0 && peer.uid != own {
        return Err(io::Error::other("only root may use the volume"));
    }
    socket.set_nonblocking(false)?;
    let guest = Guest::new(socket, peer.process().unwrap_or_default())?;
    let Some(seat) = roster.enter(guest) else {
        return Err(io::Error::other("there are too many, or it is going away"));
    };
    let plan = Arc::clone(plan);
    let serve = move || {
        if let Err(error) = serve(plan, &seat) {
            tracing::debug!(%error, pid = seat.guest.pid, "an NBD client went away");
        }
        // Last: whoever waits for the volume to be free waits for this.
        drop(seat);
    };
    Builder::new().name("nbd".to_owned()).spawn(serve)?;
    Ok(())
}

/// Serves one client from its first byte to its last; everything of it is gone at the end.
fn serve(plan: Arc<Plan>, seat: &Seat) -> io::Result<()> {
    let guest = &seat.guest;
    let mut input = Vec::new();
    let Some(terms) = haggle(&plan, &guest.socket, &mut input)? else {
        return Ok(());
    };
    let worker = worker(&plan, guest)?;
    let limits = Limits {
        size_bytes: plan.export.size_bytes,
        sector_bytes: plan.export.sector_bytes,
        can_trim: plan.can_trim,
        terms,
    };
    let hang_up = || guest.hang_up();
    let client = Client {
        ends: seat.ends(),
        bell: guest.waker.as_raw_fd(),
        hang_up: &hang_up,
    };
    guest.is_served();
    tracing::debug!(pid = guest.pid, ?terms, "an NBD client is served");
    Session::new(worker, Arc::clone(&plan.disk), limits, client, &input).run();
    tracing::debug!(pid = guest.pid, "an NBD client is gone");
    Ok(())
}

/// Comes to terms with a client; `input` is what it has said beyond that. None if it did not want to.
fn haggle(plan: &Plan, socket: &UnixStream, input: &mut Vec<u8>) -> io::Result<Option<Terms>> {
    let deadline = Instant::now() + HAGGLE_PATIENCE;
    let mut out = Vec::new();
    let mut haggle = Haggle::new(&plan.export, &mut out);
    let mut bytes = vec![0; HAGGLE_BYTES];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_write_timeout(Some(left))?;
        socket.set_read_timeout(Some(left))?;
        let mut socket = socket;
        socket.write_all(&out)?;
        out.clear();
        match haggle.step(input, &mut out) {
            Step::NeedMore => match socket.read(&mut bytes)? {
                0 => return Ok(None),
                count => input.extend_from_slice(&bytes[..count]),
            },
            Step::Took(count) => drop(input.drain(..count)),
            Step::Agreed(count, terms) => {
                socket.write_all(&out)?;
                input.drain(..count);
                return Ok(Some(terms));
            }
            Step::End => {
                socket.write_all(&out)?;
                return Ok(None);
            }
        }
    }
}

fn worker(plan: &Plan, guest: &Guest) -> io::Result<Worker<ClientPort>> {
    let depth = plan.shape.depth;
    let uring = Uring::new(depth, guest.socket.as_raw_fd(), plan.disk.as_raw_fd())?;
    let mut buffers = Buffers::new(POOL_BYTES)?;
    let (first, bytes) = plan.volume.ring.payload_area();
    let ring = (bytes <= REGISTERED_BYTES_MAX).then_some(Area { first, bytes });
    let areas: Vec<Area> = ring.into_iter().chain([buffers.area()]).collect();
    let areas = uring.register(&areas);
    let port = ClientPort {
        uring,
        ledger: Ledger::new(depth, plan.shape.io_bytes_max),
        pool: Pool::default(),
        areas,
    };
    let parts = Parts {
        depth,
        buffers,
        waker: Arc::clone(&guest.waker),
        counters: Arc::clone(&guest.counters),
        ways: Ways {
            punch: plan.disk.traits().punch,
            zero_range: true,
        },
    };
    Ok(Worker::new(port, plan.volume.clone(), parts))
}
