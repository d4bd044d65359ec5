//! Taking over the ring of a tap that died: the stream goes on where it stopped.
//!
//! The dead one's records are of three kinds. Done: nothing to do. Claimed but never filled: the
//! disk was never asked, so the place becomes a void record. Filled and not done: the disk may have
//! taken all, some or none of it. Such a record stays open as an [`Orphan`] until its range was
//! read again and the copy is in the stream, so no settle mark covers it before (P4), its memory is
//! not reused while a write of the dead tap might still read it (P1), and a second death in between
//! finds it again (P10).
//!
//! First everything is checked, then the first word is written: a ring that does not hold together
//! is refused as it is. What is written is the same if it is begun anew.

use crate::claim::{Record, abandoned};
use crate::create::{self, CreateError, RING_FILE, RingFiles, RingParts};
use crate::descriptor::{RecordFields, State};
use crate::layout::{
    CLAIM_WORD, FREED_POSITION_WORD, FREED_STAMP_WORD, HEADER_WORDS, Header, HeaderError, Layout,
    PAGE_BYTES,
};
use crate::map::TapMap;
use crate::place::{ClaimWord, Cursor, Placement};
use crate::sync::Ordering;
use crate::tap::Ring;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use wire::{Incarnation, RecordKind, Stamp, TimeMark, VolumeIndex};
use zerocopy::IntoBytes;

/// The ring of a dead tap, ours now.
#[derive(Debug)]
pub struct Recovered {
    /// The ring; its stream goes on.
    pub ring: Ring,
    /// Records for which nobody knows what the disk has done, in the order of their stamps.
    pub orphans: Vec<Orphan>,
    /// Places that were claimed and never filled; void records now.
    pub unfilled: u64,
}

/// A record whose tap died before the disk had answered.
///
/// It holds back the settle mark until [`Orphan::void`]; dropped without, it does so for ever.
#[derive(Debug)]
#[must_use = "an orphan that is not void holds the stream back"]
pub struct Orphan {
    record: Record,
    fields: RecordFields,
}

/// Why a ring is not taken over. It was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is none.
    #[error("there is no ring in {0}")]
    Missing(PathBuf),
    /// It is another life's.
    #[error("the ring is of incarnation {found}, not of {wanted}")]
    OtherLife {
        /// Whose it is.
        found: Incarnation,
        /// Whose it should be.
        wanted: Incarnation,
    },
    /// The layout is another release's.
    #[error("the ring has layout {0}, which this build does not know")]
    UnknownVersion(u64),
    /// It is no ring, or does not hold together.
    #[error("the ring is damaged: {what} of {stamp}")]
    Damaged {
        /// Around which record; zero for the ring as a whole.
        stamp: Stamp,
        /// What does not fit.
        what: &'static str,
    },
    /// The system refused.
    #[error(transparent)]
    System(#[from] CreateError),
}

/// What is to be done about one place.
#[derive(Debug)]
enum Finding {
    /// Its descriptor was not written: a void record without payload takes its place.
    Unopened(Placement),
    /// It was not filled.
    Unfilled,
    /// Complete, and no disk was ever asked for it.
    Complete,
    /// The disk was asked.
    Orphan(RecordFields),
}

impl Orphan {
    /// Its place in the stream.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.record.stamp())
    }

    /// The volume it changed, or not.
    pub fn volume(&self) -> VolumeIndex {
        self.fields.volume
    }

    /// First byte of its range.
    pub fn offset_bytes(&self) -> u64 {
        self.fields.offset_bytes
    }

    /// Length of its range.
    pub fn length_bytes(&self) -> u32 {
        self.fields.length_bytes
    }

    /// What the disk holds in its range is in the stream, or the stream is given up: the record
    /// has no effect, and its memory may be reused.
    pub fn void(mut self) {
        self.record.publish(State::Void);
    }
}

