//! Survey: before anything is read in order, which segments there are and which of them count.
//!
//! The newest is the highest segment with a group header in it; without one there is no journal,
//! and all is removed. The head is the highest segment that begins with a whole group that begins
//! with a live list; live is that list, less what the head and all newer segments free. A header of
//! another version, or of another journal, is refused before any of this.

use super::group::Content;
use super::readable::Unreadable;
use super::walk::{self, Step, Walk};
use crate::aligned::AlignedBuffer;
use crate::journal::error::JournalError;
use crate::journal::store::{self, Store};
use crate::recovery::{self, IndexFound, Place, SegmentFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use wire::DecodeError;
use wire::journal::{
    GROUP_ALIGN_BYTES, GroupHeader, JOURNAL_HEADER_BYTES, JournalId, SEGMENT_HEADER_BYTES,
    SegmentHeader,
};

/// Read at once while looking for a group, in bytes.
const SEARCH_BYTES: u64 = 1 << 20;

/// Which segments are read, and which go.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Whose journal, and how large its segments are; none if there is no journal.
    pub(super) kind: Option<(JournalId, u64)>,
    /// Segments to be read, ascending.
    pub(super) read: Vec<Listed>,
    /// Segments to be removed.
    pub(super) remove: Vec<u64>,
    /// There is a segment that may hold groups and cannot be read.
    pub(super) unreadable: bool,
}

/// A segment to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) segment: u64,
    /// Its file.
    pub(super) file: SegmentFile,
    /// How it ended when it was left, where that is known.
    pub(super) sealed: Option<Sealed>,
}

/// How a segment ended, as the next one says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// The number after its last group.
    pub(super) groups_end: u64,
    /// Where its index begins, if it has one.
    pub(super) index: Option<u64>,
}

/// What a look at a file shows.
struct Glance {
    header: Option<SegmentHeader>,
    /// Its first group header, and where that lies.
    group: Option<(u64, GroupHeader)>,
    /// The place of the first group cannot be read.
    unreadable: bool,
}

/// Looks at every segment of `store`.
pub(super) fn survey<S: Store>(
    store: &S,
    expected: Option<JournalId>,
) -> Result<Survey, SurveyError> {
    let mut glances = BTreeMap::new();
    for segment in store.list()? {
        glances.insert(segment, glance(&store.open(segment)?, segment)?);
    }
    let Some((journal, segment_bytes)) = kind(&glances, expected) else {
        let unreadable = glances.values().any(|glance| glance.unreadable);
        let remove = glances.into_keys().collect();
        return Ok(Survey {
            remove,
            unreadable,
            ..Survey::default()
        });
    };
    for (&segment, glance) in &glances {
        let found = glance.header.map(|header| header.journal);
        if let Some(found) = found.filter(|found| *found != journal) {
            return Err(JournalError::Foreign { segment, found }.into());
        }
    }
    let head = find_head(store, &glances, |segment| walk::Place {
        journal,
        segment,
        segment_bytes,
    })?;
    let mut survey = Survey {
        kind: Some((journal, segment_bytes)),
        ..Survey::default()
    };
    survey.sort(&glances, &head);
    Ok(survey)
}

/// The system's error, or one of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum SurveyError {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The newest segment that tells which others are in use.
#[derive(Default)]
struct Head {
    segment: Option<u64>,
    live: BTreeMap<u64, Sealed>,
}

impl Survey {
    fn sort(&mut self, glances: &BTreeMap<u64, Glance>, head: &Head) {
        let newest = glances
            .iter()
            .rev()
            .find(|(_, glance)| glance.group.is_some());
        let newest = newest.map(|(segment, _)| *segment);
        let numbers: BTreeSet<u64> = glances.keys().chain(head.live.keys()).copied().collect();
        for segment in numbers {
            let since_head = head.segment.is_none_or(|head| segment >= head);
            let sealed = head.live.get(&segment).filter(|_| !since_head);
            let place = match sealed {
                _ if since_head && Some(segment) > newest => Place::Above,
                _ if since_head => Place::SinceHead,
                Some(_) => Place::Listed,
                None => Place::Unlisted,
            };
            let file = match glances.get(&segment) {
                None => SegmentFile::Absent,
                Some(glance) if glance.unreadable && glance.group.is_none() => {
                    SegmentFile::Unreadable
                }
                Some(glance) if glance.header.is_some() => SegmentFile::Sound,
                Some(_) => SegmentFile::Broken,
            };
            // Whether it is read does not depend on its index.
            match recovery::segment(place, file, IndexFound::None) {
                recovery::Segment::Nothing => {}
                recovery::Segment::NeverUsed | recovery::Segment::Freed => {
                    self.remove.push(segment);
                }
                _ => self.read.push(Listed {
                    segment,
                    file,
                    sealed: sealed.copied(),
                }),
            }
        }
    }
}

impl Listed {
    /// Where it lies, among those that are read.
    pub(super) fn place(&self) -> Place {
        match self.sealed {
            Some(_) => Place::Listed,
            None => Place::SinceHead,
        }
    }
}

