//! Recovery: what a start makes of what it finds. Pure; all of its decisions in one place.
//!
//! Six tables, each a function from facts to one labelled outcome; the journal's scan, the start
//! of the receiver and the restored groups ask them. `docs/recovery.md` shows the same tables for
//! people, and a test holds every combination of facts against its rows.
//!
//! Promises: every combination has exactly one outcome; none of them but the removal of files that
//! no longer count, and the beginning of a journal where none is known, writes anything (P10).
//!
//! Does not: read, write, or find the facts.

#[cfg(test)]
mod tests;

/// Facts, and outcomes: an enum, all of its values, and the words the document has for them.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $words:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $value,)+
        }

        impl $name {
            /// Every one there is.
            pub const ALL: &[Self] = &[$(Self::$value,)+];

            /// As the document says it.
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$value => $words,)+
                }
            }
        }
    };
}

words! {
    /// What lies in the journal's directory, as far as it says whose it is.
    Files {
        /// No segment, or none that a group was ever written to.
        None = "none",
        /// Segments of one journal.
        One = "one journal",
        /// A segment of another journal is among them.
        Mixed = "another's among them",
        /// A segment was written by a later version.
        Newer = "a later version",
        /// There are segments, and of none that could be read a group.
        Unreadable = "unreadable",
    }
}
words! {
    /// Which journal the catalog knows.
    Known {
        /// None.
        None = "none",
        /// The one that is there.
        This = "this one",
        /// Another one than is there.
        Other = "another one",
    }
}
words! {
    /// What becomes of the start.
    Start {
        /// A new journal is begun; what a crash left of an earlier beginning is removed.
        Begin = "begin",
        /// The journal is read, and the catalog bound to it.
        Adopt = "adopt",
        /// The journal is read.
        Read = "read",
        /// Refused, nothing is touched: the journal is not there.
        Missing = "missing",
        /// Refused, nothing is touched: files of another journal.
        Foreign = "foreign",
        /// Refused, nothing is touched: this build does not understand it.
        Version = "version",
        /// Refused, nothing is touched: the disk does not give it back.
        Unreadable = "unreadable",
    }
}
words! {
    /// Where a segment lies.
    Place {
        /// Above the newest one with a group in it.
        Above = "above the newest",
        /// From the head to the newest.
        SinceHead = "from the head on",
        /// Below the head, which lists it.
        Listed = "below, listed",
        /// Below the head, which does not list it.
        Unlisted = "below, not listed",
    }
}
words! {
    /// The file of a segment.
    SegmentFile {
        /// There is none.
        Absent = "absent",
        /// Its header is that of this segment.
        Sound = "sound",
        /// Its header is not.
        Broken = "header broken",
        /// The place of its first group cannot be read, and no later one was found.
        Unreadable = "unreadable",
    }
}
words! {
    /// The index of a segment.
    IndexFound {
        /// The list names none.
        None = "none",
        /// All of it is what was written.
        Whole = "whole",
        /// Some of it is not.
        Bad = "bad",
    }
}
words! {
    /// What becomes of a segment.
    Segment {
        /// Nothing: it is not there and nobody says it should be.
        Nothing = "nothing",
        /// Made ready and never used: removed.
        NeverUsed = "never used",
        /// Freed before the crash: removed.
        Freed = "freed",
        /// Damage: the file is missing.
        Missing = "missing",
        /// Its groups are read.
        Read = "read",
        /// Damage: its header. Its groups prove themselves and are read.
        ReadUnheaded = "header, read",
        /// Damage: its first groups. It is read, and nothing more is written to it.
        ReadBlind = "unreadable, read",
        /// Its entries are taken from its index.
        Indexed = "indexed",
        /// Damage: its header. Its entries are taken from its index.
        IndexedUnheaded = "header, indexed",
        /// Damage: its index. Its groups are read.
        ReadInstead = "index, read",
        /// Damage: its header and its index. Its groups are read.
        ReadInsteadUnheaded = "header, index, read",
    }
}
words! {
    /// A place in a segment where a group may begin.
    GroupFound {
        /// A valid header, and all of the group.
        Whole = "whole",
        /// A valid header, and not all of the group.
        Broken = "not whole",
        /// A valid header, and what is missing of the group lies where the disk cannot be read.
        PartUnreadable = "unreadable in part",
        /// Where its header would be, the disk cannot be read.
        Unreadable = "unreadable",
        /// No valid header.
        None = "none",
    }
}
words! {
    /// What follows that place: the next valid header, or a list that says where the segment ends.
    Follows {
        /// A group with a higher number, or the list says there were more.
        Later = "later groups",
        /// A group with the same number or a lower one, or the list says there were no more.
        Rewritten = "the same again",
        /// Nothing.
        Nothing = "nothing",
    }
}
words! {
    /// Its number, or at the end of a segment that of the next group.
    InOrder {
        /// One above that before it in the segment.
        Yes = "yes",
        /// Another one.
        No = "no",
    }
}
words! {
    /// What becomes of a group.
    Group {
        /// Used.
        Used = "used",
        /// Used; damage: groups are missing before it.
        UsedAfterGap = "used, gap",
        /// Damage: its bad entries, or itself if none is; its sound ones are used.
        Damaged = "damaged",
        /// Torn, or given up as unreadable, at an earlier start and written anew: ignored.
        Rewritten = "rewritten",
        /// Torn at the last crash: the tail is before it, the next group is written over it.
        Torn = "torn",
        /// Damage: a group; the walk goes on at the next one.
        Hole = "hole",
        /// The end of the segment.
        End = "end",
        /// The end of the segment; damage: groups are missing before it.
        EndMissing = "end, gap",
        /// Damage: whatever was there. The segment is given up: the next group is in a new one.
        GivenUp = "given up",
    }
}
words! {
    /// The header of an entry.
    EntryHead {
        /// Valid, of this journal, place and group.
        Valid = "valid",
        /// Anything else.
        Broken = "broken",
    }
}
words! {
    /// The body of an entry.
    EntryBody {
        /// As it was written, and understood.
        Sound = "sound",
        /// As it was written, of a kind this build makes no use of, or a later version.
        Unused = "not understood",
        /// Not as it was written.
        Broken = "broken",
    }
}
words! {
    /// What becomes of an entry of a group that counts.
    Entry {
        /// Used, if its group is.
        Used = "used",
        /// The start is refused if its group is used.
        Refused = "refused",
        /// Bad; the next one follows by its length.
        Bad = "bad",
        /// Bad; the next one is looked for at every multiple of 64.
        Lost = "bad, searched",
    }
}
words! {
    /// The incarnation of a stream, against that of the base.
    Life {
        /// A lower counter, or the same with another id.
        Older = "older",
        /// The same.
        Here = "the base's",
        /// A higher counter.
        Newer = "newer",
    }
}
words! {
    /// Whether the journal has another stream of that incarnation, under a lower number.
    Again {
        /// It has not.
        No = "no",
        /// It has.
        Yes = "yes",
    }
}
words! {
    /// What becomes of a stream.
    Stream {
        /// Nothing of it is needed: retired.
        Retired = "retired",
        /// Taken up above what is applied.
        Resumed = "resumed",
        /// Taken up from its first record.
        Waiting = "waiting",
        /// As resumed; the earlier one, from before its group was removed, is retired.
        Replaces = "resumed anew",
        /// As waiting; the earlier one is retired.
        WaitingAnew = "waiting anew",
    }
}
words! {
    /// The base, as the catalog has it.
    Base {
        /// Applied is the horizon: the targets are at rest.
        Resting = "resting",
        /// Applied is below the horizon: a step was under way.
        Moving = "moving",
    }
}
words! {
    /// How far the journal can take it.
    Reach {
        /// To the horizon at least.
        Horizon = "to the horizon",
        /// Not so far.
        Short = "not so far",
    }
}
words! {
    /// Its targets.
    Targets {
        /// Those it was given, with nothing changed by anyone else.
        Bound = "bound",
        /// Another disk, a changed one, or none.
        Other = "others",
    }
}
words! {
    /// What becomes of the base.
    Moved {
        /// It goes on from where it is.
        Rests = "rests",
        /// The step is made again, from applied to the horizon.
        Redone = "redone",
        /// It is in doubt: its volumes are copied again.
        Doubted = "doubted",
        /// Nothing is written until the targets are put right; then as if they always were.
        Refused = "refused",
        /// The same, and its volumes are copied again then.
        RefusedDoubted = "refused, doubted",
    }
}

