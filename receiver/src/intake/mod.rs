//! Intake: one stream, from arrival to "usable". Pure.
//!
//! Owned by the group's actor. Records and settle marks arrive in any order and more than once;
//! what is new is journaled; what the journal calls durable is indexed here by stamp. The journal
//! is the reorder buffer, memory holds positions.
//!
//! ```text
//! received   contiguous prefix and ranges ahead of it: what need not be taken again
//! durable    contiguous prefix of what the journal holds: what the source may forget
//! settled    durable chain of settle marks: what the source's disks have answered for
//! usable     the lesser of the last two: what may be applied
//! ```
//!
//! Promises: the order of arrival and repetition change nothing (P8); a record outside its volume,
//! of another incarnation, or further ahead than the ring is refused before it is kept (P11, P13);
//! settle marks are journaled only up to the records that have been taken, so they never take room
//! that records would not have; the first durable copy of a record stays.
//!
//! Does not: verify payloads (done on receipt), know points, decide what is applied.

mod facts;
mod index;
mod reach;
mod settling;
#[cfg(test)]
mod tests;
mod unknown;
mod violation;

pub use index::{INDEX_RECORDS_MAX, Slot};
pub use violation::Violation;

use crate::fold::ByteRange;
use crate::foreign::printable;
use crate::journal::Durable;
use index::Index;
use reach::Reach;
use settling::Settling;
use std::collections::{BTreeMap, VecDeque};
use unknown::{Turn, Unknown};
use wire::journal::{STREAM_VOLUMES_MAX, StreamLost, StreamOpen};
use wire::{
    Member, MemberAction, Name, RecordHeader, RecordKind, SettleMark, Stamp, TimeMark, VolumeIndex,
    VolumeSpec,
};

/// Highest stamp a source may speak of; far above any it reaches, and room above it.
pub const STAMP_MAX: Stamp = Stamp(1 << 62);
/// Highest time mark a source may give: the year 2262.
pub const MARK_MAX: TimeMark = TimeMark(i64::MAX as u64);

/// Most member and gap records that may wait to be settled. A group has a few of each volume.
pub const NOTES_MAX: usize = 1 << 14;

/// One stream of one group.
#[derive(Debug)]
pub struct Intake {
    open: StreamOpen,
    received: Reach,
    index: Index,
    settling: Settling,
    notes: BTreeMap<Stamp, Note>,
    /// Received and not yet durable, of those that become notes.
    notes_coming: usize,
    late: VecDeque<Progress>,
    /// What failed writes have left behind, as of `usable`.
    unknown: Unknown,
    /// Everything up to here is in the base.
    applied: Stamp,
    usable: Stamp,
    closed: Option<Stamp>,
    copied_bytes: BTreeMap<VolumeIndex, u64>,
    taken_records: u64,
    taken_bytes: u64,
}

/// Where a stream begins for this process: what is in the base already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Everything up to here is in the base.
    pub applied: Stamp,
    /// No mark above `applied` is at or below this.
    pub mark: TimeMark,
}

/// Whether a record is to be journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is new.
    New,
    /// It has been taken before.
    Again,
}

/// What came to be usable, in stamp order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to here is usable; `mark` is the time of the record here.
    Upto {
        /// The place.
        stamp: Stamp,
        /// Its time.
        mark: TimeMark,
    },
    /// A volume joins, is ready, leaves or continues here.
    Member {
        /// The place.
        stamp: Stamp,
        /// The volume.
        volume: Name,
        /// What happens.
        action: MemberAction,
    },
    /// A write of the volume failed here: what it holds in `range` is unknown from here on.
    Unknown {
        /// The place.
        stamp: Stamp,
        /// The volume.
        volume: Name,
        /// The first range that is unknown; there may come more.
        range: ByteRange,
    },
    /// Everything that was unknown of the volume is covered by records up to here.
    Known {
        /// The place.
        stamp: Stamp,
        /// The volume.
        volume: Name,
    },
    /// More ranges of the volume are unknown than can be remembered.
    Scattered {
        /// The place.
        stamp: Stamp,
        /// The volume.
        volume: Name,
    },
    /// The source gave up what it wrote before here.
    Gap {
        /// The place.
        stamp: Stamp,
        /// Why, in words.
        reason: String,
    },
    /// What lies in `(after, upto]` is gone; `after` may lie before what was usable.
    Lost {
        /// The last place before the loss.
        after: Stamp,
        /// Its time.
        mark: TimeMark,
        /// The last place lost.
        upto: Stamp,
        /// Why, in words.
        reason: String,
    },
}

