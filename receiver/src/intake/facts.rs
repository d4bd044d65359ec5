//! What is known of a stream, for those who ask; nothing here changes it.

use super::Intake;
use crate::fold::{ByteRange, RecordAt};
use wire::journal::StreamOpen;
use wire::{Name, Stamp, TimeMark, VolumeIndex, VolumeSpec};

impl Intake {
    /// Who the stream is.
    pub fn stream(&self) -> &StreamOpen {
        &self.open
    }

    /// The volume that `index` means.
    pub fn volume(&self, index: VolumeIndex) -> Option<&VolumeSpec> {
        self.open.volumes.iter().find(|spec| spec.index == index)
    }

    /// Contiguous prefix of what was received.
    pub fn received(&self) -> Stamp {
        self.received.prefix()
    }

    /// Contiguous prefix of what the journal holds.
    pub fn durable_prefix(&self) -> Stamp {
        self.index.prefix()
    }

    /// Durable settle marks reach this far.
    pub fn settled(&self) -> Stamp {
        self.settling.durable()
    }

    /// What may be applied.
    pub fn usable(&self) -> Stamp {
        self.usable
    }

    /// Time of the last record of the durable prefix; later ones lie above it.
    pub fn last_mark(&self) -> TimeMark {
        self.index.last_mark()
    }

    /// Nothing that was received waits for the journal.
    pub fn is_flushed(&self) -> bool {
        self.received.count_above(self.index.prefix()) <= self.index.ahead()
            && !self.settling.is_under_way()
    }

    /// Nothing that was received waits to become usable.
    pub fn is_used_up(&self) -> bool {
        self.closed.is_some() || self.received.count_above(self.usable) == 0
    }

    /// Time of the record at `stamp`, or of the last one before it.
    pub fn mark_at(&self, stamp: Stamp) -> TimeMark {
        self.index.mark_at(stamp)
    }

    /// What is durable and settled, seen or not.
    pub fn settled_prefix(&self) -> Stamp {
        self.index.prefix().min(self.settling.durable())
    }

    /// Where the stream ended, if a newer incarnation has come.
    pub fn closed(&self) -> Option<Stamp> {
        self.closed
    }

    /// Durable records that are not applied yet; [`INDEX_RECORDS_MAX`] are too many.
    pub fn records_waiting(&self) -> usize {
        self.index.len()
    }

    /// About what the durable prefix above the base takes in the journal.
    pub fn bytes_waiting(&self) -> u64 {
        self.index.bytes()
    }

    /// The same, of the records up to `upto` only.
    pub fn bytes_waiting_upto(&self, upto: Stamp) -> u64 {
        self.index.bytes_upto(upto)
    }

    /// The last record above the base that is not younger than `mark`.
    pub fn last_before(&self, mark: TimeMark) -> Option<Stamp> {
        self.index.last_before(mark)
    }

    /// The last record above the base that lies in `segment` of the journal or an older one.
    pub fn last_in(&self, segment: u64) -> Option<Stamp> {
        self.index.last_in(segment)
    }

    /// Bytes of copy and zero records of the volume since it joined last.
    pub fn copied_bytes(&self, volume: &Name) -> u64 {
        let of = |spec: &&VolumeSpec| spec.name == *volume;
        let index = self.open.volumes.iter().rfind(of).map(|spec| spec.index);
        index
            .and_then(|index| self.copied_bytes.get(&index))
            .copied()
            .unwrap_or(0)
    }

    /// What is unknown of the volume at the newest usable place, in disk order.
    pub fn unknown(&self, volume: &Name) -> impl Iterator<Item = ByteRange> + use<'_> {
        let of = |spec: &&VolumeSpec| spec.name == *volume;
        let spec = self.open.volumes.iter().rfind(of);
        spec.into_iter()
            .flat_map(|spec| self.unknown.ranges(spec.index))
    }

    /// Mean payload of the records received so far, in bytes.
    pub fn record_bytes_mean(&self) -> u64 {
        self.taken_bytes
            .checked_div(self.taken_records)
            .unwrap_or(0)
    }

    /// Stamp of the record that lies at `at`.
    pub fn stamp_at(&self, at: RecordAt) -> Option<Stamp> {
        let upto = self.index.prefix();
        let found = self
            .index
            .range(Stamp::ZERO, upto)
            .find(|(_, slot)| slot.at() == at);
        found.map(|(stamp, _)| stamp)
    }
}
