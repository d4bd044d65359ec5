//! Reading a segment group by group: which count, and where the journal goes on.

use super::group::{Content, GroupContent};
use super::walk::{Step, Walk};
use super::{Scan, Tail};
use crate::journal::error::DamageKind;
use crate::journal::index::SegmentIndex;
use crate::journal::store::SegmentFile;
use crate::recovery::{self, Follows, Group, GroupFound, InOrder};
use std::io;
use wire::journal::SEGMENT_HEADER_BYTES;

/// A group that is not whole, until what follows says what that means.
pub(super) struct Torn {
    segment: u64,
    offset: u64,
    number: u64,
    entries: Vec<(u64, Content)>,
    bad: Vec<u64>,
    /// Where it ends.
    end: u64,
    found: GroupFound,
}

impl Scan<'_> {
    /// Reads the groups of a segment; where the list says so, those below `groups_end`.
    pub(super) fn read_groups<F: SegmentFile>(
        &mut self,
        mut walk: Walk<'_, F>,
        groups_end: Option<u64>,
        is_newest: bool,
    ) -> io::Result<()> {
        let segment = walk.segment();
        self.recovered.index = SegmentIndex::none();
        loop {
            match walk.next()? {
                Step::Group { header, .. }
                    if groups_end.is_some_and(|end| header.number >= end) =>
                {
                    // Could not be read at an earlier start, and was given up.
                    let again = (GroupFound::Whole, Follows::Rewritten);
                    let verdict = recovery::group(again.0, again.1, InOrder::No);
                    assert!(verdict == Group::Rewritten, "it does not count any more");
                }
                Step::Group {
                    header,
                    offset,
                    content,
                    unreadable,
                } => {
                    self.begin_index(segment, header.number);
                    let end = offset + u64::from(header.bytes);
                    if content.whole {
                        self.whole((segment, offset), header.number, content.entries);
                        self.goes_on(segment, end);
                    } else {
                        let place = (segment, offset, end);
                        self.not_whole(place, header.number, content, unreadable);
                    }
                }
                Step::Hole { offset, unreadable } => {
                    let found = found_nothing(unreadable);
                    let hole = recovery::group(found, Follows::Later, InOrder::No);
                    self.tell_group((segment, offset), hole, unreadable);
                }
                Step::End { offset, unreadable } => {
                    match groups_end {
                        Some(groups_end) => {
                            self.end_listed((segment, offset), groups_end, unreadable);
                        }
                        None => self.end_unlisted((segment, offset), is_newest, unreadable),
                    }
                    return Ok(());
                }
            }
        }
    }

    /// A whole group: what lies before it is now known to have been durable.
    fn whole(&mut self, at: (u64, u64), number: u64, entries: Vec<(u64, Content)>) {
        let (segment, _) = at;
        self.settle_torn(number);
        let in_order = number == self.next_group || !self.has_groups_in(segment);
        let verdict = recovery::group(GroupFound::Whole, Follows::Nothing, in_order.into());
        self.tell_group(at, verdict, false);
        self.next_group = number + 1;
        self.recovered.ledger.note_group(segment, number + 1);
        self.deliver(segment, entries);
    }

    fn not_whole(
        &mut self,
        (segment, offset, end): (u64, u64, u64),
        number: u64,
        content: GroupContent,
        unreadable: bool,
    ) {
        self.settle_torn(number);
        let found = if unreadable {
            GroupFound::PartUnreadable
        } else {
            GroupFound::Broken
        };
        self.torn = Some(Torn {
            segment,
            offset,
            number,
            entries: content.entries,
            bad: content.bad,
            end,
            found,
        });
        if !self.has_groups_in(segment) {
            self.goes_on(segment, SEGMENT_HEADER_BYTES);
        }
    }

    /// The end of the groups of a segment that is listed, and whether that is where it ended when
    /// it was left.
    fn end_listed(&mut self, at: (u64, u64), groups_end: u64, unreadable: bool) {
        let (segment, _) = at;
        self.settle_torn(groups_end);
        let in_order = self.next_group == groups_end;
        let follows = match (unreadable, in_order) {
            (false, _) => Follows::Nothing,
            (true, false) => Follows::Later,
            (true, true) => Follows::Rewritten,
        };
        let verdict = recovery::group(found_nothing(unreadable), follows, in_order.into());
        self.tell_group(at, verdict, unreadable);
        self.next_group = groups_end;
        self.recovered.ledger.note_group(segment, groups_end);
    }

    /// The end of the groups of a segment no list names.
    fn end_unlisted(&mut self, at: (u64, u64), is_newest: bool, unreadable: bool) {
        let follows = if is_newest {
            Follows::Nothing
        } else {
            Follows::Later
        };
        if !unreadable {
            return;
        }
        let verdict = recovery::group(GroupFound::Unreadable, follows, InOrder::Yes);
        self.tell_group(at, verdict, true);
        if verdict == Group::GivenUp {
            let (segment, offset) = at;
            self.settle_unreadable();
            self.recovered.ledger.note_group(segment, self.next_group);
            self.recovered.index = SegmentIndex::none();
            self.recovered.tail = Some(Tail {
                segment,
                offset,
                group: 0,
                given_up: true,
            });
        }
    }

    /// Groups up to `next` were written after the torn one: was it among them?
    pub(super) fn settle_torn(&mut self, next: u64) {
        let Some(torn) = self.torn.take() else { return };
        let follows = if torn.number < next {
            Follows::Later
        } else {
            Follows::Rewritten
        };
        self.settle(torn, follows);
    }

    /// Nothing follows the torn one. If the disk cannot read all of it, it may have been whole: it
    /// stays, and the journal goes on behind it.
    pub(super) fn settle_unreadable(&mut self) {
        let Some(torn) = self.torn.take() else { return };
        let (segment, end) = (torn.segment, torn.end);
        let is_last = self.has_groups_in(segment);
        if self.settle(torn, Follows::Nothing) {
            self.recovered.ledger.note_group(segment, self.next_group);
            if is_last {
                self.goes_on(segment, end);
            }
        }
    }

    /// Whether it counts.
    fn settle(&mut self, torn: Torn, follows: Follows) -> bool {
        let verdict = recovery::group(torn.found, follows, InOrder::Yes);
        if verdict != Group::Damaged {
            return false;
        }
        let unreadable = torn.found == GroupFound::PartUnreadable;
        if torn.bad.is_empty() {
            self.tell_group((torn.segment, torn.offset), verdict, unreadable);
        }
        let kind = if unreadable {
            DamageKind::Unreadable
        } else {
            DamageKind::Entry
        };
        for bad in &torn.bad {
            self.damage(torn.segment, torn.offset + bad, kind);
        }
        self.next_group = self.next_group.max(torn.number + 1);
        self.deliver(torn.segment, torn.entries);
        true
    }

    /// As far as is known, the next group goes there.
    fn goes_on(&mut self, segment: u64, offset: u64) {
        self.recovered.tail = Some(Tail {
            segment,
            offset,
            group: 0,
            given_up: false,
        });
    }

    fn has_groups_in(&self, segment: u64) -> bool {
        self.recovered
            .tail
            .is_some_and(|tail| tail.segment == segment)
    }
}

fn found_nothing(unreadable: bool) -> GroupFound {
    if unreadable {
        GroupFound::Unreadable
    } else {
        GroupFound::None
    }
}
