//! The network between shipper and receiver, at the level of QUIC's streams: control messages come
//! in order, batches in any; both may be late, and a connection may break, on both ends at
//! different times. What a datagram network does below is a matter of time here.

use super::World;
use super::events::Event;
use crate::faults::{MS, S};
use crate::probes::Probe;
use bytes::Bytes;
use receiver::serve::group::SessionId;
use std::collections::BTreeMap;
use wire::control::{Control, FRAME_HEADER_BYTES, FrameHeader};

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    /// The handshake is done.
    Connected,
    /// A control message.
    Control(Control),
    /// A batch.
    Batch(Bytes),
    /// The transport has delivered so many bytes of records.
    Delivered(u64),
    /// The connection is over.
    Lost(String),
}

/// Connections and what is wrong with the network.
#[derive(Default)]
pub(super) struct Links {
    /// Those whose ends have not both gone.
    pub(super) open: BTreeMap<u64, Link>,
    next: u64,
    /// Nothing reaches the receiver before then.
    pub(super) mute_ns: u64,
    /// Nothing reaches the source before then.
    pub(super) deaf_ns: u64,
    /// The next batch is damaged.
    pub(super) damages: bool,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The session it carries.
    pub(super) session: Option<SessionId>,
    /// The number batches of it carry.
    pub(super) number: u64,
    /// It is over: what still comes is of no session.
    pub(super) is_broken: bool,
    to_receiver_ns: u64,
    to_source_ns: u64,
    newest_batch_ns: u64,
}

impl World {
    fn way(&mut self) -> u64 {
        self.mix.way_ns + self.dice.roll(self.mix.jitter_ns)
    }

    /// The shipper wants a connection.
    pub(super) fn connect(&mut self) {
        self.links.next += 1;
        let link = self.links.next;
        let Some(shipper) = self.shipper() else {
            return;
        };
        shipper.link = Some(link);
        self.links.open.insert(link, Link::default());
        let now = self.clock.now_ns;
        let blocked = self
            .links
            .mute_ns
            .max(self.links.deaf_ns)
            .saturating_sub(now);
        if blocked > 5 * S || !self.site.is_up() {
            let wait = if self.site.is_up() { 5 * S } else { self.way() };
            let mail = Mail::Lost("no connection came about".into());
            return self.after(wait, Event::ToSource { link, mail });
        }
        let wait = blocked + 2 * self.way();
        let mail = Mail::Connected;
        self.after(wait, Event::ToSource { link, mail });
    }

    /// The shipper ends its connection; what was sent before may still arrive.
    pub(super) fn hang_up(&mut self, reason: &str) {
        let Some(link) = self.shipper().and_then(|shipper| shipper.link.take()) else {
            return;
        };
        self.line(|| format!("shipper: closes link {link}: {reason}"));
        self.tell_receiver(link, Mail::Lost("closed".into()));
    }

    /// The connection breaks: each end hears of it sometime.
    pub(super) fn break_link(&mut self, link: u64, tells_source: bool) {
        let Some(open) = self.links.open.get_mut(&link) else {
            return;
        };
        open.is_broken = true;
        let (first, second) = (self.dice.roll(300 * MS), self.dice.roll(300 * MS));
        let mail = Mail::Lost("the connection broke".into());
        self.after(
            first,
            Event::ToReceiver {
                link,
                mail: mail.clone(),
            },
        );
        if tells_source {
            self.after(second, Event::ToSource { link, mail });
        }
    }

    /// A message of the control stream, in order.
    pub(super) fn tell_receiver(&mut self, link: u64, mail: Mail) {
        let way = self.way();
        let at = (self.clock.now_ns + way).max(self.links.mute_ns + self.mix.way_ns);
        let Some(open) = self.links.open.get_mut(&link) else {
            return;
        };
        if open.is_broken && !matches!(mail, Mail::Lost(_)) {
            return;
        }
        open.to_receiver_ns = at.max(open.to_receiver_ns + 1);
        let wait = open.to_receiver_ns - self.clock.now_ns;
        self.after(wait, Event::ToReceiver { link, mail });
    }

    /// The same the other way.
    pub(super) fn tell_source(&mut self, link: u64, mail: Mail) {
        let way = self.way();
        let at = (self.clock.now_ns + way).max(self.links.deaf_ns + self.mix.way_ns);
        let Some(open) = self.links.open.get_mut(&link) else {
            return;
        };
        if open.is_broken {
            return;
        }
        open.to_source_ns = at.max(open.to_source_ns + 1);
        let wait = open.to_source_ns - self.clock.now_ns;
        self.after(wait, Event::ToSource { link, mail });
    }

    /// A batch: a stream of its own, so it comes when it comes, perhaps twice, perhaps damaged.
    pub(super) fn send_batch(&mut self, link: u64, mut bytes: Bytes, record_bytes: u64) {
        let now = self.clock.now_ns;
        let blocked = self.links.mute_ns.saturating_sub(now);
        let wait = blocked + self.way();
        let back = self.way() + self.links.deaf_ns.saturating_sub(now + wait);
        let Some(open) = self.links.open.get_mut(&link) else {
            return;
        };
        if open.is_broken {
            return;
        }
        if now + wait < open.newest_batch_ns {
            self.reached.reach(Probe::BatchesReordered);
        }
        open.newest_batch_ns = open.newest_batch_ns.max(now + wait);
        if std::mem::take(&mut self.links.damages) {
            let mut bad = bytes.to_vec();
            let bit = self.dice.roll(bad.len() as u64 * 8) as usize;
            bad[bit / 8] ^= 1 << (bit % 8);
            bytes = bad.into();
        }
        if self.dice.permille(self.mix.twice_permille) {
            let late = wait + self.dice.roll(500 * MS);
            let mail = Mail::Batch(bytes.clone());
            self.reached.reach(Probe::BatchTwice);
            self.after(late, Event::ToReceiver { link, mail });
        }
        let mail = Mail::Batch(bytes);
        self.after(wait, Event::ToReceiver { link, mail });
        let mail = Mail::Delivered(record_bytes);
        self.after(wait + back, Event::ToSource { link, mail });
    }
}

/// A message as the other end reads it off the wire.
pub(super) fn over_the_wire(message: &Control) -> Result<Control, String> {
    let frame = message.to_frame();
    let head = frame.first_chunk::<FRAME_HEADER_BYTES>();
    let head = head.ok_or("a frame without a header")?;
    let head = FrameHeader::parse(head).map_err(|error| error.to_string())?;
    let body = &frame[FRAME_HEADER_BYTES..];
    if body.len() != head.body_bytes as usize {
        return Err("a frame of another length than it says".into());
    }
    let parsed = Control::parse(head.code, body).map_err(|error| error.to_string())?;
    match parsed == *message {
        true => Ok(parsed),
        false => Err(format!("{message:?} is read as {parsed:?}")),
    }
}
