//! The io_uring of one connection: its socket, its disk, and what wakes it.
//!
//! `unsafe` because the kernel uses memory that operations name until it has answered; the language
//! cannot see that. Contract of all of it: whoever starts an operation keeps its memory where it is,
//! and touches it as the operation allows, until the answer has come. The session keeps it by ending
//! only when everything is answered, and a panic on its thread ends the process.

#![allow(unsafe_code)]

use crate::device::entry::PAUSE;
use crate::device::registered::{Area, Areas};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// What an answer arrives for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Disk,
    Pause,
    Bell,
    Received,
    Sent,
    Linger,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) source: Source,
    /// Whose, if it is the disk's.
    pub(super) tag: u16,
    pub(super) result: i32,
}

/// The io_uring.
pub(super) struct Uring {
    ring: IoUring,
}

/// A message to the client, as the kernel wants it described.
pub(super) struct Message {
    head: Box<libc::msghdr>,
    vectors: Vec<libc::iovec>,
}

const SOCKET: types::Fixed = types::Fixed(0);
/// How long a client that does not take its last answers is waited for.
static LINGER: types::Timespec = types::Timespec::new().sec(1);

impl Uring {
    /// One for `depth` operations of the disk at a time.
    pub(super) fn new(depth: u16, socket: RawFd, disk: RawFd) -> io::Result<Self> {
        let entries = (u32::from(depth) + 16).next_power_of_two();
        let ring = quick(entries).or_else(|_| IoUring::new(entries))?;
        // The disk comes second, as its operations have it.
        ring.submitter().register_files(&[socket, disk])?;
        Ok(Self { ring })
    }

    /// Whether this kernel has what we need.
    pub(super) fn probe() -> io::Result<()> {
        IoUring::new(8).map(drop)
    }

    /// Tells the kernel which memory operations of the disk will name.
    pub(super) fn register(&self, areas: &[Area]) -> Areas {
        Areas::register(&self.ring.submitter(), areas).unwrap_or_else(|error| {
            tracing::debug!(%error, "buffers are not registered; requests cost a little more");
            Areas::default()
        })
    }

    /// Starts an operation of the disk.
    pub(super) fn start(&mut self, entry: squeue::Entry, tag: u16) {
        self.push(entry, Source::Disk, tag);
    }

    /// Receives into `memory`: all of it, if `whole`, unless the client leaves.
    pub(super) fn receive(&mut self, memory: &mut [u8], whole: bool) {
        let length = u32::try_from(memory.len()).unwrap_or(u32::MAX);
        let flags = if whole { libc::MSG_WAITALL } else { 0 };
        let entry = opcode::Recv::new(SOCKET, memory.as_mut_ptr(), length).flags(flags);
        self.push(entry.build(), Source::Received, 0);
    }

    /// Sends what `message` describes, or a part of it.
    pub(super) fn send(&mut self, message: &Message) {
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry = opcode::SendMsg::new(SOCKET, &raw const *message.head).flags(flags);
        self.push(entry.build(), Source::Sent, 0);
    }

    /// Asks to be told when `bell` rings.
    pub(super) fn listen(&mut self, bell: RawFd) {
        let poll = opcode::PollAdd::new(types::Fd(bell), libc::POLLIN as u32);
        self.push(poll.build(), Source::Bell, 0);
    }

    /// Answers after a few milliseconds.
    pub(super) fn pause(&mut self) {
        let timeout = opcode::Timeout::new(&raw const PAUSE);
        self.push(timeout.build(), Source::Pause, 0);
    }

    /// Answers after as long as a client is waited for.
    pub(super) fn linger(&mut self) {
        let timeout = opcode::Timeout::new(&raw const LINGER);
        self.push(timeout.build(), Source::Linger, 0);
    }

    /// Hands over what was started, and waits for one answer at least.
    pub(super) fn wait(&mut self, answers: &mut Vec<Answer>) -> io::Result<()> {
        self.ring.submit_and_wait(1)?;
        answers.extend(self.ring.completion().map(|entry| Answer::of(&entry)));
        Ok(())
    }

    fn push(&mut self, entry: squeue::Entry, source: Source, tag: u16) {
        let entry = entry.user_data(u64::from(tag) << 8 | source as u64);
        loop {
            // SAFETY: needed because an operation may name memory. That it stays is the contract of
            // this module; what it names besides is static.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // More was started in one turn than there is room for: let the kernel have it.
            if let Err(error) = self.ring.submit() {
                let is_passing = crate::device::entry::is_passing(&error);
                assert!(is_passing, "a session's own io_uring failed: {error}");
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel takes an io_uring down in the background: the disk is let go of here.
        let submitter = self.ring.submitter();
        let _ = submitter.unregister_files();
        let _ = submitter.unregister_buffers();
    }
}

/// One that does its work in the thread that waits for it; not every kernel has it.
fn quick(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(entries)
}

impl Answer {
    fn of(entry: &cqueue::Entry) -> Self {
        let data = entry.user_data();
        let source = match data & 0xff {
            0 => Source::Disk,
            1 => Source::Pause,
            2 => Source::Bell,
            3 => Source::Received,
            4 => Source::Sent,
            5 => Source::Linger,
            other => panic!("an answer to nothing we asked ({other})"),
        };
        Self {
            source,
            tag: (data >> 8) as u16,
            result: entry.result(),
        }
    }
}

impl Message {
    pub(super) fn new() -> Self {
        // SAFETY: needed because the structure has parts no safe code can name on every platform.
        // All of it is integers and pointers, for which zero means none.
        let head = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
        Self {
            head: Box::new(head),
            vectors: Vec::new(),
        }
    }

    /// Describes `pieces`, in their order. They must stay where they are until it was sent.
    pub(super) fn describe<'p>(&mut self, pieces: impl Iterator<Item = &'p [u8]>) {
        self.vectors.clear();
        self.vectors.extend(pieces.map(|piece| libc::iovec {
            iov_base: piece.as_ptr().cast_mut().cast(),
            iov_len: piece.len(),
        }));
        self.head.msg_iov = self.vectors.as_mut_ptr();
        self.head.msg_iovlen = self.vectors.len() as _;
    }
}
