//! Recovery: what the journal holds when it is opened.
//!
//! A survey says which segments count; they are then read in order, every entry verified. The tail
//! is the end of the last whole group. What follows it never became durable and is not looked at
//! again; what is broken before it is damage. What each thing found is, [`crate::recovery`] says.
//!
//! A sealed segment is not read at all where its index is whole; where it is not, that is damage,
//! and the segment is read.
//!
//! A sound record of a version that is not understood here is no damage: the start is refused.
//!
//! Nothing is written here but removals of files that no longer count, so recovery may itself be
//! cut anywhere, any number of times.

mod admit;
mod deliver;
mod group;
mod index;
mod survey;
mod walk;

use super::entry::Durable;
use super::error::{Damage, DamageKind, JournalError};
use super::index::SegmentIndex;
use super::ledger::Ledger;
use super::store::Store;
use crate::recovery::{self, Follows, GroupFound, InOrder, IndexFound, SegmentFile};
use admit::{admit, look, remove};
use group::Content;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use survey::{Listed, Survey};
use walk::{Place, Step, Walk};
use wire::journal::{JournalId, SEGMENT_HEADER_BYTES, StreamNumber};

/// Most damages told one by one; the rest is only counted.
pub(super) const DAMAGES_MAX: usize = 1000;

/// An entry found at the start, in journal order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The stream it is about.
    pub stream: StreamNumber,
    /// What it says.
    pub durable: Durable,
}

/// Takes the entries found at the start.
pub trait Replay {
    /// The next one.
    fn found(&mut self, found: Found);
}

impl<F: FnMut(Found)> Replay for F {
    fn found(&mut self, found: Found) {
        self(found);
    }
}

/// What a journal was found to be; a [`super::Writer`] goes on from here.
#[derive(Debug)]
pub struct Recovered {
    /// The journal's id and segment size; none if it is empty.
    pub(super) kind: Option<(JournalId, u64)>,
    /// Where the next group goes, and its number.
    pub(super) tail: Option<Tail>,
    pub(super) ledger: Ledger,
    /// The index of the tail's segment so far.
    pub(super) index: SegmentIndex,
    /// Damage before the tail.
    pub damage: Vec<Damage>,
    /// How much damage there is, told or not.
    pub damages: usize,
}

/// End of the last whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) group: u64,
}

impl Recovered {
    /// Which journal this is; none if it is empty.
    pub fn id(&self) -> Option<JournalId> {
        self.kind.map(|(id, _)| id)
    }

    /// Segments in use, and bytes of them.
    pub fn size(&self) -> (u64, u64) {
        let segments = self.ledger.segments();
        let segment_bytes = self.kind.map_or(0, |(_, bytes)| bytes);
        (segments, segments * segment_bytes)
    }

    /// A stream number no entry of the journal has.
    pub fn next_stream(&self) -> StreamNumber {
        self.ledger.next_stream()
    }
}

/// Reads the journal in `store`; `expected` is the id it must have, where that is known: another
/// one, or none at all, is refused, and nothing is touched (P13).
pub fn recover<S: Store>(
    store: &mut S,
    path: &Path,
    expected: Option<JournalId>,
    replay: &mut dyn Replay,
) -> Result<Recovered, JournalError> {
    let io = |what| {
        move |source| JournalError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let survey = admit(store, path, expected)?;
    remove(store, &survey).map_err(io("clean"))?;
    let scan = Scan::new(survey.kind, false, replay);
    scan.run(store, &survey, path)
}

/// Reads every group of the journal in `store`, those of sealed segments too, and compares what
/// they hold with the indexes. Changes nothing; what a start would remove is passed over.
pub fn examine<S: Store>(
    store: &S,
    path: &Path,
    expected: Option<JournalId>,
    replay: &mut dyn Replay,
) -> Result<Recovered, JournalError> {
    let survey = admit(store, path, expected)?;
    Scan::new(survey.kind, true, replay).run(store, &survey, path)
}

/// Whether there is a journal in `store`. Changes nothing.
pub fn is_there<S: Store>(store: &S, path: &Path) -> Result<bool, JournalError> {
    Ok(look(store, path, None)?.kind.is_some())
}

/// A scan in progress.
struct Scan<'a> {
    recovered: Recovered,
    /// Number after the last whole group.
    next_group: u64,
    /// A group that is not whole, until it is known what that means.
    torn: Option<Torn>,
    /// Something sound that this build must not read past.
    refused: Option<JournalError>,
    /// The segment whose entries go into the index of the tail's segment.
    indexed: Option<u64>,
    /// Where the damaged index of the segment being read begins; it has been told.
    index_at: Option<u64>,
    /// Sealed segments are read as well.
    deep: bool,
    /// What the index of the segment being read says, where that is to be compared.
    index_says: Option<VecDeque<(u64, Content)>>,
    replay: &'a mut dyn Replay,
}

struct Torn {
    segment: u64,
    offset: u64,
    number: u64,
    entries: Vec<(u64, Content)>,
    bad: Vec<u64>,
}

impl<'a> Scan<'a> {
    fn new(kind: Option<(JournalId, u64)>, deep: bool, replay: &'a mut dyn Replay) -> Self {
        let recovered = Recovered {
            kind,
            tail: None,
            ledger: Ledger::default(),
            index: SegmentIndex::none(),
            damage: Vec::new(),
            damages: 0,
        };
        Self {
            recovered,
            next_group: 0,
            torn: None,
            refused: None,
            indexed: None,
            index_at: None,
            deep,
            index_says: None,
            replay,
        }
    }

