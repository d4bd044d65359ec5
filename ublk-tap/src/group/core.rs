//! The state machine of a group. Pure: no I/O, no clock; what it wants done is polled.
//!
//! The stream is open or given up. It is given up when a write has waited too long for room, when
//! the shipper's page is not to be believed, or when a range whose write failed cannot be read
//! again; and taken up by a `gap` when the link is up, the ring has drained and a pause has
//! passed. Every volume then joins and is copied. Between, volumes enter, are copied, and leave, each
//! by its member records.

use super::backoff::Backoff;
use super::volume::{Place, Volume};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};
use wire::{MemberAction, Stamp, VolumeIndex};

/// The decisions about a group.
#[derive(Debug)]
pub struct Core {
    park: Duration,
    stream: Stream,
    link: Link,
    volumes: BTreeMap<VolumeIndex, Volume>,
    backoff: Backoff,
    outputs: VecDeque<Output>,
}

/// What happens to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreEvent {
    /// The driver has looked around.
    Observed(Facts),
    /// The link came up or went down.
    Link {
        /// Whether records travel.
        is_up: bool,
        /// Why not, in words.
        words: String,
    },
    /// A disk was opened and is to become a volume.
    Added {
        /// Its number.
        index: VolumeIndex,
        /// How it enters the stream.
        start: Start,
    },
    /// The member record of [`Output::Claim`] has its place.
    Claimed {
        /// Of this volume.
        index: VolumeIndex,
        /// What it says.
        action: MemberAction,
        /// Its place.
        stamp: Stamp,
    },
    /// The gap of [`Output::Reopen`] has its place: the stream is open again.
    Reopened,
    /// It has none yet.
    NotReopened,
    /// A copy has read its whole volume.
    Copied {
        /// The volume.
        index: VolumeIndex,
        /// The run it was started as.
        run: u64,
    },
    /// A range whose write failed cannot be read again.
    RereadFailed {
        /// The volume.
        index: VolumeIndex,
        /// Which range and why, in words.
        words: String,
    },
    /// More writes failed than could be noted: any of the volume may differ.
    FaultsLost {
        /// The volume.
        index: VolumeIndex,
    },
    /// The receiver, or the shipper, needs a copy.
    CopyWanted {
        /// Of this volume, or of all.
        index: Option<VolumeIndex>,
        /// What the receiver held durably when it said so.
        durable: Stamp,
        /// Why, in words.
        words: String,
    },
    /// The driver can wait no longer for what waits for room.
    GaveUp {
        /// Why, in words.
        words: String,
    },
    /// A volume's device is gone, with nothing of it in flight.
    Leave {
        /// The volume.
        index: VolumeIndex,
    },
    /// A volume is no longer part of the group here.
    Dropped {
        /// The volume.
        index: VolumeIndex,
    },
}

/// What the driver sees each turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Durable at the receiver, as checked.
    pub acked: Stamp,
    /// How full the ring is.
    pub used_permille: u64,
    /// How long the oldest record has waited for room.
    pub waiting: Option<Duration>,
    /// The same of the oldest write, while a device has few requests left for reads.
    pub crowded: Option<Duration>,
    /// Why the shipper's page is not to be believed.
    pub violation: Option<String>,
    /// The shipper was parted with, and the next one has not come yet.
    pub is_replacing: bool,
}

/// How a volume enters the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its content is what it was at an earlier `leave`.
    Continue(MemberAction),
    /// It is copied, for this reason.
    Join(String),
    /// It was in the stream when its tap died.
    Recovered {
        /// How often it was copied before.
        copies: u64,
        /// Why it is copied again; it goes on as it is if there is no reason.
        copied: Option<String>,
    },
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Give the stream up, forget the claims that wait, and let waiting writes go.
    Close,
    /// Take the stream up again with a gap that says why; answer with `Reopened` or `NotReopened`.
    Reopen(String),
    /// Claim a member record, in place of one of the same volume that still waits; answer with
    /// `Claimed`.
    Claim(VolumeIndex, MemberAction),
    /// Make the device of a volume.
    GoLive(VolumeIndex),
    /// Copy a volume; answer with `Copied`.
    StartCopy(VolumeIndex, u64),
    /// End the copy of a volume, wherever it is.
    CancelCopy(VolumeIndex),
    /// Part with the shipper; another may come.
    ReplaceShipper,
}

/// The mode of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A volume is copied amid the stream.
    FirstCopy,
    /// Every write is streamed.
    Async,
    /// The stream is given up.
    Broken,
}