fn glance<F: store::SegmentFile>(file: &F, segment: u64) -> Result<Glance, SurveyError> {
    let mut unreadable = Unreadable::default();
    let mut page = AlignedBuffer::new(SEGMENT_HEADER_BYTES as usize);
    unreadable.read(file, 0, page.as_mut())?;
    let raw = page.as_slice().first_chunk::<JOURNAL_HEADER_BYTES>();
    let header = match raw.map(SegmentHeader::parse) {
        Some(Ok(header)) if header.segment == segment => Some(header),
        Some(Err(source @ DecodeError::UnknownVersion(_))) => {
            return Err(JournalError::Version { segment, source }.into());
        }
        _ => None,
    };
    let journal = header.map(|header| header.journal);
    let group = first_group(file, journal, &mut unreadable)?;
    let unreadable = unreadable.touches(SEGMENT_HEADER_BYTES, GROUP_ALIGN_BYTES as u64);
    Ok(Glance {
        header,
        group,
        unreadable,
    })
}

/// The first group header in a segment of the journal, or of any while that is not known.
fn first_group<F: store::SegmentFile>(
    file: &F,
    journal: Option<JournalId>,
    unreadable: &mut Unreadable,
) -> io::Result<Option<(u64, GroupHeader)>> {
    let mut page = AlignedBuffer::new(GROUP_ALIGN_BYTES);
    unreadable.read(file, SEGMENT_HEADER_BYTES, page.as_mut())?;
    let ours = |group: &GroupHeader| journal.is_none_or(|id| id == group.journal);
    if let Some(group) = group_in(page.as_slice()).filter(ours) {
        return Ok(Some((SEGMENT_HEADER_BYTES, group)));
    }
    let (mut offset, end) = (SEGMENT_HEADER_BYTES, file.bytes()?);
    let whole = end
        .next_multiple_of(GROUP_ALIGN_BYTES as u64)
        .min(SEARCH_BYTES);
    let mut chunk = AlignedBuffer::new(whole as usize);
    while offset < end {
        unreadable.read(file, offset, chunk.as_mut())?;
        for page in chunk.as_slice().chunks_exact(GROUP_ALIGN_BYTES) {
            if let Some(group) = group_in(page).filter(ours) {
                return Ok(Some((offset, group)));
            }
            offset += GROUP_ALIGN_BYTES as u64;
        }
    }
    Ok(None)
}

fn group_in(page: &[u8]) -> Option<GroupHeader> {
    GroupHeader::parse(page.first_chunk::<JOURNAL_HEADER_BYTES>()?).ok()
}

/// Id and segment size: of the sound headers, else of what the groups say of themselves.
fn kind(glances: &BTreeMap<u64, Glance>, expected: Option<JournalId>) -> Option<(JournalId, u64)> {
    let used = glances
        .values()
        .rev()
        .filter(|glance| glance.group.is_some());
    let sound = used.clone().find_map(|glance| glance.header);
    if let Some(header) = sound {
        return Some((expected.unwrap_or(header.journal), header.bytes));
    }
    let (segment, (offset, group)) = glances
        .iter()
        .rev()
        .find_map(|(segment, glance)| Some((*segment, glance.group?)))?;
    let before = group.position.0.checked_sub(offset)?;
    let segment_bytes = before.checked_div(segment).filter(|bytes| *bytes > 0)?;
    Some((expected.unwrap_or(group.journal), segment_bytes))
}

fn find_head<S: Store>(
    store: &S,
    glances: &BTreeMap<u64, Glance>,
    place: impl Fn(u64) -> walk::Place,
) -> Result<Head, SurveyError> {
    let mut newer = Vec::new();
    let used = glances.iter().rev();
    for (&segment, _) in used.filter(|(_, glance)| glance.group.is_some()) {
        let file = store.open(segment)?;
        let mut walk = Walk::new(&file, place(segment));
        let Some(mut head) = head_of(segment, &mut walk)? else {
            newer.push(segment);
            continue;
        };
        head.forget_what_is_freed(&mut walk)?;
        for segment in newer {
            let file = store.open(segment)?;
            head.forget_what_is_freed(&mut Walk::new(&file, place(segment)))?;
        }
        return Ok(head);
    }
    Ok(Head::default())
}

/// The head, if the segment tells which others are in use.
fn head_of<F: store::SegmentFile>(
    segment: u64,
    walk: &mut Walk<'_, F>,
) -> io::Result<Option<Head>> {
    let Step::Group { content, .. } = walk.next()? else {
        return Ok(None);
    };
    let Some((_, Content::Live(live))) = content.entries.first().filter(|_| content.whole) else {
        return Ok(None);
    };
    let live = live.iter().map(|live| {
        let index = (live.index_offset > 0).then_some(u64::from(live.index_offset));
        let groups_end = live.groups_end;
        (live.segment, Sealed { groups_end, index })
    });
    Ok(Some(Head {
        segment: Some(segment),
        live: live.collect(),
    }))
}

fn next_group<F: store::SegmentFile>(
    walk: &mut Walk<'_, F>,
) -> io::Result<Option<Vec<(u64, Content)>>> {
    loop {
        match walk.next()? {
            Step::Group { content, .. } if content.whole => return Ok(Some(content.entries)),
            Step::Group { .. } | Step::Hole { .. } => {}
            Step::End { .. } => return Ok(None),
        }
    }
}

impl Head {
    fn forget_what_is_freed<F: store::SegmentFile>(
        &mut self,
        walk: &mut Walk<'_, F>,
    ) -> io::Result<()> {
        while let Some(entries) = next_group(walk)? {
            for (_, entry) in entries {
                if let Content::Freed(freed) = entry {
                    for segment in freed.0 {
                        self.live.remove(&segment);
                    }
                }
            }
        }
        Ok(())
    }
}
