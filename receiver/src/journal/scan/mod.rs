//! Recovery: what the journal holds when it is opened.
//!
//! A survey says which segments count; they are then read in order, every entry verified. The tail
//! is the end of the last whole group. What follows it never became durable and is not looked at
//! again; what is broken before it is damage. So is what the disk cannot read, wherever it may have
//! been written to: behind such a place at the end nothing is added to its segment. What each thing found is, [`crate::recovery`] says.
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
mod groups;
mod index;
mod readable;
mod survey;
mod walk;

use super::entry::Durable;
use super::error::{Damage, JournalError};
use super::index::SegmentIndex;
use super::ledger::Ledger;
use super::store::Store;
use crate::recovery::{self, IndexFound, SegmentFile};
use admit::{admit, look, remove};
use group::Content;
use groups::Torn;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use survey::{Listed, Survey};
use walk::{Place, Walk};
use wire::journal::{JournalId, StreamNumber};

/// Most damages told one by one; the rest is only counted.
pub(super) const DAMAGES_MAX: usize = 1000;
/// Stream numbers that are left out after damage: more than any that was in it.
const STREAMS_SKIPPED: u64 = 1 << 32;

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
    /// What follows cannot be read, and may be groups: the next one goes to a new segment.
    pub(super) given_up: bool,
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
        let next = self.ledger.next_stream();
        // What cannot be read today may have opened streams, and may be read again one day.
        let skipped = if self.damages > 0 { STREAMS_SKIPPED } else { 0 };
        StreamNumber(next.0 + skipped)
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
    let survey = look(store, path, None)?;
    if survey.kind.is_none() && survey.unreadable {
        return Err(JournalError::Unreadable(path.to_owned()));
    }
    Ok(survey.kind.is_some())
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
        let newest = survey.read.last().map(|listed| listed.segment);
        for listed in &survey.read {
            let read = self.segment(store, listed, Some(listed.segment) == newest);
            read.map_err(|source| JournalError::Io {
                what: "read",
                path: path.to_owned(),
                source,
            })?;
            if let Some(refused) = self.refused {
                return Err(refused);
            }
        }
        self.settle_unreadable();
        let group = self.next_group;
        let tail = self.recovered.tail;
        self.recovered.tail = tail.map(|tail| Tail { group, ..tail });
        Ok(self.recovered)
    }

    fn segment<S: Store>(&mut self, store: &S, listed: &Listed, is_newest: bool) -> io::Result<()> {
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
            SegmentFile::Sound | SegmentFile::Broken | SegmentFile::Unreadable => {
                Some(store.open(segment)?)
            }
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
            if !self.deep && verdict != recovery::Segment::ReadBlind {
                self.take_index(segment, sealed, index);
                return Ok(());
            }
            self.index_says = Some(index.entries.into());
        }
        let walk = Walk::new(&file, place);
        self.read_groups(
            walk,
            listed.sealed.map(|sealed| sealed.groups_end),
            is_newest,
        )?;
        self.index_at = None;
        self.index_says = None;
        Ok(())
    }
}