impl Ring {
    /// Takes over the ring in `dir`, which must be of `incarnation`; `now` marks places whose own
    /// mark is lost.
    ///
    /// The caller holds the group's lock and knows that the dead tap runs no code any more; disk
    /// writes of it may still be in flight.
    pub fn recover(
        dir: &Path,
        incarnation: Incarnation,
        now: TimeMark,
    ) -> Result<Recovered, RecoverError> {
        let (parts, header) = open(dir, incarnation)?;
        let (freed, findings) = match examine(&parts.map, header) {
            Ok(examined) => examined,
            Err(error) => {
                parts.map.unmap_unused();
                return Err(error);
            }
        };
        // From here on nothing fails.
        let word = parts.map.word(FREED_POSITION_WORD);
        word.store(freed.position, Ordering::Release);
        create::write_page(&parts.page, freed.stamp);
        let (mut orphans, mut unfilled) = (Vec::new(), 0);
        for (stamp, finding) in findings {
            let words = parts.map.slot_words(stamp);
            match finding {
                Finding::Unopened(placement) => {
                    drop(Record::begin(words, placement, now));
                    unfilled += 1;
                }
                Finding::Unfilled => {
                    drop(abandoned(words, stamp, State::Claimed));
                    unfilled += 1;
                }
                Finding::Complete => {
                    abandoned(words, stamp, State::Filled).publish(State::Settled);
                }
                Finding::Orphan(fields) => {
                    let record = abandoned(words, stamp, State::Filled);
                    orphans.push(Orphan { record, fields });
                }
            }
        }
        Ok(Recovered {
            ring: Self::of_parts(parts, header, Stamp(freed.stamp)),
            orphans,
            unfilled,
        })
    }
}

fn open(dir: &Path, incarnation: Incarnation) -> Result<(RingParts, Header), RecoverError> {
    let path = dir.join(RING_FILE);
    let failed = |what: &'static str| {
        let path = path.clone();
        move |error: std::io::Error| create::io_error(what, &path, error)
    };
    let dir_fd = create::open_dir(dir)?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::openat(&dir_fd, RING_FILE, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Err(RecoverError::Missing(dir.to_owned())),
        Err(Errno::LOOP) => return Err(damaged("file type")),
        Err(errno) => return Err(failed("open")(errno.into()).into()),
    };
    let (header, layout) = check_file(&file, incarnation, failed("read"))?;
    let read_only = create::open_read_only(&dir_fd, &file).map_err(failed("reopen"))?;
    let (page, page_fd) = create::make_page(&path)?;
    let waker = create::make_waker(&path)?;
    let map = TapMap::new(&file, layout).map_err(failed("map"))?;
    if let Err(error) = map.lock() {
        map.unmap_unused();
        return Err(create::lock_error(layout.total_bytes(), error, &path).into());
    }
    let files = RingFiles {
        path,
        read_only,
        page: page_fd,
    };
    let parts = RingParts {
        map,
        page,
        waker,
        files,
    };
    Ok((parts, header))
}

/// Reads the header before anything is mapped by it.
fn check_file(
    file: &File,
    wanted: Incarnation,
    failed: impl FnOnce(std::io::Error) -> CreateError,
) -> Result<(Header, Layout), RecoverError> {
    let stat = match fs::fstat(file) {
        Ok(stat) => stat,
        Err(errno) => return Err(failed(errno.into()).into()),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(damaged("file type"));
    }
    let bytes = stat.st_size as u64;
    if bytes < PAGE_BYTES {
        return Err(damaged("size"));
    }
    let mut words = [0_u64; HEADER_WORDS];
    if let Err(error) = file.read_exact_at(words.as_mut_bytes(), 0) {
        return Err(failed(error).into());
    }
    let (header, layout) = Header::parse(words).map_err(|error| match error {
        HeaderError::NotARing => damaged("header"),
        HeaderError::UnknownVersion(version) => RecoverError::UnknownVersion(version),
        HeaderError::BadSize => damaged("size in the header"),
    })?;
    if layout.total_bytes() != bytes {
        return Err(damaged("size"));
    }
    let found = header.incarnation;
    if found != wanted {
        return Err(RecoverError::OtherLife { found, wanted });
    }
    Ok((header, layout))
}

