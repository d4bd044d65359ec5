//! A source: tap, ring and shipper of one group, with real contents and a lossy way to the site.

use super::site::{BLOCK_BYTES, BLOCKS, Batch, Image, VOLUMES, hello_of, payload, spec};
use crate::serve::group::SessionId;
use bytes::Bytes;
use std::collections::BTreeMap;
use wire::control::{Ack, Control, Heartbeat, HelloAck};
use wire::{
    Incarnation, Member, MemberAction, RecordHeader, RecordKind, SettleMark, Stamp, TimeMark,
    VolumeIndex,
};

const RING_SLOTS: usize = 16;

/// Where the source stands with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// It has to join.
    Out,
    /// Being copied: so many blocks have been captured.
    Copying(usize),
    In,
    /// It left there.
    Resting(Incarnation, Stamp),
}

#[derive(Clone, Debug)]
struct Captured {
    header: RecordHeader,
    payload: Bytes,
    void: bool,
}

/// A session as the shipper sees it.
#[derive(Clone, Debug)]
struct Link {
    id: SessionId,
    /// Up to here records have been sent in it.
    sent: usize,
    settle_sent: usize,
    last_ack: Ack,
    up: bool,
}

/// The source.
pub(super) struct Source {
    pub(super) truth: Image,
    /// Truth after each record, of every incarnation.
    pub(super) history: BTreeMap<u64, Vec<Image>>,
    /// Truth after each record, and its mark.
    marked: Vec<(u64, Image)>,
    pub(super) sides: [Side; VOLUMES],
    pub(super) now: Incarnation,
    records: Vec<Captured>,
    settled: usize,
    acked: usize,
    given_up: bool,
    /// Blocks whose write was refused, to be read again.
    rereads: [[bool; BLOCKS]; VOLUMES],
    value: u32,
    clock: u64,
    link: Option<Link>,
    pub(super) batches: Vec<(SessionId, Batch)>,
    pub(super) marks: Vec<(SessionId, SettleMark)>,
}

