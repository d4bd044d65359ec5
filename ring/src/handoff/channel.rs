//! The socket the messages travel on.
//!
//! Owned by whoever opened it; the tap binds and accepts, the shipper connects. A packet that is
//! too long, not JSON, or carries the wrong descriptors is an error of that packet: the tap drops
//! the shipper then, and nothing else happens.

use super::message::{ToShipper, ToTap, Volumes, Welcome, clean};
use super::{ConsumerFds, PeerCredentials};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Longest message in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4;
/// Descriptors in a welcome: ring, page, wake.
const WELCOME_FDS: usize = 3;

/// Where shippers connect.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
}

/// One end of a connection between a tap and its shipper.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// Why a message was not sent or read.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Not now: wait until the socket is readable or writable.
    #[error("socket is not ready")]
    WouldBlock,
    /// The other end is gone.
    #[error("the other process closed the connection")]
    Closed,
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("message is longer than 65536 bytes")]
    TooLong,
    /// The message is not one of the protocol.
    #[error("message is malformed: {0}")]
    Malformed(String),
    /// A system call failed.
    #[error("socket failed: {0}")]
    Io(io::Error),
}

impl Listener {
    /// Listens at `path`, in place of a socket a dead process left there.
    ///
    /// `mode` are the permission bits; who connects is checked by [`Channel::peer`] anyway.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let is_socket = |meta: fs::Metadata| meta.file_type().is_socket();
        if fs::symlink_metadata(path).is_ok_and(is_socket) {
            fs::remove_file(path)?;
        }
        let socket = new_socket()?;
        net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        net::listen(&socket, BACKLOG)?;
        Ok(Self { socket })
    }

    /// The next connection; `WouldBlock` when none waits.
    pub fn accept(&self) -> io::Result<Channel> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = retry_on_intr(|| net::accept_with(&self.socket, flags))?;
        Ok(Channel { socket })
    }
}

impl Channel {
    /// Connects to a tap's socket.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = new_socket()?;
        net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket })
    }

    /// Two connected ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (left, right) =
            net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self { socket: left }, Self { socket: right }))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        PeerCredentials::of(&self.socket)
    }

    /// Tap: sends the first message, with the ring.
    pub fn send_welcome(&self, welcome: Welcome, fds: &ConsumerFds) -> Result<(), ChannelError> {
        let fds = [fds.ring.as_fd(), fds.page.as_fd(), fds.wake.as_fd()];
        self.send(&ToShipper::Welcome(welcome), &fds)
    }

    /// Tap: sends a changed volume table.
    pub fn send_volumes(&self, volumes: Volumes) -> Result<(), ChannelError> {
        self.send(&ToShipper::Volumes(volumes), &[])
    }

    /// Shipper: sends a report.
    pub fn send_to_tap(&self, message: &ToTap) -> Result<(), ChannelError> {
        self.send(message, &[])
    }

    /// Shipper: the next message; a welcome comes with its descriptors, others come without.
    pub fn recv_from_tap(&self) -> Result<(ToShipper, Option<ConsumerFds>), ChannelError> {
        let (message, fds) = self.recv(WELCOME_FDS)?;
        let fds = match <[OwnedFd; WELCOME_FDS]>::try_from(fds) {
            Ok([ring, page, wake]) => Some(ConsumerFds { ring, page, wake }),
            Err(_) => None,
        };
        let is_welcome = matches!(message, ToShipper::Welcome(_));
        if is_welcome != fds.is_some() {
            return Err(ChannelError::Malformed("wrong descriptors".into()));
        }
        Ok((message, fds))
    }

    /// Tap: the next message. Descriptors a shipper might send along are never received.
    pub fn recv_from_shipper(&self) -> Result<ToTap, ChannelError> {
        self.recv(0).map(|(message, _)| message)
    }

    fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message).map_err(malformed)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ChannelError::TooLong);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(WELCOME_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let is_pushed = control.push(SendAncillaryMessage::ScmRights(fds));
            assert!(is_pushed, "the space is made for a welcome's descriptors");
        }
        let parts = [IoSlice::new(&bytes)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = retry_on_intr(|| net::sendmsg(&self.socket, &parts, &mut control, flags))?;
        assert!(sent == bytes.len(), "a packet is sent whole or not at all");
        Ok(())
    }

    fn recv<M: DeserializeOwned>(&self, fds_max: usize) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(WELCOME_FDS))];
        let space_bytes = if fds_max == 0 { 0 } else { space.len() };
        let mut control = RecvAncillaryBuffer::new(&mut space[..space_bytes]);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            net::recvmsg(&self.socket, &mut parts, &mut control, flags)
        })?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::TooLong);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > fds_max {
            return Err(ChannelError::Malformed("unexpected descriptors".into()));
        }
        if received.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        let message = serde_json::from_slice(&bytes[..received.bytes]).map_err(malformed)?;
        Ok((message, fds))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Takes over a connected packet socket, such as one inherited from the tap; it is made
/// non-blocking by the calls, which never wait.
impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::WouldBlock,
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            Errno::MSGSIZE => Self::TooLong,
            other => Self::Io(other.into()),
        }
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok(socket)
}

fn malformed(error: serde_json::Error) -> ChannelError {
    // The text may quote what the other side sent.
    ChannelError::Malformed(clean(&error.to_string()))
}
