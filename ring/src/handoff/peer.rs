//! Who is at the other end of a Unix socket.
//!
//! A peer outside our process id namespace has the id 0, which rustix's type for it cannot hold. So
//! the kernel is asked by hand; the reason for the `unsafe` in here.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Who is at the other end, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its process; zero for one that has no id here.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl PeerCredentials {
    /// Those of the other end of `socket`, as of when it connected or listened.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut found = libc::ucred {
            pid: 0,
            uid: u32::MAX,
            gid: u32::MAX,
        };
        let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: both pointers are to locals that live through the call; the kernel writes at most
        // `bytes` bytes of the structure, which is three integers that may have any value.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut found).cast(),
                &raw mut bytes,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let libc::ucred { pid, uid, gid } = found;
        Ok(Self { pid, uid, gid })
    }

    /// Its process, if it has an id here.
    pub fn process(&self) -> Option<i32> {
        (self.pid > 0).then_some(self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_kernel_says_who_it_is() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = PeerCredentials::of(&one).unwrap();
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert_eq!(peer.process(), Some(own));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    }

    #[test]
    fn a_peer_without_a_process_id_here_is_nobody_in_particular() {
        // What the kernel says of a socket nobody is at the other end of is what it says of a peer
        // in another namespace of process ids.
        let (uid, gid) = (0, 0);
        assert_eq!(PeerCredentials { pid: 0, uid, gid }.process(), None);
        let alone = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(PeerCredentials::of(&alone).unwrap().process(), None);
    }
}
