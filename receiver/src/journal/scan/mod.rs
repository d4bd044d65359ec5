//! Recovery: what the journal holds when it is opened.
//!
//! A survey says which segments count; they are then read in order, every entry verified. The tail
//! is the end of the last whole group. What follows it never became durable and is not looked at
//! again; what is broken before it is damage. A group that is not whole is told apart so:
//!
//! ```text
//! what follows next                          | outcome
//! -------------------------------------------+------------------------------------------------
//! a group header with a higher number, or a  | damage: its bad entries are reported (none is: the
//! live list that puts the end above it       | group), its sound ones are used
//! one with the same number or a lower one    | torn at an earlier crash, then written anew: ignored
//! nothing                                    | torn at the last crash: the tail is before it
//! ```
//!
//! A sealed segment is not read at all where its index is whole; where it is not, that is damage,
//! and the segment is read.
//!
//! A sound record of a version that is not understood here is no damage: the start is refused.
//!
//! Nothing is written here but removals of files that no longer count, so recovery may itself be
//! cut anywhere, any number of times.

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
use group::Content;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use survey::{Listed, Survey, SurveyError};
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
    let survey = look(store, path, expected)?;
    if expected.is_some() && survey.kind.is_none() {
        return Err(JournalError::Missing(path.to_owned()));
    }
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
    let survey = look(store, path, expected)?;
    if expected.is_some() && survey.kind.is_none() {
        return Err(JournalError::Missing(path.to_owned()));
    }
    Scan::new(survey.kind, true, replay).run(store, &survey, path)
}

/// Whether there is a journal in `store`. Changes nothing.
pub fn is_there<S: Store>(store: &S, path: &Path) -> Result<bool, JournalError> {
    Ok(look(store, path, None)?.kind.is_some())
}

fn look<S: Store>(
    store: &S,
    path: &Path,
    expected: Option<JournalId>,
) -> Result<Survey, JournalError> {
    survey::survey(store, expected).map_err(|error| match error {
        SurveyError::System(source) => JournalError::Io {
            what: "read",
            path: path.to_owned(),
            source,
        },
        SurveyError::Journal(error) => error,
    })
}

fn remove<S: Store>(store: &mut S, survey: &Survey) -> io::Result<()> {
    for segment in &survey.remove {
        store.remove(*segment)?;
    }
    if !survey.remove.is_empty() {
        store.sync()?;
    }
    Ok(())
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
        if !listed.present {
            self.damage(segment, 0, DamageKind::SegmentMissing);
            self.recovered.ledger.freed(&[segment]);
            return Ok(());
        }
        if !listed.sound {
            self.damage(segment, 0, DamageKind::SegmentHeader);
        }
        let file = store.open(segment)?;
        let Some((journal, segment_bytes)) = self.recovered.kind else {
            return Ok(());
        };
        let place = Place {
            journal,
            segment,
            segment_bytes,
        };
        if let Some(sealed) = listed.sealed
            && self.take_index(&file, place, sealed)?
        {
            return Ok(());
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
                Step::Hole { offset } => self.damage(segment, offset, DamageKind::Group),
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
        if number != self.next_group && self.has_groups_in(segment) {
            self.damage(segment, offset, DamageKind::GroupsMissing);
        }
        self.next_group = number + 1;
        self.recovered.ledger.note_group(segment, number + 1);
        self.deliver(segment, entries);
    }

    /// The end of a segment's groups, and whether that is where it ended when it was left.
    fn end_segment(&mut self, segment: u64, end: u64, groups_end: Option<u64>) {
        let Some(groups_end) = groups_end else { return };
        self.settle_torn(groups_end);
        if self.next_group != groups_end {
            self.damage(segment, end, DamageKind::GroupsMissing);
            self.next_group = groups_end;
        }
        self.recovered.ledger.note_group(segment, groups_end);
    }

    /// Groups up to `next` were written after the torn one: was it among them?
    fn settle_torn(&mut self, next: u64) {
        let Some(torn) = self.torn.take() else { return };
        if torn.number >= next {
            return;
        }
        if torn.bad.is_empty() {
            self.damage(torn.segment, torn.offset, DamageKind::Group);
        }
        for bad in &torn.bad {
            self.damage(torn.segment, torn.offset + bad, DamageKind::Entry);
        }
        self.next_group = self.next_group.max(torn.number + 1);
        self.deliver(torn.segment, torn.entries);
    }
}
