//! A receiving site without threads, disks or sockets: the group under test, a journal that makes
//! things durable when told to, a base of numbered blocks, a catalog.

use crate::catalog::{PointRecord, Since, StreamState, VolumeState};
use crate::fold::{Content, RecordAt};
use crate::journal::{Durable, Entry};
use crate::serve::group::{
    Admitted, Event, Group, Job, JobOutcome, Now, Output, Registered, Restored, SessionId, Step,
    Unopened,
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use wire::control::{Control, Hello};
use wire::journal::StreamNumber;
use wire::{Generation, Incarnation, Name, RecordHeader, Stamp, TimeMark, VolumeIndex, VolumeSpec};

pub(super) const BLOCK_BYTES: u64 = 4096;
pub(super) const BLOCKS: usize = 3;
pub(super) const VOLUMES: usize = 2;
/// Records in a segment of the journal.
pub(super) const SEGMENT_RECORDS: u64 = 8;
/// Least that leaves the window at once: a few records.
pub(super) const FOLD_STEP_BYTES: u64 = 3 * BLOCK_BYTES;

/// Contents: a number per block.
pub(super) type Image = [[u32; BLOCKS]; VOLUMES];

pub(super) fn name(volume: usize) -> Name {
    Name::new(["data", "wal"][volume]).unwrap()
}

pub(super) fn spec(volume: usize) -> VolumeSpec {
    VolumeSpec {
        index: VolumeIndex(volume as u16),
        name: name(volume),
        size_bytes: BLOCK_BYTES * BLOCKS as u64,
        sector_bytes: 512,
        identity: format!("disk{volume}"),
    }
}

pub(super) fn registered() -> Registered {
    let size_bytes = BLOCK_BYTES * BLOCKS as u64;
    Registered {
        size_bytes,
        sector_bytes: 512,
        refused: None,
        since: Some(Since::default()),
    }
}

/// What survives a crash of the receiver.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) catalog: Option<StreamState>,
    pub(super) base: Image,
    pub(super) journal: Vec<(StreamNumber, Durable)>,
    pub(super) payloads: BTreeMap<RecordAt, Bytes>,
    pub(super) next_stream: u64,
    /// How far back points are kept.
    pub(super) retain: Duration,
    /// From where on the records of a volume are its own.
    pub(super) since: [Option<Since>; VOLUMES],
    /// Where it met other sources of its group, if there are any.
    pub(super) cut: Option<Option<TimeMark>>,
}

/// The site.
pub(super) struct Site {
    pub(super) group: Group,
    pub(super) kept: Kept,
    pub(super) appended: VecDeque<Entry>,
    pub(super) job: Option<Job>,
    pub(super) said: Vec<(SessionId, Control)>,
    pub(super) ended: Vec<(SessionId, String)>,
    pub(super) other: Vec<Output>,
    pub(super) now: Now,
    pub(super) damaged: Option<RecordAt>,
    pub(super) losses: usize,
    /// Volumes whose targets cannot be opened.
    pub(super) refused: Vec<(Name, Unopened)>,
}

impl Kept {
    pub(super) fn fresh() -> Self {
        Self {
            catalog: None,
            base: [[u32::MAX; BLOCKS]; VOLUMES],
            journal: Vec::new(),
            payloads: BTreeMap::new(),
            next_stream: 1,
            retain: Duration::ZERO,
            since: [Some(Since::default()); VOLUMES],
            cut: None,
        }
    }
}

impl Site {
    /// The receiver begins with what was kept.
    pub(super) fn begin(kept: Kept) -> Self {
        let volumes = (0..VOLUMES).map(|volume| {
            let since = kept.since[volume];
            (
                name(volume),
                Registered {
                    since,
                    ..registered()
                },
            )
        });
        let names = (Name::new("pg").unwrap(), Name::new("db1").unwrap());
        let mut restored = Restored::new(names, volumes.collect(), kept.catalog.clone(), 1);
        if let Some(cut) = kept.cut {
            restored = restored.meeting(cut);
        }
        for (stream, durable) in &kept.journal {
            restored.found(*stream, durable.clone());
        }
        let (mut group, retired) = restored.retaining(kept.retain).finish();
        // Small steps: the base rests, and may be caught, in many places.
        group.step_changes_max = 2;
        group.window.set_fold_step(FOLD_STEP_BYTES);
        let mut site = Self {
            group,
            kept,
            appended: VecDeque::new(),
            job: None,
            said: Vec::new(),
            ended: Vec::new(),
            other: Vec::new(),
            now: Now {
                wall: TimeMark(1),
                up: Duration::ZERO,
            },
            damaged: None,
            losses: 0,
            refused: Vec::new(),
        };
        for stream in retired {
            site.kept.journal.retain(|(number, _)| *number != stream);
        }
        site.tell(Event::Tick);
        site
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.now.up += Duration::from_millis(30);
        if self.kept.cut.is_none() {
            // With another source the clocks of all go together.
            self.now.wall.0 += 30_000_000;
        }
        self.group.handle(self.now, event);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.group.poll() {
            match output {
                Output::Append(entries) => self.appended.extend(entries),
                Output::Job(job) => {
                    assert!(self.job.is_none(), "one job at a time");
                    self.job = Some(job);
                }
                Output::Say(session, control) => self.said.push((session, control)),
                Output::End(session, text) => self.ended.push((session, text)),
                Output::Retire(stream) => {
                    self.kept.journal.retain(|(number, _)| *number != stream);
                }
                Output::Applied(stream, stamp) => self.free(stream, stamp),
                other => self.other.push(other),
            }
        }
    }