/// Where the ring begins now, and what is to be done; nothing is changed.
fn examine(map: &TapMap, header: Header) -> Result<(Cursor, Vec<(u64, Finding)>), RecoverError> {
    let (freed, claimed) = cursors(map, header)?;
    Ok((freed, findings(map, freed, claimed)?))
}

/// The freed and the claimed cursor, if they belong together.
fn cursors(map: &TapMap, header: Header) -> Result<(Cursor, Cursor), RecoverError> {
    let read = |word: usize| map.word(word).load(Ordering::Acquire);
    let stale = Cursor {
        stamp: read(FREED_STAMP_WORD),
        position: read(FREED_POSITION_WORD),
    };
    let origin = header.origin;
    if stale.stamp < origin.stamp || stale.position < origin.position {
        return Err(damaged("freed cursor"));
    }
    // Far from where they would no longer fit their words: no sum below overflows.
    if stale.stamp > u64::MAX >> 4 || stale.position > u64::MAX >> 4 {
        return Err(damaged("freed cursor"));
    }
    let geometry = map.layout().geometry;
    let claimed = ClaimWord(read(CLAIM_WORD))
        .rebuild(stale, geometry)
        .ok_or_else(|| damaged("claim word"))?;
    // A death between the two stores of a reclaim leaves the position behind its stamp: room that
    // nobody would ever give back if nothing follows.
    let mut freed = stale;
    if map.state(stale.stamp).done_as(stale.stamp).is_some() {
        freed.position = map.load_descriptor(stale.stamp).end;
    }
    if freed.position < stale.position || freed.position > claimed.position {
        return Err(damaged("freed cursor"));
    }
    Ok((freed, claimed))
}

/// What is to be done about every place that is not done; checks all of them.
fn findings(
    map: &TapMap,
    freed: Cursor,
    claimed: Cursor,
) -> Result<Vec<(u64, Finding)>, RecoverError> {
    let geometry = map.layout().geometry;
    let mut findings = Vec::new();
    let mut position = freed.position;
    for stamp in freed.stamp + 1..=claimed.stamp {
        let is_last = stamp == claimed.stamp;
        let bad = |what: &'static str| RecoverError::Damaged {
            stamp: Stamp(stamp),
            what,
        };
        let word = map.state(stamp);
        let state = word.state.ok_or_else(|| bad("state"))?;
        let is_ours = word.stamp == stamp && state > State::Opening;
        if !is_ours {
            let is_unused = word.stamp == 0 && state == State::Opening;
            let is_opening = word.stamp == stamp;
            if !is_unused && !is_opening && !word.is_done_before(stamp) {
                return Err(bad("stamp in the slot"));
            }
            // How much of the room was whose is lost where several lie side by side; it does not
            // matter, as all of them carry nothing, and the last gives all of it back.
            let end = if is_last { claimed.position } else { position };
            let (start, end) = (end, end);
            findings.push((stamp, Finding::Unopened(Placement { stamp, start, end })));
            position = end;
            continue;
        }
        let descriptor = map.load_descriptor(stamp);
        let (start, end) = (descriptor.start, descriptor.end);
        let placement = Placement { stamp, start, end };
        let follows = start >= position && end <= claimed.position;
        if !follows || (is_last && end != claimed.position) || !geometry.holds(placement, freed) {
            return Err(bad("place"));
        }
        position = end;
        if state == State::Claimed {
            findings.push((stamp, Finding::Unfilled));
            continue;
        }
        let fields = descriptor.check(stamp, freed, geometry).map_err(bad)?;
        if state == State::Filled {
            findings.push((stamp, finding(fields)));
        }
    }
    Ok(findings)
}

fn finding(fields: RecordFields) -> Finding {
    match fields.kind {
        // A zero record may be a copier's, who found zeroes: read again it stays true.
        RecordKind::Write | RecordKind::Discard | RecordKind::Zero => Finding::Orphan(fields),
        _ => Finding::Complete,
    }
}

fn damaged(what: &'static str) -> RecoverError {
    RecoverError::Damaged {
        stamp: Stamp::ZERO,
        what,
    }
}
