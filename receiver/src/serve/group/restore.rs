//! A group as it was left: what the catalog says, and what the journal holds.

use super::base::Holds;
use super::committed::Committed;
use super::event::Output;
use super::meeting::Meeting;
use super::stream::Stream;
use super::targets::Targets;
use super::window::Window;
use super::{Group, Registered};
use crate::catalog::StreamState;
use crate::fold::{STEP_CHANGES_MAX, STEP_ZERO_BYTES_MAX};
use crate::intake::{self, INDEX_RECORDS_MAX, Intake};
use crate::journal::Durable;
use crate::points::Points;
use crate::recovery::{self, Again, Base, Life, Moved, Reach};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use wire::journal::{StreamClose, StreamNumber, StreamOpen};
use wire::{Name, Stamp, TimeMark};

/// A group being put together again.
#[derive(Debug)]
pub struct Restored {
    name: Name,
    source: Name,
    volumes: BTreeMap<Name, Registered>,
    base: StreamState,
    generation: u64,
    retain: Duration,
    meeting: Meeting,
    streams: BTreeMap<StreamNumber, Stream>,
    retired: Vec<StreamNumber>,
}

impl Restored {
    /// What the catalog says.
    pub fn new(
        (name, source): (Name, Name),
        volumes: BTreeMap<Name, Registered>,
        base: Option<StreamState>,
        generation: u64,
    ) -> Self {
        let mut base = base.unwrap_or_default();
        base.volumes
            .retain(|volume, _| volumes.contains_key(volume));
        let (streams, retired) = (BTreeMap::new(), Vec::new());
        Self {
            name,
            source,
            volumes,
            base,
            generation,
            retain: Duration::ZERO,
            meeting: Meeting::default(),
            streams,
            retired,
        }
    }

    /// Keeps points for that long; without a word none but the newest.
    pub fn retaining(self, retain: Duration) -> Self {
        Self { retain, ..self }
    }

    /// There are other sources of the group, which met there.
    pub fn meeting(self, cut: Option<TimeMark>) -> Self {
        let meeting = Meeting::with_others(cut);
        Self { meeting, ..self }
    }

    /// An operator has let the source go, and it has not been back.
    pub fn let_go(mut self) -> Self {
        let (source, group) = (&self.source, &self.name);
        let words = format!("source {source} was detached from group {group} by its operator");
        self.meeting.remember_farewell(words);
        self
    }

    /// The next entry the journal holds.
    pub fn found(&mut self, number: StreamNumber, durable: Durable) {
        if let Durable::Open(open) = &durable
            && !self.streams.contains_key(&number)
        {
            self.begin(number, open.clone());
        }
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.intake.durable(durable);
        }
    }

    fn begin(&mut self, number: StreamNumber, open: StreamOpen) {
        let said = open.incarnation;
        let here = said == self.base.incarnation;
        let life = match said.counter > self.base.incarnation.counter {
            _ if here => Life::Here,
            true => Life::Newer,
            false => Life::Older,
        };
        // The same incarnation under an older number: from before its group was removed.
        let of_said = |(_, stream): &(&StreamNumber, &Stream)| stream.incarnation() == said;
        let earlier = self.streams.iter().find(of_said).map(|(number, _)| *number);
        let again = earlier.map_or(Again::No, |_| Again::Yes);
        match recovery::stream(life, again) {
            recovery::Stream::Retired => {
                if !self.retired.contains(&number) {
                    self.retired.push(number);
                }
                return;
            }
            recovery::Stream::Resumed | recovery::Stream::Waiting => {}
            recovery::Stream::Replaces | recovery::Stream::WaitingAnew => {
                if let Some(earlier) = earlier {
                    self.streams.remove(&earlier);
                    self.retired.push(earlier);
                }
            }
        }
        let applied = if here { self.base.applied } else { Stamp::ZERO };
        let known = if here { self.base.horizon } else { Stamp::ZERO };
        let mark = self.base.last_mark;
        let intake = Intake::new(open, intake::Base { applied, mark });
        self.streams.insert(
            number,
            Stream {
                known,
                ..Stream::new(number, intake)
            },
        );
    }

    /// The group, and the streams nothing is needed of.
    pub fn finish(self) -> (Group, Vec<StreamNumber>) {
        let mut streams: Vec<Stream> = self.streams.into_values().collect();
        streams.sort_by_key(|stream| stream.incarnation().counter);
        let last = streams.len().saturating_sub(1);
        for stream in streams.iter_mut().take(last) {
            if stream.intake.closed().is_none() {
                let upto = stream.intake.settled_prefix();
                stream.intake.durable(Durable::Close(StreamClose { upto }));
            }
        }
        let StreamState {
            incarnation,
            horizon,
            applied,
            point,
            ..
        } = self.base;
        let points = Points::restore(incarnation, horizon, point, self.base.volumes.clone());
        let mut group = Group {
            name: self.name,
            source: self.source,
            volumes: self.volumes,
            points,
            streams: VecDeque::from(streams),
            left: Vec::new(),
            committed: Committed::of(&self.base),
            base: self.base,
            session: None,
            greeting: None,
            job: None,
            next_step: Duration::ZERO,
            step_changes_max: STEP_CHANGES_MAX,
            step_zero_bytes_max: STEP_ZERO_BYTES_MAX,
            records_max: INDEX_RECORDS_MAX,
            told_full: false,
            damaged: false,
            failed: None,
            journal_failed: None,
            journal_full: false,
            window: Window::new(self.retain),
            targets: Targets::new(),
            holds: Holds::default(),
            meeting: self.meeting,
            removing: Vec::new(),
            wanted: VecDeque::new(),
            stopping: false,
            ack_due: false,
            heard: TimeMark(0),
            covered: TimeMark(0),
            generation: self.generation,
            out: VecDeque::new(),
        };
        let base = if horizon > applied {
            Base::Moving
        } else {
            Base::Resting
        };
        let reach = if group.held_here() < horizon {
            Reach::Short
        } else {
            Reach::Horizon
        };
        // Targets are opened later; until they are the right ones nothing is written.
        if recovery::base(base, reach, recovery::Targets::Bound) == Moved::Doubted {
            group.lose_base("the journal lost what the base was being moved by");
        }
        group.feed_points();
        group.release_applied();
        (group, self.retired)
    }
}

impl Group {
    /// Tells the journal what is in the base already: it may not have heard before the end, and a
    /// full one waits for it.
    fn release_applied(&mut self) {
        let Self { base, streams, .. } = self;
        let here = |stream: &&Stream| stream.incarnation() == base.incarnation;
        let applied = base.applied;
        if let Some(stream) = streams.iter().find(here)
            && applied > Stamp::ZERO
        {
            self.out.push_back(Output::Applied(stream.number, applied));
        }
    }

    /// How far the journal can take the base in the stream it is in.
    fn held_here(&self) -> Stamp {
        let here = self.base.incarnation;
        let stream = self
            .streams
            .iter()
            .find(|stream| stream.incarnation() == here);
        let held = stream.map(|stream| {
            let held = stream.intake.settled_prefix();
            stream
                .intake
                .closed()
                .map_or(held, |closed| held.min(closed))
        });
        held.unwrap_or(self.base.applied)
    }
}