#[derive(Clone, Debug)]
enum Note {
    Member(Name, MemberAction),
    Gap(String),
    Lost { after: Stamp, reason: String },
}

impl Intake {
    /// A stream whose records up to `base` are in the base already.
    pub fn new(open: StreamOpen, base: Base) -> Self {
        Self {
            open,
            received: Reach::new(base.applied),
            index: Index::new(base.applied, base.mark),
            settling: Settling::new(base.applied),
            notes: BTreeMap::new(),
            notes_coming: 0,
            late: VecDeque::new(),
            unknown: Unknown::default(),
            applied: base.applied,
            usable: base.applied,
            closed: None,
            copied_bytes: BTreeMap::new(),
            taken_records: 0,
            taken_bytes: 0,
        }
    }

    /// A record has arrived, its checksum verified. To be journaled if it is new.
    pub fn receive(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<Receipt, Violation> {
        let stamp = header.stamp;
        assert!(self.closed.is_none(), "a closed stream takes nothing");
        if header.incarnation_id != self.open.incarnation.id {
            return Err(Violation::OtherIncarnation { stamp });
        }
        let limit = Stamp(self.index.prefix().0 + u64::from(self.open.ring_slots));
        if stamp == Stamp::ZERO || stamp > limit {
            return Err(Violation::TooFar { stamp, limit });
        }
        if header.mark > MARK_MAX {
            return Err(Violation::BadMark { stamp });
        }
        self.check_range(header)?;
        if header.kind == RecordKind::Member {
            self.check_member(stamp, payload)?;
        }
        if self.received.contains(stamp) {
            return Ok(Receipt::Again);
        }
        let noted = is_noted(header.kind);
        if noted && self.notes.len() + self.notes_coming >= NOTES_MAX {
            return Err(Violation::TooManyNotes { stamp });
        }
        self.received
            .insert(stamp)
            .map_err(|_| Violation::TooScattered { stamp })?;
        self.notes_coming += usize::from(noted);
        self.taken_records += 1;
        self.taken_bytes += u64::from(header.payload_bytes);
        Ok(Receipt::New)
    }

    /// A settle mark has arrived.
    pub fn settle(&mut self, mark: &SettleMark) -> Result<(), Violation> {
        let limit = Stamp(self.index.prefix().0 + u64::from(self.open.ring_slots));
        if mark.upto > limit {
            return Err(Violation::TooFar {
                stamp: mark.upto,
                limit,
            });
        }
        self.settling.receive(mark)
    }

    /// The settle mark to journal now, if any; the next one is given when this one is durable.
    pub fn settle_due(&mut self) -> Option<SettleMark> {
        self.settling.due(self.received.prefix())
    }

    /// A new session begins: settle marks that were received but not journaled come again.
    pub fn greet(&mut self) {
        assert!(
            self.is_flushed(),
            "a session begins when nothing of the last one is under way"
        );
        self.settling.forget();
    }

    /// What is lost, if the source holds nothing before `oldest`.
    pub fn loss(&self, oldest: Stamp) -> Option<StreamLost> {
        let held = self.settled_prefix();
        let reason = format!(
            "the receiver has lost what follows record {held}, and the source holds only record \
             {oldest} and later"
        );
        let upto = oldest.prev();
        (upto > held).then_some(StreamLost {
            after: held,
            upto,
            reason,
        })
    }

    /// The source announces volumes; said again, a number means what it meant (P8).
    pub fn announce(&self, volumes: &[VolumeSpec]) -> Result<Option<StreamOpen>, Violation> {
        let mut open = self.open.clone();
        for spec in volumes {
            match open.volumes.iter().find(|known| known.index == spec.index) {
                Some(known) if known == spec => {}
                Some(known) => {
                    let (known, index) = (known.name.clone(), spec.index);
                    return Err(Violation::OtherVolume { index, known });
                }
                None => open.volumes.push(spec.clone()),
            }
        }
        if open.volumes.len() > STREAM_VOLUMES_MAX {
            return Err(Violation::TooManyVolumes);
        }
        Ok((open != self.open).then_some(open))
    }

    /// The journal holds this, from now on or from before this process began.
    pub fn durable(&mut self, durable: Durable) {
        match durable {
            Durable::Record { header, at, note } => {
                // Of those the journal had before this process none was received by it.
                let coming = usize::from(is_noted(header.kind));
                self.notes_coming = self.notes_coming.saturating_sub(coming);
                let slot = Slot::new(&header, at);
                if self.index.insert(header.stamp, slot) {
                    // Scattered or not: it is there.
                    let _ = self.received.insert(header.stamp);
                    self.note(&header, &note);
                    self.count_copy(&header);
                }
            }
            Durable::Settle(mark) => {
                if self.settling.settled(&mark) {
                    self.index.void(mark.after, &mark.voids);
                }
            }
            Durable::Open(open) => self.open = open,
            Durable::Close(close) => self.closed = Some(close.upto),
            Durable::Lost(lost) => self.lose(lost),
        }
    }

    /// What has become usable since the last time.
    pub fn advance(&mut self) -> Vec<Progress> {
        let mut progress: Vec<Progress> = self.late.drain(..).collect();
        let settled = self.settled_prefix();
        let target = settled.min(self.closed.unwrap_or(settled));
        while self.usable < target {
            let next = self.notes.first_key_value().map(|(stamp, _)| *stamp);
            let Some(stamp) = next.filter(|stamp| *stamp <= target) else {
                self.pass(target, &mut progress);
                break;
            };
            let Some(note) = self.notes.remove(&stamp) else {
                break;
            };
            self.pass_note(stamp, note, &mut progress);
        }
        progress
    }

    /// Everything up to `applied` is in the base: it is forgotten here.
    pub fn applied(&mut self, applied: Stamp) {
        assert!(
            applied <= self.usable,
            "{applied} is applied, {} is usable",
            self.usable
        );
        self.applied = self.applied.max(applied);
        self.index.forget(applied);
    }

    /// Records in `(after, upto]` that are in the journal, in order.
    pub fn records(
        &self,
        after: Stamp,
        upto: Stamp,
    ) -> impl Iterator<Item = (Stamp, &Slot)> + use<'_> {
        self.index.range(after, upto)
    }