#[derive(Debug)]
enum Stream {
    Open,
    Broken { reason: String, reopening: bool },
}

#[derive(Debug)]
struct Link {
    is_up: bool,
    words: String,
}

/// How long a write may wait while those that wait leave few requests of a device for reads.
const CROWDED_PARK: Duration = Duration::from_secs(1);
/// The stream is taken up again when the ring is at most this full.
const REOPEN_PERMILLE_MAX: u64 = 250;

const IN_DOUBT: &str = "many writes failed";

impl Core {
    /// A group without volumes. A write may wait for `park`.
    pub fn new(park: Duration) -> Self {
        Self {
            park,
            stream: Stream::Open,
            link: Link {
                is_up: false,
                words: "the shipper has not connected yet".into(),
            },
            volumes: BTreeMap::new(),
            backoff: Backoff::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes note of an event. Time never goes back.
    pub fn handle(&mut self, now: Instant, event: CoreEvent) {
        match event {
            CoreEvent::Observed(facts) => self.observed(now, &facts),
            CoreEvent::Link { is_up, words } => self.link = Link { is_up, words },
            CoreEvent::Added { index, start } => self.added(index, start),
            CoreEvent::Claimed {
                index,
                action,
                stamp,
            } => self.claimed(index, action, stamp),
            CoreEvent::Reopened => self.reopened(),
            CoreEvent::NotReopened => self.not_reopened(),
            CoreEvent::Copied { index, run } => self.copied(index, run),
            CoreEvent::RereadFailed { index, words } => self.reread_failed(now, index, &words),
            CoreEvent::FaultsLost { index } => self.faults_lost(index),
            CoreEvent::CopyWanted {
                index,
                durable,
                words,
            } => {
                self.copy_wanted(index, durable, &words);
            }
            CoreEvent::GaveUp { words } => {
                if matches!(self.stream, Stream::Open) {
                    self.give_up(now, words);
                }
            }
            CoreEvent::Leave { index } => self.leave(index),
            CoreEvent::Dropped { index } => {
                self.volumes.remove(&index);
            }
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        match self.stream {
            Stream::Broken { .. } => Mode::Broken,
            Stream::Open if self.volumes.values().any(|v| v.place.is_copying()) => Mode::FirstCopy,
            Stream::Open => Mode::Async,
        }
    }

    /// Why the group is in its mode, in words; empty in the usual one.
    pub fn reason(&self, now: Instant) -> String {
        match &self.stream {
            Stream::Broken { reason, .. } => format!("{reason}; {}", self.waits_for(now)),
            Stream::Open => {
                let mut reasons: Vec<&str> = self.volumes.values().filter_map(reason_of).collect();
                reasons.dedup();
                reasons.join("; ")
            }
        }
    }

    /// Whether every volume is whole at the receiver, but for the changes on their way.
    pub fn is_whole(&self) -> bool {
        let whole = |v: &Volume| {
            !v.is_in_doubt && (matches!(v.place, Place::Ready) || v.place.is_parting())
        };
        matches!(self.stream, Stream::Open) && self.volumes.values().all(whole)
    }

    /// Whether any of a volume may differ from what the receiver has, until it is copied again.
    pub fn is_in_doubt(&self, index: VolumeIndex) -> bool {
        let volume = self.volumes.get(&index);
        volume.is_some_and(|volume| volume.is_in_doubt)
    }

    /// Where a volume stands.
    pub fn place(&self, index: VolumeIndex) -> Option<Place> {
        self.volumes.get(&index).map(|volume| volume.place)
    }

    /// Why a volume is copied, in words; empty if it is not.
    pub fn volume_reason(&self, index: VolumeIndex) -> &str {
        let volume = self.volumes.get(&index);
        volume
            .filter(|v| v.place.is_copying())
            .map_or("", |v| &v.reason)
    }

    /// How often a volume was copied.
    pub fn copies(&self, index: VolumeIndex) -> u64 {
        self.volumes.get(&index).map_or(0, |volume| volume.run)
    }

    fn observed(&mut self, now: Instant, facts: &Facts) {
        self.judge_shipper(now, facts);
        if matches!(self.stream, Stream::Broken { .. }) {
            self.consider_reopening(now, facts);
            return;
        }
        if facts.waiting.is_some_and(|waiting| waiting > self.park) {
            let because = self.because_of_link();
            let waited = self.park.as_secs_f64();
            let reason = format!("the ring was full for more than {waited:.1} s ({because})");
            self.give_up(now, reason);
            return;
        }
        let crowded_park = self.park.min(CROWDED_PARK);
        if facts.crowded.is_some_and(|waiting| waiting > crowded_park) {
            let because = self.because_of_link();
            let waited = crowded_park.as_secs_f64();
            let reason = format!(
                "the ring was full for more than {waited:.1} s with few requests left for reads \
                 ({because})"
            );
            self.give_up(now, reason);
            return;
        }
        for volume in self.volumes.values_mut() {
            if let Place::Confirming { ready, .. } = volume.place
                && facts.acked >= ready
            {
                volume.place = Place::Ready;
            }
        }
        self.grant_wishes(now);
    }

    fn judge_shipper(&mut self, now: Instant, facts: &Facts) {
        // It stays until the next shipper comes; one that comes with its own is parted with too.
        let Some(violation) = facts.violation.as_ref().filter(|_| !facts.is_replacing) else {
            return;
        };
        self.give_up(now, violation.clone());
        self.outputs.push_back(Output::ReplaceShipper);
    }

    /// Ends the stream here; what was claimed before is the stream, nothing after it.
    fn give_up(&mut self, now: Instant, reason: String) {
        if let Stream::Broken { reason: old, .. } = &mut self.stream {
            *old = reason;
            return;
        }
        self.stream = Stream::Broken {
            reason,
            reopening: false,
        };
        self.backoff.failed(now);
        self.outputs.push_back(Output::Close);
        for (index, volume) in &mut self.volumes {
            volume.wish = None;
            volume.is_in_doubt = false;
            match volume.place {
                Place::Left { .. } => continue,
                Place::Entering(_) => self.outputs.push_back(Output::GoLive(*index)),
                Place::Copying { .. } => self.outputs.push_back(Output::CancelCopy(*index)),
                _ => {}
            }
            volume.place = Place::Outside;
        }
    }

    fn consider_reopening(&mut self, now: Instant, facts: &Facts) {
        let is_calm = facts.violation.is_none() && facts.used_permille <= REOPEN_PERMILLE_MAX;
        let is_wanted = self
            .volumes
            .values()
            .any(|volume| volume.place == Place::Outside);
        let is_time = self.link.is_up && is_calm && is_wanted && self.backoff.is_over(now);
        if let Stream::Broken { reason, reopening } = &mut self.stream
            && is_time
            && !*reopening
        {
            *reopening = true;
            self.outputs.push_back(Output::Reopen(reason.clone()));
        }
    }

    fn reopened(&mut self) {
        let Stream::Broken {
            reason,
            reopening: true,
        } = &self.stream
        else {
            return;
        };
        let reason = format!("copied again: {reason}");
        self.stream = Stream::Open;
        for (index, volume) in &mut self.volumes {
            if volume.place == Place::Outside {
                join(*index, volume, reason.clone(), &mut self.outputs);
            }
        }
    }

    fn not_reopened(&mut self) {
        if let Stream::Broken { reopening, .. } = &mut self.stream {
            *reopening = false;
        }
    }

    fn added(&mut self, index: VolumeIndex, start: Start) {
        let (action, reason, copies) = match start {
            Start::Continue(action) => (Some(action), String::new(), 0),
            Start::Join(reason) => (Some(MemberAction::Join), reason, 0),
            Start::Recovered { copies, copied } => {
                let action = copied.is_some().then_some(MemberAction::Join);
                (action, copied.unwrap_or_default(), copies)
            }
        };
        let place = match (&self.stream, action) {
            (Stream::Open, Some(action)) => {
                self.outputs.push_back(Output::Claim(index, action));
                Place::Entering(action)
            }
            (Stream::Open, None) => {
                self.outputs.push_back(Output::GoLive(index));
                Place::Ready
            }
            // What it takes from the start is not captured: it joins with the others.
            (Stream::Broken { .. }, _) => {
                self.outputs.push_back(Output::GoLive(index));
                Place::Outside
            }
        };
        let mut volume = Volume::new(place, reason);
        volume.run = copies;
        self.volumes.insert(index, volume);
    }

    fn claimed(&mut self, index: VolumeIndex, action: MemberAction, stamp: Stamp) {
        let Some(volume) = self.volumes.get_mut(&index) else {
            return;
        };
        if volume.place.claims() != Some(action) {
            return;
        }
        if matches!(volume.place, Place::Entering(_)) {
            self.outputs.push_back(Output::GoLive(index));
        }
        volume.place = match (action, volume.place) {
            (MemberAction::Join, _) => {
                volume.run += 1;
                self.outputs.push_back(Output::StartCopy(index, volume.run));
                Place::Copying { join: stamp }
            }
            (MemberAction::Ready, Place::Closing { join }) => {
                Place::Confirming { join, ready: stamp }
            }
            (MemberAction::Leave, _) => Place::Left { leave: stamp },
            _ => Place::Ready,
        };
    }

    fn copied(&mut self, index: VolumeIndex, run: u64) {
        let Some(volume) = self.volumes.get_mut(&index) else {
            return;
        };
        if let Place::Copying { join } = volume.place
            && volume.run == run
        {
            volume.place = Place::Closing { join };
            self.outputs
                .push_back(Output::Claim(index, MemberAction::Ready));
        }
    }

    fn reread_failed(&mut self, now: Instant, index: VolumeIndex, words: &str) {
        if self.volumes.contains_key(&index) && matches!(self.stream, Stream::Open) {
            self.give_up(now, words.to_owned());
        }
    }

    fn faults_lost(&mut self, index: VolumeIndex) {
        self.wish(index, None, IN_DOUBT);
        if let Some(volume) = self.volumes.get_mut(&index) {
            // Before its copy has begun, and outside the stream, it will be read as a whole anyway.
            volume.is_in_doubt = volume.place == Place::Ready || volume.place.join().is_some();
        }
    }

    fn copy_wanted(&mut self, index: Option<VolumeIndex>, durable: Stamp, words: &str) {
        let all = self.volumes.keys().copied();
        let wanted: Vec<VolumeIndex> = all
            .filter(|found| index.is_none_or(|index| index == *found))
            .collect();
        let reason = format!("the receiver asked for it: {words}");
        for index in wanted {
            self.wish(index, Some(durable), &reason);
        }
    }

    /// Notes that a copy is wanted. One whose `join` the asker had not seen yet will do.
    fn wish(&mut self, index: VolumeIndex, seen: Option<Stamp>, reason: &str) {
        let Some(volume) = self.volumes.get_mut(&index) else {
            return;
        };
        let is_on_its_way = volume
            .place
            .join()
            .is_some_and(|join| seen.is_some_and(|seen| join > seen));
        let may_rejoin = volume.place == Place::Ready || volume.place.join().is_some();
        if may_rejoin && !is_on_its_way {
            volume.wish = Some(reason.to_owned());
        }
    }

    fn grant_wishes(&mut self, now: Instant) {
        for (index, volume) in &mut self.volumes {
            let may_rejoin = volume.place == Place::Ready || volume.place.join().is_some();
            if !may_rejoin {
                volume.wish = None;
                continue;
            }
            if let Some(reason) = volume.take_wish(now) {
                if matches!(volume.place, Place::Copying { .. }) {
                    self.outputs.push_back(Output::CancelCopy(*index));
                }
                join(*index, volume, reason, &mut self.outputs);
            }
        }
    }

    fn leave(&mut self, index: VolumeIndex) {
        let Some(volume) = self.volumes.get_mut(&index) else {
            return;
        };
        if matches!(volume.place, Place::Copying { .. }) {
            self.outputs.push_back(Output::CancelCopy(index));
        }
        if matches!(self.stream, Stream::Open) && !volume.place.is_parting() {
            volume.place = Place::Leaving;
            volume.wish = None;
            self.outputs
                .push_back(Output::Claim(index, MemberAction::Leave));
        }
    }

    fn because_of_link(&self) -> String {
        match (self.link.is_up, self.link.words.as_str()) {
            (true, _) => "the link is slower than the writes".into(),
            (false, "") => "the link is down".into(),
            (false, words) => format!("the link is down: {words}"),
        }
    }

    /// What must happen before the stream is taken up again.
    fn waits_for(&self, now: Instant) -> String {
        if !self.link.is_up {
            return "copied again when the link is up".into();
        }
        if !self.backoff.is_over(now) {
            let left = self.backoff.left(now).as_secs() + 1;
            return format!("copied again in {left} s");
        }
        "copied again when the ring has drained".into()
    }
}

fn reason_of(volume: &Volume) -> Option<&str> {
    let doubt = volume.is_in_doubt.then_some(IN_DOUBT);
    doubt.or_else(|| volume.place.is_copying().then_some(&volume.reason))
}

fn join(index: VolumeIndex, volume: &mut Volume, reason: String, outputs: &mut VecDeque<Output>) {
    volume.place = Place::Joining;
    volume.is_in_doubt = false;
    volume.reason = reason;
    outputs.push_back(Output::Claim(index, MemberAction::Join));
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstCopy => "first copy",
            Self::Async => "async",
            Self::Broken => "broken",
        })
    }
}