impl Source {
    pub(super) fn new() -> Self {
        let truth = [[1; BLOCKS]; VOLUMES];
        let now = Incarnation {
            counter: 1,
            id: 101,
        };
        Self {
            truth,
            history: BTreeMap::from([(1, vec![truth])]),
            marked: vec![(0, truth)],
            sides: [Side::Out; VOLUMES],
            now,
            records: Vec::new(),
            settled: 0,
            acked: 0,
            given_up: false,
            rereads: [[false; BLOCKS]; VOLUMES],
            value: 2,
            clock: 0,
            link: None,
            batches: Vec::new(),
            marks: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.records.len() - self.acked >= RING_SLOTS
    }

    /// Captures a record; false if there is no room for it, or the stream was given up.
    fn capture(
        &mut self,
        kind: RecordKind,
        place: (usize, usize),
        bytes: Bytes,
        void: bool,
    ) -> bool {
        if self.is_full() || self.given_up {
            return false;
        }
        let (volume, block) = place;
        let ranged = matches!(
            kind,
            RecordKind::Write | RecordKind::Copy | RecordKind::Zero
        );
        self.clock += 10;
        let header = RecordHeader {
            kind,
            fua: false,
            volume: VolumeIndex(volume as u16),
            stamp: Stamp(self.records.len() as u64 + 1),
            mark: TimeMark(self.clock),
            offset_bytes: if ranged {
                block as u64 * BLOCK_BYTES
            } else {
                0
            },
            length_bytes: if ranged { BLOCK_BYTES as u32 } else { 0 },
            payload_bytes: bytes.len() as u32,
            incarnation_id: self.now.id,
            checksum: 0,
        };
        let header = header.sealed(&bytes);
        self.records.push(Captured {
            header,
            payload: bytes,
            void,
        });
        let truth = self.truth;
        self.marked.push((self.clock, truth));
        self.history.get_mut(&self.now.counter).unwrap().push(truth);
        true
    }

    fn member(&mut self, volume: usize, action: MemberAction) -> bool {
        let bytes = Bytes::from(
            Member {
                action,
                spec: spec(volume),
            }
            .to_bytes(),
        );
        self.capture(RecordKind::Member, (volume, 0), bytes, false)
    }

    /// The application writes; with `refused` the disk answers with an error, having done some
    /// of it or nothing.
    pub(super) fn write(&mut self, volume: usize, block: usize, refused: bool) {
        if matches!(self.sides[volume], Side::Resting(..)) {
            return;
        }
        if self.sides[volume] == Side::Out && !self.given_up {
            // A device takes no write before its volume has joined.
            self.copy(volume);
        }
        let zero = self.value.is_multiple_of(5);
        self.value += 1;
        let value = if zero { 0 } else { self.value };
        if !refused {
            self.truth[volume][block] = value;
        } else if self.value.is_multiple_of(2) {
            self.truth[volume][block] = value | 1 << 30;
        }
        let kind = if zero {
            RecordKind::Zero
        } else {
            RecordKind::Write
        };
        let bytes = if zero { Bytes::new() } else { payload(value) };
        if !self.capture(kind, (volume, block), bytes, refused) {
            // The ring is full: the stream is given up, the application goes on.
            self.give_up();
        } else {
            self.rereads[volume][block] = refused;
        }
    }

    /// A block whose write was refused is read again.
    pub(super) fn reread(&mut self, volume: usize) {
        let Some(block) = self.rereads[volume].iter().position(|due| *due) else {
            return;
        };
        let bytes = payload(self.truth[volume][block]);
        if self.capture(RecordKind::Copy, (volume, block), bytes, false) {
            self.rereads[volume][block] = false;
        }
    }

    fn give_up(&mut self) {
        self.given_up = true;
        self.rereads = [[false; BLOCKS]; VOLUMES];
        for side in &mut self.sides {
            if !matches!(side, Side::Resting(..)) {
                *side = Side::Out;
            }
        }
    }

    /// One step of a copy: joins, copies a block, is ready.
    pub(super) fn copy(&mut self, volume: usize) {
        if self.given_up {
            self.reopen();
            return;
        }
        let (next, captured) = match self.sides[volume] {
            Side::Out => (Side::Copying(0), self.member(volume, MemberAction::Join)),
            Side::Copying(BLOCKS) => (Side::In, self.member(volume, MemberAction::Ready)),
            Side::Copying(block) => {
                let bytes = payload(self.truth[volume][block]);
                let captured = self.capture(RecordKind::Copy, (volume, block), bytes, false);
                (Side::Copying(block + 1), captured)
            }
            Side::In | Side::Resting(..) => return,
        };
        if captured {
            self.sides[volume] = next;
        }
    }

    fn reopen(&mut self) {
        let drained = self.records.len() - self.acked <= RING_SLOTS / 4;
        if drained {
            self.given_up = false;
            let reason = Bytes::from(wire::member::gap_payload("ring full"));
            self.capture(RecordKind::Gap, (0, 0), reason, false);
        }
    }

    pub(super) fn recopy(&mut self, volume: usize) {
        if !matches!(self.sides[volume], Side::Resting(..))
            && self.member(volume, MemberAction::Join)
        {
            self.sides[volume] = Side::Copying(0);
        }
    }

    /// Everything stops cleanly, if it can, and starts again.
    pub(super) fn restart_cleanly(&mut self) {
        let ready = self
            .sides
            .iter()
            .all(|side| matches!(side, Side::In | Side::Resting(..)));
        let room = self.records.len() - self.acked + VOLUMES <= RING_SLOTS;
        let drained = self.acked == self.records.len();
        let read = !self.rereads.iter().flatten().any(|due| *due);
        if !ready || self.given_up || !room || !drained || !read {
            return;
        }
        for volume in 0..VOLUMES {
            if self.sides[volume] == Side::In && self.member(volume, MemberAction::Leave) {
                let stamp = Stamp(self.records.len() as u64);
                self.sides[volume] = Side::Resting(self.now, stamp);
            }
        }
    }

    /// The host goes down and comes up: clean marks count, everything else is copied again. A write
    /// that left no record may be on a disk that was tapped.
    pub(super) fn crash(&mut self, silent: Option<(usize, usize)>) {
        let tapped = self.sides.map(|side| !matches!(side, Side::Resting(..)));
        let drained = self.acked == self.records.len();
        for side in &mut self.sides {
            // A clean mark is only written when all has been acknowledged.
            if !drained || !matches!(side, Side::Resting(..)) {
                *side = Side::Out;
            }
        }
        if let Some((volume, block)) = silent
            && self.sides[volume] == Side::Out
            && tapped[volume]
        {
            self.value += 1;
            self.truth[volume][block] = self.value;
        }
        let counter = self.now.counter + 1;
        self.now = Incarnation {
            counter,
            id: u128::from(counter) + 100,
        };
        self.history.insert(counter, vec![self.truth]);
        self.records.clear();
        self.rereads = [[false; BLOCKS]; VOLUMES];
        (self.settled, self.acked, self.given_up) = (0, 0, false);
        self.hang_up();
        for volume in 0..VOLUMES {
            if let Side::Resting(incarnation, stamp) = self.sides[volume] {
                self.member(volume, MemberAction::Continue { incarnation, stamp });
                self.sides[volume] = Side::In;
            }
        }
    }

    /// Another host's clock shows this: so does this one's.
    pub(super) fn synchronise(&mut self, clock: u64) {
        self.clock = self.clock.max(clock);
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    /// The clock jumps.
    pub(super) fn skip_clock(&mut self, ns: u64) {
        self.clock += ns;
    }

    /// The disk answers for some more.
    pub(super) fn settle(&mut self, count: usize) {
        self.settled = (self.settled + count).min(self.records.len());
    }

    /// A new session; what was on its way in the old one may still arrive.
    pub(super) fn dial(&mut self, id: SessionId) -> wire::control::Hello {
        let link = Link {
            id,
            sent: 0,
            settle_sent: 0,
            last_ack: Ack::default(),
            up: false,
        };
        self.link = Some(link);
        hello_of(self.now, self.acked as u64 + 1, self.records.len() as u64)
    }

    pub(super) fn hang_up(&mut self) {
        self.link = None;
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.up)
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.link.as_ref().map(|link| link.id)
    }

    /// Puts the next records and settle marks on their way.
    pub(super) fn send(&mut self, count: usize) {
        let Some(link) = self.link.as_mut().filter(|link| link.up) else {
            return;
        };
        let end = (link.sent + count).min(self.records.len());
        if end > link.sent {
            let records = self.records[link.sent..end].iter();
            let batch = records
                .map(|record| (record.header, record.payload.clone()))
                .collect();
            self.batches.push((link.id, batch));
            link.sent = end;
        }
        let upto = self.settled.min(link.sent);
        if upto > link.settle_sent {
            let voids = (link.settle_sent..upto).filter(|at| self.records[*at].void);
            let mark = SettleMark {
                after: Stamp(link.settle_sent as u64),
                upto: Stamp(upto as u64),
                voids: voids.map(|at| Stamp(at as u64 + 1)).collect(),
            };
            self.marks.push((link.id, mark));
            link.settle_sent = upto;
        }
    }

    /// A sign of life: the clock, then the claim cursor.
    pub(super) fn beat(&mut self) -> Option<(SessionId, Heartbeat)> {
        let link = self.link.as_ref().filter(|link| link.up)?;
        if self.given_up {
            // Writes go on that no record tells of: nothing is promised.
            return None;
        }
        self.clock += 10;
        let (clock, captured) = (TimeMark(self.clock), self.captured());
        Some((link.id, Heartbeat { clock, captured }))
    }

    /// The receiver has said something.
    pub(super) fn hear(&mut self, id: SessionId, control: &Control) {
        let Some(link) = self.link.as_mut().filter(|link| link.id == id) else {
            return;
        };
        match control {
            Control::HelloAck(ack) => self.hear_hello(ack.clone()),
            Control::Ack(ack) => {
                check_ack(link, ack);
                link.last_ack = *ack;
                let acked = ack.durable.min(ack.settled).0 as usize;
                self.acked = self.acked.max(acked);
            }
            Control::CopyWanted(wanted) => {
                for volume in 0..VOLUMES {
                    let one = wanted
                        .volume
                        .is_none_or(|index| usize::from(index.0) == volume);
                    if one && self.sides[volume] == Side::In {
                        self.sides[volume] = Side::Out;
                    }
                }
            }
            Control::Refusal(refusal) => panic!("refused: {}", refusal.text),
            other => assert!(matches!(other, Control::Notice(_)), "{other:?}"),
        }
    }

    fn hear_hello(&mut self, ack: HelloAck) {
        let oldest = self.acked as u64 + 1;
        let (resume, settled) = (ack.resume.0, ack.settled.0);
        assert!(
            resume <= self.records.len() as u64,
            "more is held than was captured"
        );
        assert!(
            resume + 1 >= oldest && settled + 1 >= oldest,
            "no hole is left to the source"
        );
        let Some(link) = &mut self.link else { return };
        link.up = true;
        (link.sent, link.settle_sent) = (resume as usize, settled as usize);
        self.lift_marks(resume as usize, ack.last_mark.0);
        let Some(link) = &mut self.link else { return };
        let floor = Stamp(resume);
        link.last_ack = Ack {
            received: floor,
            durable: floor,
            settled: ack.settled,
            ..Ack::default()
        };
    }

    /// What is sent from here on has marks above `last`.
    fn lift_marks(&mut self, sent: usize, mut last: u64) {
        let first = self.marked.len() - self.records.len();
        for (at, record) in self.records.iter_mut().enumerate().skip(sent) {
            last = record.header.mark.0.max(last + 1);
            record.header.mark = TimeMark(last);
            record.header = record.header.sealed(&record.payload);
            self.marked[first + at].0 = last;
        }
        self.clock = self.clock.max(last);
    }

    /// The disks as the records up to `mark` tell.
    pub(super) fn truth_at(&self, mark: TimeMark) -> Image {
        let known = self.marked.partition_point(|(at, _)| *at <= mark.0);
        self.marked[known - 1].1
    }

    /// Whether all volumes have left.
    pub(super) fn has_left(&self) -> bool {
        let mut sides = self.sides.iter();
        sides.all(|side| matches!(side, Side::Resting(..)))
    }

    /// Whether all that was captured is acknowledged and all volumes are in.
    pub(super) fn is_quiet(&self) -> bool {
        let read = !self.rereads.iter().flatten().any(|due| *due);
        read && self.acked == self.records.len() && self.sides.iter().all(|side| *side == Side::In)
    }

    pub(super) fn captured(&self) -> Stamp {
        Stamp(self.records.len() as u64)
    }
}

/// What the protocol promises a source about acks.
fn check_ack(link: &Link, ack: &Ack) {
    let last = &link.last_ack;
    assert!(
        ack.received >= last.received && ack.received >= ack.durable,
        "{last:?} {ack:?}"
    );
    assert!(
        ack.received.0 <= link.sent as u64,
        "{ack:?}, sent {}",
        link.sent
    );
    assert!(
        ack.durable >= last.durable && ack.settled >= last.settled,
        "{last:?} {ack:?}"
    );
    assert!(ack.settled.0 <= link.settle_sent as u64, "{ack:?}");
    assert!(
        ack.applied >= last.applied && ack.applied <= ack.durable.min(ack.settled),
        "{ack:?}"
    );
}