    /// The journal forgets what is not needed any more.
    fn free(&mut self, stream: StreamNumber, applied: Stamp) {
        self.kept.journal.retain(|(number, durable)| {
            let needed = durable.needed_until();
            *number != stream || needed == Stamp::ZERO || needed > applied
        });
    }

    pub(super) fn hello(&mut self, session: SessionId, hello: Hello) {
        let generation = Generation {
            counter: 1,
            lineage: 1,
        };
        for since in &mut self.kept.since {
            since.get_or_insert_with(|| Since::hello(&hello));
        }
        let number = StreamNumber(self.kept.next_stream);
        self.kept.next_stream += 1;
        self.tell(Event::Hello(
            session,
            Box::new(Admitted {
                hello,
                generation,
                number,
            }),
        ));
    }

    /// Makes the first `count` appended entries durable.
    pub(super) fn commit(&mut self, count: usize) {
        for _ in 0..count {
            let Some(entry) = self.appended.pop_front() else {
                return;
            };
            let stream = entry.stream();
            let durable = self.store(entry);
            self.kept.journal.push((stream, durable.clone()));
            self.tell(Event::Durable(stream, vec![durable]));
        }
    }

    fn store(&mut self, entry: Entry) -> Durable {
        match entry {
            Entry::Record(_, header, payload) => {
                let count = self.kept.payloads.len() as u64;
                let at = RecordAt {
                    segment: 1 + count / SEGMENT_RECORDS,
                    offset_bytes: count,
                };
                self.kept.payloads.insert(at, payload.clone());
                let note = if header.length_bytes == 0 {
                    payload
                } else {
                    Bytes::new()
                };
                Durable::Record { header, at, note }
            }
            Entry::Settle(_, mark) => Durable::Settle(mark),
            Entry::Open(_, open) => Durable::Open(open),
            Entry::Close(_, close) => Durable::Close(close),
            Entry::Lost(_, lost) => {
                self.losses += 1;
                Durable::Lost(lost)
            }
        }
    }

    /// Does the waiting job, all of it.
    pub(super) fn work(&mut self) {
        let Some(job) = self.job.take() else { return };
        let outcome = match &job {
            Job::Commit(state) => {
                self.commit_state(state);
                JobOutcome::Done
            }
            Job::Reopen => JobOutcome::Reopened(self.refused.clone()),
            Job::Step(step) => self.step(step),
        };
        self.tell(Event::Job(outcome));
    }

    fn step(&mut self, step: &Step) -> JobOutcome {
        if let Some(at) = self.damaged.filter(|at| needs(step, *at)) {
            return JobOutcome::Damaged {
                at,
                reason: "the journal is damaged".into(),
            };
        }
        if let Some(heading) = &step.heading {
            self.commit_state(heading);
        }
        self.write(step, |_, _| true);
        self.commit_state(&step.reached);
        JobOutcome::Done
    }

    /// The receiver dies in the middle of the waiting job: `reach` says how far it came.
    pub(super) fn die_working(&mut self, reach: u64, wrote: impl Fn(usize, usize) -> bool) {
        let Some(job) = self.job.take() else { return };
        match &job {
            Job::Reopen => {}
            Job::Commit(state) if reach > 0 => self.commit_state(state),
            Job::Commit(_) => {}
            Job::Step(step) => {
                if reach > 0
                    && let Some(heading) = &step.heading
                {
                    self.commit_state(heading);
                }
                if reach > 1 || (reach > 0 && step.heading.is_none()) {
                    self.write(step, wrote);
                }
                if reach > 2 {
                    self.write(step, |_, _| true);
                    self.commit_state(&step.reached);
                }
            }
        }
    }

