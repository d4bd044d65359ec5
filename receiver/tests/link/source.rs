//! The source: what its disk holds, and the records that say how it came to that.

use crate::Dice;
use crate::site::VOLUME_BYTES;
use std::sync::Arc;
use wire::control::Hello;
use wire::{
    Generation, Incarnation, Member, MemberAction, Name, RecordHeader, RecordKind, SettleMark,
    Stamp, TimeMark, VolumeIndex, VolumeSpec,
};

pub(crate) const BLOCK_BYTES: usize = 4096;
pub(crate) const BLOCKS: usize = VOLUME_BYTES as usize / BLOCK_BYTES;
/// Blocks that a copy record takes.
const COPY_BLOCKS: usize = 32;

#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) header: RecordHeader,
    pub(crate) payload: Arc<Vec<u8>>,
    /// The disk has answered it with an error.
    pub(crate) void: bool,
}

/// One incarnation of a source with one volume.
pub(crate) struct Source {
    host: Name,
    pub(crate) incarnation: Incarnation,
    pub(crate) spec: VolumeSpec,
    pub(crate) ring_slots: u32,
    pub(crate) records: Vec<Record>,
    /// What the disk held when the incarnation began.
    before: Vec<u8>,
    pub(crate) truth: Vec<u8>,
    clock: u64,
    filler: Dice,
}

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        let mut filler = Dice::new(seed);
        let before = (0..BLOCKS).flat_map(|_| block(&mut filler)).collect();
        Self::over(before, 1, filler)
    }

    /// Another host of the group, with a volume of its own.
    pub(crate) fn of(seed: u64, host: &str, volume: &str) -> Self {
        let mut source = Self::new(seed);
        (source.host, source.spec.name) = (name(host), name(volume));
        source.spec.identity = format!("wwn:{host}");
        source
    }

    /// Its clock shows at least this.
    pub(crate) fn synchronise(&mut self, clock: TimeMark) {
        self.clock = self.clock.max(clock.0);
    }

    /// The host was started again: a new ring over the same disk.
    pub(crate) fn reborn(&self) -> Self {
        let counter = self.incarnation.counter + 1;
        let mut next = Self::over(self.truth.clone(), counter, Dice::new(counter));
        next.clock = self.clock;
        next
    }

    fn over(before: Vec<u8>, counter: u64, filler: Dice) -> Self {
        let incarnation = Incarnation {
            counter,
            id: u128::from(counter) << 64 | 7,
        };
        let spec = VolumeSpec {
            index: VolumeIndex(0),
            name: name("data"),
            size_bytes: VOLUME_BYTES,
            sector_bytes: 512,
            identity: "wwn:disk1".into(),
        };
        Self {
            host: name("db1"),
            incarnation,
            spec,
            ring_slots: 1 << 14,
            records: Vec::new(),
            truth: before.clone(),
            before,
            clock: 1_700_000_000_000_000_000,
            filler,
        }
    }

    /// Bytes its volume takes in a hello.
    pub(crate) fn spec_bytes(&self) -> usize {
        2 + 2 + self.spec.name.as_str().len() + 8 + 4 + 2 + self.spec.identity.len()
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            probe: false,
            source: self.host.clone(),
            group: name("pg"),
            generation: Generation::default(),
            incarnation: self.incarnation,
            ring_slots: self.ring_slots,
            oldest: Stamp(1),
            captured: self.last(),
            volumes: vec![self.spec.clone()],
        }
    }

    /// Stamp of the newest record.
    pub(crate) fn last(&self) -> Stamp {
        Stamp(self.records.len() as u64)
    }

    /// The volume joins, is copied and is ready; returns the stamp of `ready`.
    pub(crate) fn copy(&mut self) -> Stamp {
        self.join();
        self.copy_blocks(0..BLOCKS);
        self.member(MemberAction::Ready)
    }

    pub(crate) fn join(&mut self) -> Stamp {
        self.member(MemberAction::Join)
    }

    pub(crate) fn copy_blocks(&mut self, blocks: std::ops::Range<usize>) {
        for first in blocks.clone().step_by(COPY_BLOCKS) {
            let end = (first + COPY_BLOCKS).min(blocks.end);
            let bytes = self.truth[first * BLOCK_BYTES..end * BLOCK_BYTES].to_vec();
            self.capture(RecordKind::Copy, first, bytes.len(), bytes, false);
        }
    }

    pub(crate) fn member(&mut self, action: MemberAction) -> Stamp {
        let spec = self.spec.clone();
        let payload = Member { action, spec }.to_bytes();
        self.capture(RecordKind::Member, 0, 0, payload, false)
    }

    pub(crate) fn gap(&mut self) -> Stamp {
        self.capture(
            RecordKind::Gap,
            0,
            0,
            wire::member::gap_payload("full"),
            false,
        )
    }

    pub(crate) fn write(&mut self, at: usize) -> Stamp {
        let bytes = block(&mut self.filler);
        self.capture(RecordKind::Write, at, BLOCK_BYTES, bytes, false)
    }

    /// One write over the whole volume.
    pub(crate) fn overwrite(&mut self) -> Stamp {
        let bytes = block(&mut self.filler).repeat(BLOCKS);
        self.capture(RecordKind::Write, 0, bytes.len(), bytes, false)
    }

    /// A write that the disk refuses, nothing of it being there, and its range read again.
    pub(crate) fn refused_write(&mut self, at: usize) -> Stamp {
        self.torn_write(at, 0);
        self.copy_blocks(at..at + 1);
        self.last()
    }

    /// A write that the disk refuses after `done` bytes of it.
    pub(crate) fn torn_write(&mut self, at: usize, done: usize) -> Stamp {
        let bytes = block(&mut self.filler);
        let offset = at * BLOCK_BYTES;
        let stamp = self.capture(RecordKind::Write, at, BLOCK_BYTES, bytes.clone(), true);
        self.truth[offset..offset + done].copy_from_slice(&bytes[..done]);
        stamp
    }

    pub(crate) fn zero(&mut self, at: usize) -> Stamp {
        self.capture(RecordKind::Zero, at, BLOCK_BYTES, Vec::new(), false)
    }

    /// A few writes and zeroes here and there.
    pub(crate) fn scribble(&mut self, dice: &mut Dice, count: usize) {
        for _ in 0..count {
            let at = dice.roll(BLOCKS / 4);
            match dice.roll(8) {
                0 => self.zero(at),
                1 => self.refused_write(at),
                _ => self.write(at),
            };
        }
    }

    fn capture(
        &mut self,
        kind: RecordKind,
        at: usize,
        length: usize,
        payload: Vec<u8>,
        void: bool,
    ) -> Stamp {
        self.clock += 1_000_000;
        let stamp = self.last().next();
        let header = RecordHeader {
            kind,
            fua: false,
            volume: self.spec.index,
            stamp,
            mark: TimeMark(self.clock),
            offset_bytes: (at * BLOCK_BYTES) as u64,
            length_bytes: length as u32,
            payload_bytes: payload.len() as u32,
            incarnation_id: self.incarnation.id,
            checksum: 0,
        };
        let record = Record {
            header: header.sealed(&payload),
            payload: Arc::new(payload),
            void,
        };
        apply(&mut self.truth, &record);
        self.records.push(record);
        stamp
    }

    pub(crate) fn clock(&self) -> TimeMark {
        TimeMark(self.clock + 1)
    }

    /// What the disk held after the record at `stamp`.
    pub(crate) fn image_at(&self, stamp: Stamp) -> Vec<u8> {
        let mut image = self.before.clone();
        for record in &self.records[..stamp.0 as usize] {
            apply(&mut image, record);
        }
        image
    }

    /// Records in `(after, upto]`.
    pub(crate) fn records(&self, after: Stamp, upto: Stamp) -> &[Record] {
        &self.records[after.0 as usize..upto.0 as usize]
    }

    pub(crate) fn mark(&self, after: Stamp, upto: Stamp) -> SettleMark {
        let voids = self.records(after, upto).iter();
        let voids = voids.filter(|record| record.void);
        let voids = voids.map(|record| record.header.stamp).collect();
        SettleMark { after, upto, voids }
    }
}

fn apply(image: &mut [u8], record: &Record) {
    let header = &record.header;
    let range = header.offset_bytes as usize..header.end_bytes() as usize;
    match header.kind {
        _ if record.void => {}
        RecordKind::Write | RecordKind::Copy => image[range].copy_from_slice(&record.payload),
        RecordKind::Zero | RecordKind::Discard => image[range].fill(0),
        _ => {}
    }
}

fn block(dice: &mut Dice) -> Vec<u8> {
    let fill = 1 + dice.roll(255);
    let mut bytes = vec![fill as u8; BLOCK_BYTES];
    bytes[..8].copy_from_slice(&dice.0.to_le_bytes());
    bytes
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}
