//! The command line's end of the socket.

use super::line;
use super::message::{Reply, Request};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to a group's tap: good for one request.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
}

/// Why the tap gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No tap listens there.
    #[error("the tap of this group is not running")]
    NotRunning,
    /// The socket may not be opened, or the tap turned us away.
    #[error("no permission for the tap's control socket; run as root")]
    Permission,
    /// The tap did not answer in time.
    #[error("the tap did not answer within {} s; see its log", .0.as_secs())]
    Silent(Duration),
    /// The tap ended before it answered.
    #[error("the tap ended before it answered; see its log")]
    Ended,
    /// The connection failed, or said something else.
    #[error("the tap's control socket failed: {0}")]
    Failed(io::Error),
}

impl Client {
    /// Connects to the tap, if one runs.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        match UnixStream::connect(path) {
            Ok(socket) => Ok(Self { socket }),
            Err(error) => Err(match error.kind() {
                NotFound | ConnectionRefused => ClientError::NotRunning,
                PermissionDenied => ClientError::Permission,
                _ => ClientError::Failed(error),
            }),
        }
    }

    /// Asks, and waits for the answer.
    pub fn ask(self, request: &Request, within: Duration) -> Result<Reply, ClientError> {
        let sent = line::send(&self.socket, request);
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(ClientError::Failed(error));
        }
        match line::receive(&self.socket, within) {
            Ok(Some(Reply::Ending) | None) => Err(ClientError::Ended),
            Ok(Some(reply)) => Ok(reply),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::TimedOut => ClientError::Silent(within),
                io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => ClientError::Ended,
                _ => ClientError::Failed(error),
            }),
        }
    }
}
