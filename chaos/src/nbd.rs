//! A client of the fixed newstyle protocol with simple replies: one connection, many requests on it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Data back.
    Read,
    /// Data, which is to be durable before the answer or not.
    Write {
        /// With FUA.
        durable: bool,
    },
    /// What was answered is to be durable.
    Flush,
    /// Give back.
    Trim,
    /// Zeroes.
    Zeroes,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which request.
    pub cookie: u64,
    /// None, or a number of the protocol.
    pub error: u32,
}

/// A connection past its haggling.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
}

/// The server hangs up because it ends.
pub const ESHUTDOWN: u32 = 108;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const FLAG_FUA: u16 = 1;
const OPTION_EXPORT_NAME: u32 = 1;
const CLIENT_FLAGS: u32 = 3;
/// Magics and flags of the server.
const GREETING_BYTES: usize = 18;
/// Size and flags of the export.
const EXPORT_BYTES: usize = 10;

impl Client {
    /// Connects to the default export at `path`. Nothing on it takes longer than `patience`.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        socket.read_exact(&mut [0; GREETING_BYTES])?;
        let mut said = CLIENT_FLAGS.to_be_bytes().to_vec();
        said.extend(b"IHAVEOPT");
        said.extend(OPTION_EXPORT_NAME.to_be_bytes());
        said.extend(0_u32.to_be_bytes());
        socket.write_all(&said)?;
        socket.read_exact(&mut [0; EXPORT_BYTES])?;
        Ok(Self { socket })
    }

    /// Asks.
    pub fn ask(
        &mut self,
        cookie: u64,
        command: Command,
        (offset_bytes, length_bytes): (u64, u32),
        payload: &[u8],
    ) -> io::Result<()> {
        let (number, flags): (u16, u16) = match command {
            Command::Read => (0, 0),
            Command::Write { durable: false } => (1, 0),
            Command::Write { durable: true } => (1, FLAG_FUA),
            Command::Flush => (3, 0),
            Command::Trim => (4, 0),
            Command::Zeroes => (6, 0),
        };
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(number.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset_bytes.to_be_bytes());
        bytes.extend(length_bytes.to_be_bytes());
        bytes.extend(payload);
        self.socket.write_all(&bytes)
    }

    /// The next answer; what a good one to a read brings is to be taken before the next.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let magic = u32::from_be_bytes(self.take()?);
        if magic != REPLY_MAGIC {
            return Err(io::Error::other(format!("{magic:#x} is no reply")));
        }
        let error = u32::from_be_bytes(self.take()?);
        let cookie = u64::from_be_bytes(self.take()?);
        Ok(Answer { cookie, error })
    }

    /// The data of a read.
    pub fn data(&mut self, length_bytes: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length_bytes];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
