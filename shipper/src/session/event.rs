//! What goes into a session and what comes out.

use ring::handoff::ToTap;
use std::time::Duration;
use wire::control::Control;
use wire::{Generation, Incarnation, Name, RecordHeader, Stamp, TimeMark, VolumeSpec};

/// What a session is about; fixed for the life of a ring.
#[derive(Clone, Debug)]
pub struct Config {
    /// This host's name at the receiver.
    pub source: Name,
    /// The group.
    pub group: Name,
    /// The life of the ring.
    pub incarnation: Incarnation,
    /// Records the ring can hold.
    pub ring_slots: u32,
    /// The generation known so far; all zero when none is.
    pub generation: Generation,
    /// The volumes of the group.
    pub volumes: Vec<VolumeSpec>,
    /// What an earlier shipper of this ring has acknowledged to the tap.
    pub acked: Stamp,
    /// The newest stamp claimed so far: an earlier shipper cannot have sent more.
    pub captured: Stamp,
    /// The receiver's address, for reports.
    pub peer: String,
    /// Seed of the jitter in waits.
    pub seed: u64,
}

/// When something happens: clocks first, then the state of the ring, read in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// Monotonic time since some start.
    pub elapsed: Duration,
    /// The host's clock.
    pub wall: TimeMark,
    /// The newest stamp claimed in the ring, read after the clocks.
    pub captured: Stamp,
    /// The tap has given the stream up: writes go on that the ring never sees.
    pub is_closed: bool,
}

/// What happened. Events of a connection that was closed must not be passed on.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The handshake is done and the control stream is open.
    Connected,
    /// No connection came about, or it ended.
    Lost(Loss),
    /// The receiver said something.
    Control(Control),
    /// Records found in the ring after [`Session::reading`], with the marks the tap noted and
    /// without checksums.
    Filled(&'a [RecordHeader]),
    /// The disk has answered up to here, looking after [`Session::settling`]; `voids` with errors.
    Settled {
        /// Where the look ended.
        upto: Stamp,
        /// The void stamps seen on the way, ascending.
        voids: &'a [Stamp],
    },
    /// The transport has delivered a batch.
    Delivered {
        /// Its records and headers, in bytes.
        bytes: u64,
    },
    /// The ring no longer holds what was to be read next.
    Recycled {
        /// The newest stamp that is gone.
        freed: Stamp,
    },
    /// The tap announces its volumes.
    Volumes(Vec<VolumeSpec>),
    /// The tap is gone: nothing new will come, and its silence proves nothing.
    TapGone,
    /// The shipper stops.
    Stop,
    /// Time has passed.
    Tick,
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The receiver was reached, and an identity stands in the way.
    pub is_refusal: bool,
    /// In words.
    pub reason: String,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Connect to the receiver and open the control stream.
    Connect,
    /// Send a message on the control stream.
    Send(Control),
    /// Send records as one batch.
    Batch(Batch),
    /// Close the connection, or stop making it; what was sent before may still leave.
    Close(String),
    /// Write the ring's sent cursor.
    Sent(Stamp),
    /// Write the ring's acked cursor.
    Acked(Stamp),
    /// Tell the tap.
    Tell(ToTap),
}

/// Records that travel together: their headers with final marks, still without checksums.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The session they belong to.
    pub session: u64,
    /// Contiguous records.
    pub records: Vec<RecordHeader>,
}

impl Batch {
    /// Bytes of headers and payloads.
    pub fn bytes(&self) -> u64 {
        let size = |header: &RecordHeader| {
            wire::RECORD_HEADER_BYTES as u64 + u64::from(header.payload_bytes)
        };
        self.records.iter().map(size).sum()
    }
}