    fn check_range(&self, header: &RecordHeader) -> Result<(), Violation> {
        if header.length_bytes == 0 {
            return Ok(());
        }
        let (stamp, index) = (header.stamp, header.volume);
        let volume = self
            .volume(index)
            .ok_or(Violation::UnknownVolume { stamp, index })?;
        let sector_bytes = u64::from(volume.sector_bytes);
        let whole = header.offset_bytes.is_multiple_of(sector_bytes)
            && u64::from(header.length_bytes).is_multiple_of(sector_bytes);
        if !whole || header.end_bytes() > volume.size_bytes {
            return Err(Violation::Range {
                stamp,
                volume: volume.name.clone(),
            });
        }
        Ok(())
    }

    fn check_member(&self, stamp: Stamp, payload: &[u8]) -> Result<(), Violation> {
        let member =
            Member::parse(payload).map_err(|source| Violation::BadMember { stamp, source })?;
        let index = member.spec.index;
        match self.volume(index) {
            Some(known) if *known == member.spec => Ok(()),
            Some(known) => Err(Violation::OtherVolume {
                index,
                known: known.name.clone(),
            }),
            None => Err(Violation::UnknownVolume { stamp, index }),
        }
    }

    fn note(&mut self, header: &RecordHeader, payload: &[u8]) {
        let note = match header.kind {
            RecordKind::Member => match Member::parse(payload) {
                Ok(member) => {
                    if member.action == MemberAction::Join {
                        self.copied_bytes.insert(member.spec.index, 0);
                    }
                    Note::Member(member.spec.name, member.action)
                }
                Err(error) => Note::Gap(format!("member record {}: {error}", header.stamp)),
            },
            RecordKind::Gap => {
                let reason = wire::member::parse_gap(payload).unwrap_or_default();
                Note::Gap(printable(&reason))
            }
            _ => return,
        };
        self.notes.insert(header.stamp, note);
    }