    fn run<S: Store>(
        mut self,
        store: &S,
        survey: &Survey,
        path: &Path,
    ) -> Result<Recovered, JournalError> {
        for listed in &survey.read {
            let read = self.segment(store, listed);
            read.map_err(|source| JournalError::Io {
                what: "read",
                path: path.to_owned(),
                source,
            })?;
            if let Some(refused) = self.refused {
                return Err(refused);
            }
        }
        let group = self.next_group;
        let tail = self.recovered.tail;
        self.recovered.tail = tail.map(|tail| Tail { group, ..tail });
        Ok(self.recovered)
    }

    fn segment<S: Store>(&mut self, store: &S, listed: &Listed) -> io::Result<()> {
        let segment = listed.segment;
        self.recovered
            .ledger
            .begin_segment(segment, self.next_group);
        let Some((journal, segment_bytes)) = self.recovered.kind else {
            return Ok(());
        };
        let place = Place {
            journal,
            segment,
            segment_bytes,
        };
        let file = match listed.file {
            SegmentFile::Absent => None,
            SegmentFile::Sound | SegmentFile::Broken => Some(store.open(segment)?),
        };
        let index = match (&file, listed.sealed) {
            (Some(file), Some(sealed)) => index::read(file, place, sealed)?,
            _ => None,
        };
        let named = listed.sealed.and_then(|sealed| sealed.index);
        let found = match (&index, named) {
            (Some(_), _) => IndexFound::Whole,
            (None, Some(_)) => IndexFound::Bad,
            (None, None) => IndexFound::None,
        };
        let verdict = recovery::segment(listed.place(), listed.file, found);
        self.tell_segment(segment, verdict, named.unwrap_or(0));
        let Some(file) = file else {
            self.recovered.ledger.freed(&[segment]);
            return Ok(());
        };
        if let (Some(index), Some(sealed)) = (index, listed.sealed) {
            if !self.deep {
                self.take_index(segment, sealed, index);
                return Ok(());
            }
            self.index_says = Some(index.entries.into());
        }
        self.recovered.index = SegmentIndex::none();
        let mut walk = Walk::new(&file, place);
        let end = loop {
            match walk.next()? {
                Step::Group {
                    header,
                    offset,
                    content,
                } if content.whole => {
                    self.begin_index(segment, header.number);
                    self.whole(segment, offset, header.number, content.entries);
                    let offset = offset + u64::from(header.bytes);
                    self.recovered.tail = Some(Tail {
                        segment,
                        offset,
                        group: 0,
                    });
                }
                Step::Group {
                    header,
                    offset,
                    content,
                } => {
                    self.begin_index(segment, header.number);
                    self.settle_torn(header.number);
                    let (entries, bad) = (content.entries, content.bad);
                    self.torn = Some(Torn {
                        segment,
                        offset,
                        number: header.number,
                        entries,
                        bad,
                    });
                    if !self.has_groups_in(segment) {
                        let offset = SEGMENT_HEADER_BYTES;
                        self.recovered.tail = Some(Tail {
                            segment,
                            offset,
                            group: 0,
                        });
                    }
                }
                Step::Hole { offset } => {
                    let hole = recovery::group(GroupFound::None, Follows::Later, InOrder::No);
                    self.tell_group(segment, offset, hole);
                }
                Step::End { offset } => break offset,
            }
        };
        self.end_segment(segment, end, listed.sealed.map(|sealed| sealed.groups_end));
        self.index_at = None;
        self.index_says = None;
        Ok(())
    }

    fn has_groups_in(&self, segment: u64) -> bool {
        self.recovered
            .tail
            .is_some_and(|tail| tail.segment == segment)
    }

    /// A whole group: what lies before it is now known to have been durable.
    fn whole(&mut self, segment: u64, offset: u64, number: u64, entries: Vec<(u64, Content)>) {
        self.settle_torn(number);
        let in_order = number == self.next_group || !self.has_groups_in(segment);
        let verdict = recovery::group(GroupFound::Whole, Follows::Nothing, in_order.into());
        self.tell_group(segment, offset, verdict);
        self.next_group = number + 1;
        self.recovered.ledger.note_group(segment, number + 1);
        self.deliver(segment, entries);
    }

    /// The end of a segment's groups, and whether that is where it ended when it was left.
    fn end_segment(&mut self, segment: u64, end: u64, groups_end: Option<u64>) {
        let Some(groups_end) = groups_end else { return };
        self.settle_torn(groups_end);
        let in_order = self.next_group == groups_end;
        let verdict = recovery::group(GroupFound::None, Follows::Nothing, in_order.into());
        self.tell_group(segment, end, verdict);
        self.next_group = groups_end;
        self.recovered.ledger.note_group(segment, groups_end);
    }

    /// Groups up to `next` were written after the torn one: was it among them?
    fn settle_torn(&mut self, next: u64) {
        let Some(torn) = self.torn.take() else { return };
        let follows = if torn.number < next {
            Follows::Later
        } else {
            Follows::Rewritten
        };
        let verdict = recovery::group(GroupFound::Broken, follows, InOrder::Yes);
        if verdict != recovery::Group::Damaged {
            return;
        }
        if torn.bad.is_empty() {
            self.tell_group(torn.segment, torn.offset, verdict);
        }
        for bad in &torn.bad {
            self.damage(torn.segment, torn.offset + bad, DamageKind::Entry);
        }
        self.next_group = self.next_group.max(torn.number + 1);
        self.deliver(torn.segment, torn.entries);
    }
}