    fn commit_state(&mut self, state: &StreamState) {
        if let Some(before) = &self.kept.catalog {
            assert!(before.incarnation.counter <= state.incarnation.counter);
            if before.incarnation == state.incarnation {
                assert!(before.horizon <= state.horizon && before.applied <= state.applied);
            }
            assert!(before.last_mark <= state.last_mark);
        }
        assert!(state.applied <= state.horizon);
        self.kept.catalog = Some(state.clone());
    }

    fn write(&mut self, step: &Step, wrote: impl Fn(usize, usize) -> bool) {
        let catalog = self.kept.catalog.clone().unwrap_or_default();
        assert!(
            catalog.incarnation == step.reached.incarnation
                && catalog.horizon == step.reached.horizon,
            "P10: written for {:?}, committed is {catalog:?}",
            step.reached
        );
        for (volume, changes) in &step.changes {
            let volume = usize::from(*volume == name(1));
            let mut after: BTreeMap<usize, u32> = BTreeMap::new();
            for extent in changes {
                let value = match extent.content {
                    Content::Zero => 0,
                    Content::Data(record) => number(&self.kept.payloads[&record.at]),
                };
                let blocks = extent.range.offset_bytes..extent.range.end_bytes();
                for block in blocks.step_by(BLOCK_BYTES as usize) {
                    after.insert((block / BLOCK_BYTES) as usize, value);
                }
            }
            for (block, value) in after {
                if wrote(volume, block) {
                    self.kept.base[volume][block] = value;
                }
            }
        }
    }

    /// What a receiver would come to by itself, restarted now with nothing from any source.
    pub(super) fn recovered(&self) -> (Image, StreamState) {
        let mut site = Self::begin(self.kept.clone());
        for _ in 0..1000 {
            site.commit(usize::MAX);
            if site.job.is_none() && site.appended.is_empty() {
                site.tell(Event::Tick);
                if site.job.is_none() {
                    let catalog = site.kept.catalog.clone().unwrap_or_default();
                    return (site.kept.base, catalog);
                }
            }
            site.work();
        }
        panic!("recovery does not come to rest");
    }

    /// What an operator gets who asks for a point now.
    pub(super) fn image_at(&self, point: PointRecord) -> Image {
        let mut image = self.kept.base;
        for (volume, blocks) in image.iter_mut().enumerate() {
            let mut after = None;
            loop {
                let page = self.group.page(&name(volume), point, after);
                for patch in page.patches {
                    let value = patch.record.map_or(0, |(segment, offset_bytes)| {
                        let at = RecordAt {
                            segment,
                            offset_bytes,
                        };
                        number(&self.kept.payloads[&at])
                    });
                    blocks[(patch.offset_bytes / BLOCK_BYTES) as usize] = value;
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        image
    }

    /// What was said to the source since the last time.
    pub(super) fn heard(&mut self) -> Vec<(SessionId, Control)> {
        let ack = if self.group.ack_is_due() {
            self.group.ack(self.now)
        } else {
            None
        };
        if let Some(Output::Say(session, control)) = ack {
            self.said.push((session, control));
        }
        std::mem::take(&mut self.said)
    }
}

fn needs(step: &Step, at: RecordAt) -> bool {
    let mut changes = step.changes.iter().flat_map(|(_, changes)| changes);
    changes.any(|extent| matches!(extent.content, Content::Data(record) if record.at == at))
}

/// The number a payload holds.
pub(super) fn number(payload: &Bytes) -> u32 {
    u32::from_le_bytes(*payload.first_chunk().unwrap())
}

/// A payload that holds a number.
pub(super) fn payload(value: u32) -> Bytes {
    let mut bytes = vec![0; BLOCK_BYTES as usize];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    Bytes::from(bytes)
}

/// Whether a volume in this state is part of what the base holds.
pub(super) fn is_held(state: VolumeState) -> bool {
    crate::points::counts_as(state)
}

pub(super) fn hello_of(incarnation: Incarnation, oldest: u64, captured: u64) -> Hello {
    Hello {
        probe: false,
        source: Name::new("db1").unwrap(),
        group: Name::new("pg").unwrap(),
        generation: Generation::default(),
        incarnation,
        ring_slots: 16,
        oldest: Stamp(oldest),
        captured: Stamp(captured),
        volumes: (0..VOLUMES).map(spec).collect(),
    }
}

pub(super) type Batch = Vec<(RecordHeader, Bytes)>;
