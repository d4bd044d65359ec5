//! The command line's end of the control socket.

use super::line::{Lines, RESPONSE_BYTES_MAX};
use super::message::{Request, Response};
use crate::failure::{Exit, Failure};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a verb may take: `hold` waits for the running step.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection to the running daemon. A hold lasts as long as it.
#[derive(Debug)]
pub struct Client {
    lines: Lines,
}

/// Why the daemon gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens there.
    #[error("the receiver is not running")]
    NotRunning,
    /// The socket may not be opened.
    #[error("no permission for the receiver's control socket; run as root or as its user")]
    Permission,
    /// The daemon did not answer in time.
    #[error("the receiver did not answer within {} s; see its log", ANSWER_TIMEOUT.as_secs())]
    Silent,
    /// The connection ended, or said something else.
    #[error("the receiver's control socket failed: {0}")]
    Failed(io::Error),
}

impl Client {
    /// Connects to the daemon, if one runs.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let socket = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
            io::ErrorKind::PermissionDenied => ClientError::Permission,
            _ => ClientError::Failed(error),
        })?;
        let lines = Lines::new(socket, RESPONSE_BYTES_MAX).map_err(ClientError::Failed)?;
        Ok(Self { lines })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        self.lines.send(request).map_err(ClientError::Failed)?;
        let until = Instant::now() + ANSWER_TIMEOUT;
        match self.lines.receive(Some(until)) {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(ClientError::Failed(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(ClientError::Silent),
            Err(error) => Err(ClientError::Failed(error)),
        }
    }
}
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NotRunning | ClientError::Silent => Exit::Unreachable,
            ClientError::Permission => Exit::Privilege,
            ClientError::Failed(_) => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}