    fn count_copy(&mut self, header: &RecordHeader) {
        if matches!(header.kind, RecordKind::Copy | RecordKind::Zero)
            && let Some(copied) = self.copied_bytes.get_mut(&header.volume)
        {
            *copied = copied.saturating_add(u64::from(header.length_bytes));
        }
    }

    fn lose(&mut self, lost: StreamLost) {
        let StreamLost {
            after,
            upto,
            reason,
        } = lost;
        if upto <= self.applied {
            return;
        }
        self.received.skip_to(upto);
        self.index.lose(after, upto);
        self.settling.skip_to(upto);
        if upto > self.usable {
            self.notes
                .retain(|stamp, _| *stamp <= after || *stamp > upto);
            self.notes.insert(upto, Note::Lost { after, reason });
        } else {
            let mark = self.index.mark_at(after);
            self.late.push_back(Progress::Lost {
                after,
                mark,
                upto,
                reason,
            });
        }
    }

    /// Everything up to `stamp` is usable; stops where what is unknown changes.
    fn pass(&mut self, stamp: Stamp, progress: &mut Vec<Progress>) {
        let from = self.usable;
        for (at, slot) in self.index.range(from, stamp) {
            let Some(turn) = self.unknown.pass(slot) else {
                continue;
            };
            let of = |spec: &&VolumeSpec| spec.index == slot.volume();
            let Some(spec) = self.open.volumes.iter().find(of) else {
                continue;
            };
            let (before, volume) = (at.prev(), spec.name.clone());
            if before > self.usable {
                let mark = self.index.mark_at(before);
                progress.push(Progress::Upto {
                    stamp: before,
                    mark,
                });
            }
            progress.push(turned(turn, at, volume));
            let mark = self.index.mark_at(at);
            progress.push(Progress::Upto { stamp: at, mark });
            self.usable = at;
        }
        self.reach(stamp, progress);
    }

    /// Everything up to `stamp` is usable, or lost.
    fn reach(&mut self, stamp: Stamp, progress: &mut Vec<Progress>) {
        if stamp > self.usable {
            let mark = self.index.mark_at(stamp);
            progress.push(Progress::Upto { stamp, mark });
            self.usable = stamp;
        }
    }

    fn pass_note(&mut self, stamp: Stamp, note: Note, progress: &mut Vec<Progress>) {
        assert!(stamp > self.usable, "{stamp} comes after {}", self.usable);
        match note {
            Note::Lost { after, reason } => {
                self.pass(after, progress);
                let mark = self.index.mark_at(after);
                progress.push(Progress::Lost {
                    after,
                    mark,
                    upto: stamp,
                    reason,
                });
            }
            _ if self.index.is_void(stamp) => self.pass(stamp.prev(), progress),
            Note::Member(volume, action) => {
                self.pass(stamp.prev(), progress);
                if action == MemberAction::Join {
                    self.forget_unknown(&volume);
                }
                progress.push(Progress::Member {
                    stamp,
                    volume,
                    action,
                });
            }
            Note::Gap(reason) => {
                self.pass(stamp.prev(), progress);
                progress.push(Progress::Gap { stamp, reason });
            }
        }
        // The record here is no data; what lies before a lost end is lost with it.
        self.reach(stamp, progress);
    }

    fn forget_unknown(&mut self, volume: &Name) {
        for spec in &self.open.volumes {
            if spec.name == *volume {
                self.unknown.join(spec.index);
            }
        }
    }
}

/// Whether more than its place is remembered of such a record.
fn is_noted(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Member | RecordKind::Gap)
}

fn turned(turn: Turn, stamp: Stamp, volume: Name) -> Progress {
    match turn {
        Turn::Opened(range) => Progress::Unknown {
            stamp,
            volume,
            range,
        },
        Turn::Closed => Progress::Known { stamp, volume },
        Turn::Scattered => Progress::Scattered { stamp, volume },
    }
}
