//! Where the shipper connects: one at a time, known by what the kernel says about it.

use ring::Ring;
use ring::handoff::{Channel, ChannelError, Listener, PeerCredentials, ToTap, Volumes, Welcome};
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use super::account::Account;

/// The socket of a group's shipper. Nothing here waits.
#[derive(Debug)]
pub struct Port {
    path: PathBuf,
    listener: Listener,
    channel: Option<Channel>,
    admission: Admission,
}

/// Who may connect.
#[derive(Clone, Debug)]
pub enum Admission {
    /// The tap's own child, whose process id is here; zero while there is none.
    Child(Arc<AtomicI32>),
    /// Any process of root, of the tap's own user, or of the shipper's.
    Anybody(Account),
}

/// What happens at the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortEvent {
    /// A shipper has connected and got the ring.
    Connected,
    /// It said something.
    Said(ToTap),
    /// It is gone, for this reason.
    Lost(String),
}

/// Messages taken per turn: a shipper that talks without end does not stop the tap.
const MESSAGES_MAX: usize = 64;
/// Connections looked at per turn.
const ACCEPTS_MAX: usize = 4;

impl Port {
    /// Listens at `path`; the socket belongs to `account` alone, besides root.
    pub fn bind(path: &Path, admission: Admission, account: Account) -> io::Result<Self> {
        let listener = Listener::bind(path, 0o600)?;
        if rustix::process::geteuid().is_root() {
            chown(path, Some(account.uid), Some(account.gid))?;
        }
        Ok(Self {
            path: path.to_owned(),
            listener,
            channel: None,
            admission,
        })
    }

    /// Takes what has come; `welcome` is what a new shipper is told.
    pub fn turn(&mut self, ring: &Ring, welcome: impl Fn() -> Welcome) -> Vec<PortEvent> {
        let mut events = Vec::new();
        self.hear(&mut events);
        for _ in 0..ACCEPTS_MAX {
            let Ok(channel) = self.listener.accept() else {
                break;
            };
            if self.channel.is_none() && self.admits(&channel) {
                self.welcome(channel, ring, welcome(), &mut events);
            }
        }
        events
    }

    /// Whether a shipper is connected.
    pub fn is_connected(&self) -> bool {
        self.channel.is_some()
    }

    /// Tells the shipper about a changed volume table. One that cannot be told is parted with; it
    /// comes back and gets the table with its welcome.
    pub fn send_volumes(&mut self, volumes: Volumes) {
        let Some(channel) = &self.channel else { return };
        if let Err(error) = channel.send_volumes(volumes) {
            tracing::warn!(%error, "parting with a shipper that does not listen");
            self.channel = None;
        }
    }

    /// Parts with the shipper.
    pub fn disconnect(&mut self) {
        self.channel = None;
    }

    fn hear(&mut self, events: &mut Vec<PortEvent>) {
        let Some(channel) = &self.channel else { return };
        for _ in 0..MESSAGES_MAX {
            match channel.recv_from_shipper() {
                Ok(message) => events.push(PortEvent::Said(message)),
                Err(ChannelError::WouldBlock) => return,
                Err(error) => {
                    events.push(PortEvent::Lost(format!("the shipper is gone: {error}")));
                    self.channel = None;
                    return;
                }
            }
        }
    }

    fn welcome(
        &mut self,
        channel: Channel,
        ring: &Ring,
        welcome: Welcome,
        events: &mut Vec<PortEvent>,
    ) {
        let fds = match ring.consumer_fds() {
            Ok(fds) => fds,
            Err(error) => {
                tracing::error!(%error, "no descriptors for a shipper");
                return;
            }
        };
        match channel.send_welcome(welcome, &fds) {
            Ok(()) => {
                self.channel = Some(channel);
                events.push(PortEvent::Connected);
            }
            Err(error) => tracing::warn!(%error, "a shipper did not take its welcome"),
        }
    }

    fn admits(&self, channel: &Channel) -> bool {
        let Ok(peer) = channel.peer() else {
            return false;
        };
        let is_admitted = self.admission.admits(peer, Account::own().uid);
        if !is_admitted {
            tracing::warn!(
                pid = peer.pid,
                uid = peer.uid,
                "not the shipper of this tap"
            );
        }
        is_admitted
    }
}

impl Admission {
    fn admits(&self, peer: PeerCredentials, own_uid: u32) -> bool {
        match self {
            Self::Child(pid) => {
                let child = pid.load(Ordering::Acquire);
                child != 0 && peer.pid == child
            }
            Self::Anybody(account) => {
                peer.uid == 0 || peer.uid == own_uid || peer.uid == account.uid
            }
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next tap replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(pid: i32, uid: u32) -> PeerCredentials {
        PeerCredentials { pid, uid, gid: uid }
    }

    #[test]
    fn only_the_child_is_taken_for_the_shipper() {
        let child = Arc::new(AtomicI32::new(0));
        let admission = Admission::Child(Arc::clone(&child));
        assert!(!admission.admits(peer(0, 0), 0), "no child, no shipper");
        child.store(77, Ordering::Release);
        assert!(admission.admits(peer(77, 990), 0));
        assert!(!admission.admits(peer(78, 0), 0), "not even root");
    }

    #[test]
    fn an_external_shipper_is_known_by_its_user() {
        let account = Account { uid: 990, gid: 990 };
        let admission = Admission::Anybody(account);
        for (uid, admitted) in [(0, true), (990, true), (1000, true), (1001, false)] {
            assert_eq!(admission.admits(peer(5, uid), 1000), admitted, "{uid}");
        }
    }
}
