//! One line of JSON, bounded, over a Unix socket.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest request, in bytes: a volume with the most targets at the longest paths.
pub const REQUEST_BYTES_MAX: usize = 128 << 10;
/// Longest response, in bytes: the status of the most groups with the most volumes.
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// How often a waiting reader looks whether it should stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A socket that carries lines.
#[derive(Debug)]
pub(super) struct Lines {
    socket: UnixStream,
    /// Read, but after the last line given out.
    ahead: Vec<u8>,
    /// So many bytes of that hold no end of a line.
    searched: usize,
    line_bytes_max: usize,
}

impl Lines {
    /// Lines over `socket`; those read have at most `line_bytes_max` bytes.
    pub(super) fn new(socket: UnixStream, line_bytes_max: usize) -> io::Result<Self> {
        socket.set_read_timeout(Some(LOOK_INTERVAL))?;
        socket.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            socket,
            ahead: Vec::new(),
            searched: 0,
            line_bytes_max,
        })
    }

    /// The next line without its end; `None` when the peer has hung up.
    pub(super) fn read(
        &mut self,
        until: Option<Instant>,
        stop: impl Fn() -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.next_line() {
                return Ok(Some(line));
            }
            if self.ahead.len() > self.line_bytes_max {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
            }
            if stop() || until.is_some_and(|until| Instant::now() >= until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut chunk = [0; 16 << 10];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.ahead.extend_from_slice(&chunk[..count]),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the first line of what was read ahead.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let found = self.ahead[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(end) = found.map(|end| self.searched + end) else {
            self.searched = self.ahead.len();
            return None;
        };
        let mut line: Vec<u8> = self.ahead.drain(..=end).collect();
        line.pop();
        self.searched = 0;
        Some(line)
    }

    /// The next line as a message.
    pub(super) fn receive<T: DeserializeOwned>(
        &mut self,
        until: Option<Instant>,
    ) -> io::Result<Option<T>> {
        let line = self.read(until, || false)?;
        line.map(|line| Ok(serde_json::from_slice(&line)?))
            .transpose()
    }

    /// Sends a message as a line.
    pub(super) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.socket.write_all(&line)
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
