//! A client of the test's own, which can misbehave.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection past its haggling.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    is_structured: bool,
    next: u64,
    /// Reads not yet answered, and their lengths.
    reads: HashMap<u64, u32>,
}

/// An answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) cookie: u64,
    pub(super) error: u32,
    pub(super) data: Vec<u8>,
}

pub(super) const READ: u16 = 0;
pub(super) const WRITE: u16 = 1;
pub(super) const DISC: u16 = 2;
pub(super) const FLUSH: u16 = 3;
pub(super) const TRIM: u16 = 4;
pub(super) const ZEROES: u16 = 6;
pub(super) const STATUS: u16 = 7;
pub(super) const FUA: u16 = 1;

pub(super) const EINVAL: u32 = 22;
pub(super) const ENOSPC: u32 = 28;
pub(super) const ESHUTDOWN: u32 = 108;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    /// Connects and comes to terms: the modern ones, or the oldest.
    pub(super) fn connect(path: &Path, is_structured: bool) -> Self {
        Self::try_connect(path, is_structured).expect("it is taken")
    }

    pub(super) fn try_connect(path: &Path, is_structured: bool) -> std::io::Result<Self> {
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.read_exact(&mut [0; 18])?;
        let mut said = 3_u32.to_be_bytes().to_vec();
        let mut option = |number: u32, data: &[u8]| {
            said.extend(b"IHAVEOPT");
            said.extend(number.to_be_bytes());
            said.extend((data.len() as u32).to_be_bytes());
            said.extend(data);
        };
        let answer_bytes = if is_structured {
            option(8, &[]);
            let mut contexts = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15];
            contexts.extend(b"base:allocation");
            option(10, &contexts);
            option(7, &[0; 6]);
            20 + (20 + 19) + 20 + (20 + 12) + (20 + 14) + 20
        } else {
            option(1, b"data");
            10
        };
        socket.write_all(&said)?;
        socket.read_exact(&mut vec![0; answer_bytes])?;
        Ok(Self {
            socket,
            is_structured,
            next: 1,
            reads: HashMap::new(),
        })
    }

    /// Asks; the cookie of the answer to come.
    pub(super) fn ask(&mut self, what: (u16, u16), at: u64, length: u32, payload: &[u8]) -> u64 {
        let asked = self.try_ask(what, at, length, payload);
        asked.expect("it listens")
    }

    pub(super) fn try_ask(
        &mut self,
        what: (u16, u16),
        at: u64,
        length: u32,
        payload: &[u8],
    ) -> std::io::Result<u64> {
        let (command, flags) = what;
        let cookie = self.next;
        self.next += 1;
        if command == READ {
            self.reads.insert(cookie, length);
        }
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(at.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(payload);
        self.socket.write_all(&bytes)?;
        Ok(cookie)
    }

    pub(super) fn ask_write(&mut self, at: u64, bytes: &[u8]) -> u64 {
        self.ask((WRITE, 0), at, bytes.len() as u32, bytes)
    }

    /// The next answer.
    pub(super) fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer comes")
    }

    pub(super) fn try_answer(&mut self) -> std::io::Result<Answer> {
        let magic = u32::from_be_bytes(self.bytes()?);
        if magic == 0x6744_6698 {
            let error = u32::from_be_bytes(self.bytes()?);
            let cookie = u64::from_be_bytes(self.bytes()?);
            let read = self.reads.remove(&cookie).filter(|_| error == 0);
            assert!(!self.is_structured || read.is_none(), "in a chunk, please");
            let data = self.take(read.unwrap_or_default())?;
            return Ok(Answer {
                cookie,
                error,
                data,
            });
        }
        assert_eq!(magic, 0x668e_33ef, "nothing else is an answer");
        assert!(self.is_structured);
        let flags = u16::from_be_bytes(self.bytes()?);
        let kind = u16::from_be_bytes(self.bytes()?);
        let cookie = u64::from_be_bytes(self.bytes()?);
        let length = u32::from_be_bytes(self.bytes()?);
        assert_eq!(flags, 1, "one chunk each");
        let mut data = self.take(length)?;
        let read = self.reads.remove(&cookie);
        let error = match kind {
            0x8001 => u32::from_be_bytes(data[..4].try_into().expect("four bytes")),
            _ => 0,
        };
        if kind == 1 {
            data.drain(..8);
            assert_eq!(Some(data.len() as u32), read, "all that was asked for");
        }
        Ok(Answer {
            cookie,
            error,
            data,
        })
    }

    /// Asks, and waits for the answer.
    pub(super) fn call(
        &mut self,
        what: (u16, u16),
        at: u64,
        length: u32,
        payload: &[u8],
    ) -> Answer {
        let cookie = self.ask(what, at, length, payload);
        let answer = self.answer();
        assert_eq!(answer.cookie, cookie, "nothing else was asked");
        answer
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        let answer = self.call((WRITE, 0), at, bytes.len() as u32, bytes);
        assert_eq!(answer.error, 0);
    }

    pub(super) fn read(&mut self, at: u64, length: u32) -> Vec<u8> {
        let answer = self.call((READ, 0), at, length, &[]);
        assert_eq!(answer.error, 0);
        answer.data
    }

    /// Whether the connection ends, with nothing said before.
    pub(super) fn is_left(&mut self) -> bool {
        !matches!(self.socket.read(&mut [0; 1]), Ok(1..))
    }

    fn bytes<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, length: u32) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
