//! What becomes of the entries that were found, and of damage.

use super::group::Content;
use super::{DAMAGES_MAX, Found, Scan};
use crate::journal::error::{Damage, DamageKind, JournalError};
use crate::recovery::{Group, Segment};

impl Scan<'_> {
    pub(super) fn deliver(&mut self, segment: u64, entries: Vec<(u64, Content)>) {
        for (offset, entry) in entries {
            match entry {
                Content::Stream(stream, durable) => {
                    if self.deep && self.index_says.is_some() {
                        let entry = Content::Stream(stream, durable.clone());
                        self.compare(segment, offset, &entry);
                    }
                    if self.indexed == Some(segment) {
                        self.recovered.index.add(stream, offset, &durable);
                    }
                    self.recovered.ledger.note(segment, stream, &durable);
                    self.replay.found(Found { stream, durable });
                }
                Content::Freed(freed) => {
                    self.recovered.ledger.freed(&freed.0);
                    self.recovered.ledger.note_written_on(segment);
                }
                Content::Live(_) => {}
                Content::Index(_) => self.recovered.ledger.note_written_on(segment),
                Content::Newer(source) => {
                    self.refused = Some(JournalError::Record { segment, source });
                }
                Content::Unused(kind) => {
                    let kind = kind.words();
                    self.refused = Some(JournalError::Unused { segment, kind });
                }
            }
        }
    }

    /// What a segment turned out to be; its index, if the list names one, begins at `index`.
    pub(super) fn tell_segment(&mut self, segment: u64, verdict: Segment, index: u64) {
        use Segment::{
            Freed, Indexed, IndexedUnheaded, Missing, NeverUsed, Nothing, Read, ReadBlind,
            ReadInstead, ReadInsteadUnheaded, ReadUnheaded,
        };
        match verdict {
            Missing => self.damage(segment, 0, DamageKind::SegmentMissing),
            ReadUnheaded | IndexedUnheaded | ReadInsteadUnheaded => {
                self.damage(segment, 0, DamageKind::SegmentHeader);
            }
            // Reading it comes to the place that cannot be read, and tells that.
            ReadBlind => {}
            Nothing | NeverUsed | Freed | Read | Indexed | ReadInstead => {}
        }
        if matches!(verdict, ReadInstead | ReadInsteadUnheaded) {
            self.damage(segment, index, DamageKind::Index);
            self.index_at = Some(index);
        }
    }

    /// What a place turned out to be where a group may begin.
    pub(super) fn tell_group(
        &mut self,
        (segment, offset): (u64, u64),
        verdict: Group,
        unreadable: bool,
    ) {
        let kind = if unreadable {
            DamageKind::Unreadable
        } else {
            DamageKind::Group
        };
        match verdict {
            Group::UsedAfterGap | Group::EndMissing => {
                self.damage(segment, offset, DamageKind::GroupsMissing);
            }
            Group::Damaged | Group::Hole | Group::GivenUp => self.damage(segment, offset, kind),
            Group::Used | Group::Rewritten | Group::Torn | Group::End => {}
        }
    }

    pub(super) fn damage(&mut self, segment: u64, offset_bytes: u64, kind: DamageKind) {
        // What is wrong with an index is told once.
        if kind != DamageKind::Index && self.index_at.is_some_and(|index| offset_bytes >= index) {
            return;
        }
        self.recovered.damages += 1;
        if self.recovered.damage.len() < DAMAGES_MAX {
            self.recovered.damage.push(Damage {
                segment,
                offset_bytes,
                kind,
            });
        }
    }
}
