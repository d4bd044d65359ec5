//! The shipper's end of the socket to the tap.
//!
//! Reports that cannot be sent at once wait in a bounded place each: a newer report of the same
//! sort replaces the older one.

use ring::handoff::{Channel, ChannelError, ConsumerFds, ToShipper, ToTap, Volumes, Welcome};
use std::collections::VecDeque;
use std::io;
use std::mem::discriminant;
use std::os::fd::AsFd;
use std::os::unix::net;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use wire::limits::VOLUMES_MAX;

/// Reports that may wait: one of each sort, and a wish per volume.
const WAITING_MAX: usize = VOLUMES_MAX + 8;

/// The socket, and what waits to be sent.
#[derive(Debug)]
pub struct TapEnd {
    channel: Channel,
    /// The same socket, only to know when it is ready: the runtime has no type for packet sockets
    /// that keep a connection, and does not mind.
    watched: UnixDatagram,
    waiting: VecDeque<ToTap>,
}

/// Why the tap cannot be talked to any more.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The tap has gone, or sent nonsense.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The socket cannot be watched.
    #[error("socket failed: {0}")]
    Io(#[from] io::Error),
    /// The first message must be a welcome, and no other may be.
    #[error("the tap sent a message out of turn")]
    OutOfTurn,
}

impl TapEnd {
    /// Takes over a connected socket; needs a tokio runtime.
    pub fn new(channel: Channel) -> io::Result<Self> {
        let twin = net::UnixDatagram::from(channel.as_fd().try_clone_to_owned()?);
        twin.set_nonblocking(true)?;
        Ok(Self {
            watched: UnixDatagram::from_std(twin)?,
            channel,
            waiting: VecDeque::new(),
        })
    }

    /// The first message: what to ship, and the ring.
    pub async fn welcome(&self) -> Result<(Welcome, ConsumerFds), TapError> {
        match self.recv().await? {
            (ToShipper::Welcome(welcome), Some(fds)) => Ok((welcome, fds)),
            _ => Err(TapError::OutOfTurn),
        }
    }

    /// The next change of the volume table. Cancel-safe.
    pub async fn volumes(&self) -> Result<Volumes, TapError> {
        match self.recv().await? {
            (ToShipper::Volumes(volumes), _) => Ok(volumes),
            _ => Err(TapError::OutOfTurn),
        }
    }

    /// Sends a report, now or as soon as there is room. A tap that has gone is noticed by reading.
    pub fn tell(&mut self, message: ToTap) {
        let is_same = |known: &ToTap| match (known, &message) {
            (ToTap::CopyWanted(known), ToTap::CopyWanted(new)) => known.volume == new.volume,
            (known, new) => discriminant(known) == discriminant(new),
        };
        self.waiting.retain(|known| !is_same(known));
        self.waiting.push_back(message);
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
        }
        self.flush();
    }

    /// Waits until waiting reports can be sent; for ever when there are none. Cancel-safe.
    pub async fn writable(&self) {
        let is_watched = !self.waiting.is_empty() && self.watched.writable().await.is_ok();
        if !is_watched {
            std::future::pending().await
        }
    }

    /// Sends what waits, as far as there is room.
    pub fn flush(&mut self) {
        while let Some(message) = self.waiting.front() {
            let sending = || ready(self.channel.send_to_tap(message));
            match self.watched.try_io(Interest::WRITABLE, sending) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Or gone, or too long to be sent at all.
                _ => self.waiting.pop_front(),
            };
        }
    }

    async fn recv(&self) -> Result<(ToShipper, Option<ConsumerFds>), TapError> {
        let receiving = || ready(self.channel.recv_from_tap());
        Ok(self
            .watched
            .async_io(Interest::READABLE, receiving)
            .await??)
    }
}

/// Says "would block" the way the runtime understands it.
fn ready<T>(done: Result<T, ChannelError>) -> io::Result<Result<T, ChannelError>> {
    match done {
        Err(ChannelError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        done => Ok(done),
    }
}
