//! One line of JSON, bounded, over a Unix socket.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest line either way, in bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// How often a waiting reader looks whether it should stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A socket that carries lines.
#[derive(Debug)]
pub(super) struct Lines {
    socket: UnixStream,
    /// Read, but after the last line given out.
    ahead: Vec<u8>,
}

impl Lines {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(LOOK_INTERVAL))?;
        socket.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            socket,
            ahead: Vec::new(),
        })
    }

    /// The next line without its end; `None` when the peer has hung up.
    pub(super) fn read(
        &mut self,
        until: Option<Instant>,
        stop: impl Fn() -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.ahead.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.ahead.len() > LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
            }
            if stop() || until.is_some_and(|until| Instant::now() >= until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.ahead.extend_from_slice(&chunk[..count]),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
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