impl From<bool> for InOrder {
    fn from(in_order: bool) -> Self {
        if in_order { Self::Yes } else { Self::No }
    }
}

/// Whether the receiver starts, and with which journal.
pub fn start(files: Files, known: Known) -> Start {
    match (files, known) {
        (Files::Newer, _) => Start::Version,
        (Files::Mixed, _) | (Files::One, Known::Other) => Start::Foreign,
        (Files::One, Known::None) => Start::Adopt,
        (Files::One, Known::This) => Start::Read,
        (Files::None, Known::None) => Start::Begin,
        (Files::None, Known::This | Known::Other) => Start::Missing,
        (Files::Unreadable, _) => Start::Unreadable,
    }
}

/// What a segment is.
pub fn segment(place: Place, file: SegmentFile, index: IndexFound) -> Segment {
    use IndexFound::{Bad, None, Whole};
    use SegmentFile::{Absent, Broken, Sound, Unreadable};
    match (place, file, index) {
        (Place::Above | Place::Unlisted | Place::SinceHead, Absent, _) => Segment::Nothing,
        (Place::Listed, Absent, _) => Segment::Missing,
        (Place::Above, Sound | Broken, _) => Segment::NeverUsed,
        (Place::Unlisted, Sound | Broken | Unreadable, _) => Segment::Freed,
        // It may have been written to, also above the newest that can be read.
        (Place::Above | Place::SinceHead | Place::Listed, Unreadable, _) => Segment::ReadBlind,
        // No list names it: whatever it ends in, it is read.
        (Place::SinceHead, Sound, _) | (Place::Listed, Sound, None) => Segment::Read,
        (Place::SinceHead, Broken, _) | (Place::Listed, Broken, None) => Segment::ReadUnheaded,
        (Place::Listed, Sound, Whole) => Segment::Indexed,
        (Place::Listed, Broken, Whole) => Segment::IndexedUnheaded,
        (Place::Listed, Sound, Bad) => Segment::ReadInstead,
        (Place::Listed, Broken, Bad) => Segment::ReadInsteadUnheaded,
    }
}

/// What a place in a segment holds.
pub fn group(found: GroupFound, follows: Follows, in_order: InOrder) -> Group {
    use Follows::{Later, Nothing, Rewritten};
    use GroupFound::{Broken, None, PartUnreadable, Unreadable, Whole};
    match (found, follows, in_order) {
        (Whole, Later | Nothing, InOrder::Yes) => Group::Used,
        (Whole, Later | Nothing, InOrder::No) => Group::UsedAfterGap,
        (Whole | Broken | PartUnreadable, Rewritten, _) => Group::Rewritten,
        // Unlike a write that was cut short it may have been whole, and acknowledged.
        (PartUnreadable, Later | Nothing, _) | (Broken, Later, _) => Group::Damaged,
        (Broken, Nothing, _) => Group::Torn,
        (None, Later | Rewritten, _) | (Unreadable, Later, _) => Group::Hole,
        (Unreadable, Nothing, _) => Group::GivenUp,
        (Unreadable, Rewritten, _) | (None, Nothing, InOrder::Yes) => Group::End,
        (None, Nothing, InOrder::No) => Group::EndMissing,
    }
}

/// What an entry is.
pub fn entry(head: EntryHead, body: EntryBody) -> Entry {
    match (head, body) {
        (EntryHead::Valid, EntryBody::Sound) => Entry::Used,
        (EntryHead::Valid, EntryBody::Unused) => Entry::Refused,
        (EntryHead::Valid, EntryBody::Broken) => Entry::Bad,
        (EntryHead::Broken, _) => Entry::Lost,
    }
}

/// What a stream in the journal is to its group.
pub fn stream(life: Life, again: Again) -> Stream {
    match (life, again) {
        (Life::Older, _) => Stream::Retired,
        (Life::Here, Again::No) => Stream::Resumed,
        (Life::Here, Again::Yes) => Stream::Replaces,
        (Life::Newer, Again::No) => Stream::Waiting,
        (Life::Newer, Again::Yes) => Stream::WaitingAnew,
    }
}

/// What the base does next.
pub fn base(base: Base, reach: Reach, targets: Targets) -> Moved {
    let doubted = (base, reach) == (Base::Moving, Reach::Short);
    match (targets, base) {
        (Targets::Other, _) if doubted => Moved::RefusedDoubted,
        (Targets::Other, _) => Moved::Refused,
        (Targets::Bound, _) if doubted => Moved::Doubted,
        (Targets::Bound, Base::Moving) => Moved::Redone,
        (Targets::Bound, Base::Resting) => Moved::Rests,
    }
}
