//! Points against the truth: a source with real contents, a receiver that applies, and at every
//! instant the question whether the newest point can be had and is what the source was.

mod losses;
mod stories;
mod unknown;

use super::*;
use proptest::prelude::*;

const VOLUMES: usize = 2;
const BLOCKS: usize = 2;

type Content = [[u32; BLOCKS]; VOLUMES];

fn name(volume: usize) -> Name {
    Name::new(["a", "b"][volume]).unwrap()
}

fn incarnation(counter: u64) -> Incarnation {
    Incarnation { counter, id: 1 }
}

#[derive(Clone, Debug)]
enum Record {
    Block {
        volume: usize,
        block: usize,
        value: u32,
    },
    /// A write the disk refused: what the block holds now is in no record.
    Refused {
        volume: usize,
        block: usize,
    },
    Member(usize, MemberAction),
    Gap,
}

/// What the source does next.
#[derive(Clone, Debug)]
enum Op {
    Write(usize, usize),
    /// The disk refuses a write, having done some of it or nothing.
    Refuse(usize, usize, bool),
    /// What a refused write left behind is read again.
    Reread(usize),
    /// The volume joins, or its copy goes on, or is ready.
    Copy(usize),
    /// A copy begins, or begins anew.
    Recopy(usize),
    /// The volume leaves, its copy complete or not.
    Leave(usize),
    /// Writes that leave no record, then a gap.
    GiveUp(usize, usize),
    /// A new incarnation; the last records of the old one never arrive.
    Crash(Option<(usize, usize)>),
    /// A new incarnation that continues the volumes that left; with disks and state file put back
    /// from a backup, it names an older place.
    Restart {
        stale: bool,
    },
    /// The receiver applies a part of what it may.
    Apply(usize),
    /// The receiver restarts from its catalog and its journal.
    Recover,
}

fn op() -> impl Strategy<Value = Op> {
    let (volume, block) = (0..VOLUMES, 0..BLOCKS);
    let at = (volume.clone(), block);
    prop_oneof![
        8 => at.clone().prop_map(|(v, b)| Op::Write(v, b)),
        2 => (at.clone(), any::<bool>()).prop_map(|((v, b), part)| Op::Refuse(v, b, part)),
        6 => volume.clone().prop_map(Op::Reread),
        12 => volume.clone().prop_map(Op::Copy),
        1 => volume.clone().prop_map(Op::Recopy),
        2 => volume.prop_map(Op::Leave),
        1 => at.clone().prop_map(|(v, b)| Op::GiveUp(v, b)),
        1 => proptest::option::of(at).prop_map(Op::Crash),
        2 => any::<bool>().prop_map(|stale| Op::Restart { stale }),
        6 => (1usize..8).prop_map(Op::Apply),
        2 => Just(Op::Recover),
    ]
}

/// Where the source stands with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Its records are of no use before it joins.
    Out,
    /// Being copied: so many blocks have come.
    Copying(usize),
    In,
    /// It left there, and nobody writes it.
    Resting(Incarnation, Stamp),
}

/// A source and a receiver.
struct World {
    truth: Content,
    sides: [Side; VOLUMES],
    /// Where each volume left last, and the time before that.
    last_rest: [Option<(Incarnation, Stamp, [u32; BLOCKS])>; VOLUMES],
    rested: [Option<(Incarnation, Stamp, [u32; BLOCKS])>; VOLUMES],
    now: Incarnation,
    records: Vec<Record>,
    /// Truth after each record of this incarnation; the first is before any.
    history: Vec<Content>,
    /// Truth at the point of an older incarnation that is kept.
    old: BTreeMap<u64, Vec<Content>>,
    next_value: u32,
    base: Content,
    applied: Stamp,
    horizon: Stamp,
    points: Points,
    catalog: (Stamp, Option<PointRecord>, BTreeMap<Name, VolumeState>),
    had_point: bool,
}

impl World {
    fn new() -> Self {
        let truth = [[1; BLOCKS]; VOLUMES];
        let now = incarnation(1);
        let mut points =
            Points::restore(Incarnation::default(), Stamp::ZERO, None, BTreeMap::new());
        points.open(now);
        Self {
            truth,
            sides: [Side::Out; VOLUMES],
            last_rest: [None; VOLUMES],
            rested: [None; VOLUMES],
            now,
            records: Vec::new(),
            history: vec![truth],
            old: BTreeMap::new(),
            next_value: 2,
            base: [[0; BLOCKS]; VOLUMES],
            applied: Stamp::ZERO,
            horizon: Stamp::ZERO,
            points,
            catalog: (Stamp::ZERO, None, BTreeMap::new()),
            had_point: false,
        }
    }

    fn emit(&mut self, record: Record) {
        self.records.push(record);
        self.history.push(self.truth);
        feed(&mut self.points, &self.records);
    }

    fn change(&mut self, volume: usize, block: usize) {
        self.truth[volume][block] = self.next_value;
        self.next_value += 1;
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Write(volume, block) => self.write(volume, block),
            Op::Refuse(volume, block, part) => self.refuse(volume, block, part),
            Op::Reread(volume) => self.reread(volume),
            Op::Copy(volume) => self.copy(volume),
            Op::Recopy(volume) => {
                self.sides[volume] = Side::Copying(0);
                self.emit(Record::Member(volume, MemberAction::Join));
            }
            Op::Leave(volume) => self.leave(volume),
            Op::GiveUp(volume, block) => {
                if !matches!(self.sides[volume], Side::Resting(..)) {
                    self.change(volume, block);
                }
                self.leave_out();
                self.emit(Record::Gap);
            }
            Op::Crash(silent) => self.crash(silent),
            Op::Restart { stale } => self.restart(stale),
            Op::Apply(count) => self.apply(count),
            Op::Recover => self.recover(),
        }
    }

    fn copy(&mut self, volume: usize) {
        match self.sides[volume] {
            Side::Out => {
                self.sides[volume] = Side::Copying(0);
                self.emit(Record::Member(volume, MemberAction::Join));
            }
            Side::Copying(BLOCKS) => {
                self.sides[volume] = Side::In;
                self.emit(Record::Member(volume, MemberAction::Ready));
            }
            Side::Copying(block) => {
                self.sides[volume] = Side::Copying(block + 1);
                let value = self.truth[volume][block];
                self.emit(Record::Block {
                    volume,
                    block,
                    value,
                });
            }
            Side::In | Side::Resting(..) => {}
        }
    }

    fn refuse(&mut self, volume: usize, block: usize, part: bool) {
        if matches!(self.sides[volume], Side::Resting(..)) {
            return;
        }
        if part {
            self.change(volume, block);
        }
        self.emit(Record::Refused { volume, block });
    }

    fn reread(&mut self, volume: usize) {
        let unknown = unknown_after(&self.records)[volume];
        let Some(block) = unknown.iter().position(|unknown| *unknown) else {
            return;
        };
        if matches!(self.sides[volume], Side::In | Side::Copying(_)) {
            let value = self.truth[volume][block];
            self.emit(Record::Block {
                volume,
                block,
                value,
            });
        }
    }

    fn leave(&mut self, volume: usize) {
        let side = self.sides[volume];
        if matches!(side, Side::In | Side::Copying(_)) {
            self.emit(Record::Member(volume, MemberAction::Leave));
            let stamp = Stamp(self.records.len() as u64);
            // Left before it was read again: not clean, whatever the record says.
            let rests = side == Side::In && !unknown_after(&self.records)[volume].contains(&true);
            self.rested[volume] = self.last_rest[volume];
            self.last_rest[volume] = Some((self.now, stamp, self.truth[volume]));
            self.sides[volume] = if rests {
                Side::Resting(self.now, stamp)
            } else {
                Side::Out
            };
        }
    }

    fn write(&mut self, volume: usize, block: usize) {
        if matches!(self.sides[volume], Side::Resting(..)) {
            return;
        }
        self.change(volume, block);
        let value = self.truth[volume][block];
        self.emit(Record::Block {
            volume,
            block,
            value,
        });
    }

    /// Volumes that do not rest must join again.
    fn leave_out(&mut self) {
        for side in &mut self.sides {
            if !matches!(side, Side::Resting(..)) {
                *side = Side::Out;
            }
        }
    }

    fn crash(&mut self, silent: Option<(usize, usize)>) {
        if let Some((volume, block)) = silent
            && !matches!(self.sides[volume], Side::Resting(..))
        {
            self.change(volume, block);
        }
        self.leave_out();
        self.begin_incarnation();
    }

    fn restart(&mut self, stale: bool) {
        self.leave_out();
        self.begin_incarnation();
        for volume in 0..VOLUMES {
            if let Side::Resting(incarnation, stamp) = self.sides[volume] {
                let older = self.rested[volume].filter(|_| stale);
                let kept = (incarnation, stamp, self.truth[volume]);
                let (incarnation, stamp, content) = older.unwrap_or(kept);
                self.truth[volume] = content;
                let action = MemberAction::Continue { incarnation, stamp };
                self.emit(Record::Member(volume, action));
                let held = self.points.state(&name(volume)) == VolumeState::Ready;
                // The receiver asks for a copy of what it does not hold so.
                self.sides[volume] = if held { Side::In } else { Side::Out };
            }
        }
    }

    fn begin_incarnation(&mut self) {
        self.apply(usize::MAX);
        let closing = self.points.limit();
        assert_eq!(
            self.applied, closing,
            "the old stream is applied to its end first"
        );
        let point = self.points.point();
        let kept = self.history.clone();
        self.old.insert(self.now.counter, kept);
        self.now = incarnation(self.now.counter + 1);
        self.points.open(self.now);
        self.records.clear();
        self.history = vec![self.truth];
        (self.applied, self.horizon) = (Stamp::ZERO, Stamp::ZERO);
        self.catalog = (Stamp::ZERO, point, self.points.states_at(Stamp::ZERO));
    }

    fn apply(&mut self, count: usize) {
        for _ in 0..count {
            let limit = self.points.limit().max(self.horizon);
            if self.applied >= limit {
                return;
            }
            let end = self.applied.next();
            if end > self.horizon {
                self.horizon = self.points.horizon_for(end);
                self.commit();
            }
            replay(
                &mut self.base,
                &self.records[self.applied.0 as usize..end.0 as usize],
            );
            self.applied = end;
            if self.applied == self.horizon {
                self.points.applied(self.applied);
            }
        }
    }

    fn commit(&mut self) {
        let states = self.points.states_at(self.horizon);
        let any = states.values().any(|state| counts_as(*state));
        let (stamp, mark) = (self.horizon, TimeMark(self.horizon.0));
        let point = any.then_some(PointRecord {
            incarnation: self.now,
            stamp,
            mark,
        });
        self.catalog = (self.horizon, point, states);
    }

    fn recover(&mut self) {
        let (horizon, point, states) = self.catalog.clone();
        let before = (self.points.limit(), self.points.point());
        self.points = Points::restore(self.now, horizon, point, states);
        for upto in horizon.0 as usize + 1..=self.records.len() {
            feed(&mut self.points, &self.records[..upto]);
        }
        let after = (self.points.limit(), self.points.point());
        let stamps = |(limit, point): (Stamp, Option<PointRecord>)| {
            (limit, point.map(|point| (point.incarnation, point.stamp)))
        };
        assert_eq!(stamps(before), stamps(after), "a restart changes nothing");
    }

    /// The newest point can be had, and is what the source was there.
    fn check(&mut self) {
        let Some(point) = self.points.point() else {
            assert!(!self.had_point, "once there is a point there always is one");
            return;
        };
        self.had_point = true;
        let mut image = self.base;
        let truth = if point.incarnation == self.now {
            assert!(self.horizon <= point.stamp.max(self.points.limit()));
            let rest =
                self.applied.0 as usize..(point.stamp.0 as usize).max(self.applied.0 as usize);
            assert!(
                self.applied <= point.stamp,
                "the base has passed the newest point"
            );
            replay(&mut image, &self.records[rest]);
            self.history[point.stamp.0 as usize]
        } else {
            assert_eq!(
                self.applied,
                Stamp::ZERO,
                "the base has left a point of an old stream"
            );
            self.old[&point.incarnation.counter][point.stamp.0 as usize]
        };
        for volume in 0..VOLUMES {
            if self.points.counts(&name(volume)) {
                assert_eq!(image[volume], truth[volume], "{volume} at {point:?}");
            }
        }
        self.check_base();
    }

    /// Where the base rests it is the source at that place, in all that counts there.
    fn check_base(&self) {
        let (horizon, _, states) = &self.catalog;
        if self.applied != *horizon || self.applied == Stamp::ZERO {
            return;
        }
        let truth = self.history[self.applied.0 as usize];
        for (volume, expected) in truth.iter().enumerate() {
            if states.get(&name(volume)).copied().is_some_and(counts_as) {
                assert_eq!(
                    self.base[volume], *expected,
                    "{volume} in the base at {horizon}"
                );
            }
        }
    }
}

/// Blocks whose last record, since the volume joined last, is a refused write.
fn unknown_after(records: &[Record]) -> [[bool; BLOCKS]; VOLUMES] {
    let mut unknown = [[false; BLOCKS]; VOLUMES];
    for record in records {
        match *record {
            Record::Block { volume, block, .. } => unknown[volume][block] = false,
            Record::Refused { volume, block } => unknown[volume][block] = true,
            Record::Member(volume, MemberAction::Join) => unknown[volume] = [false; BLOCKS],
            Record::Member(..) | Record::Gap => {}
        }
    }
    unknown
}

/// Says what intake would say of a volume's block.
fn feed_block(points: &mut Points, records: &[Record], volume: usize) {
    let stamp = Stamp(records.len() as u64);
    let before = unknown_after(&records[..records.len() - 1])[volume];
    let after = unknown_after(records)[volume];
    let block = after.iter().position(|unknown| *unknown);
    let volume = name(volume);
    match (before.contains(&true), block) {
        (false, Some(block)) => points.handle(Progress::Unknown {
            stamp,
            volume,
            range: ByteRange::new(block as u64, 1),
        }),
        (true, None) => points.handle(Progress::Known { stamp, volume }),
        _ => {}
    }
}

/// The last of `records` became usable.
fn feed(points: &mut Points, records: &[Record]) {
    let stamp = Stamp(records.len() as u64);
    let Some(record) = records.last() else { return };
    let mark = TimeMark(stamp.0);
    match record {
        Record::Block { volume, .. } | Record::Refused { volume, .. } => {
            feed_block(points, records, *volume);
        }
        Record::Member(volume, action) => {
            let (volume, action) = (name(*volume), *action);
            points.handle(Progress::Member {
                stamp,
                volume,
                action,
            });
        }
        Record::Gap => points.handle(Progress::Gap {
            stamp,
            reason: "full".into(),
        }),
    }
    points.handle(Progress::Upto { stamp, mark });
}

fn replay(image: &mut Content, records: &[Record]) {
    for record in records {
        if let Record::Block {
            volume,
            block,
            value,
        } = record
        {
            image[*volume][*block] = *value;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40000))]
    #[test]
    fn the_newest_point_can_always_be_had_and_is_what_the_source_was(
        ops in proptest::collection::vec(op(), 1..120)
    ) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
            world.check();
        }
    }
}

/// A group of two volumes, driven by hand.
struct Story(Points, Vec<Record>);

impl Story {
    fn begin() -> Self {
        let mut points =
            Points::restore(Incarnation::default(), Stamp::ZERO, None, BTreeMap::new());
        points.open(incarnation(1));
        Self(points, Vec::new())
    }

    fn say(&mut self, record: &Record) -> &mut Self {
        self.1.push(record.clone());
        feed(&mut self.0, &self.1);
        self
    }

    fn member(&mut self, volume: usize, action: MemberAction) -> &mut Self {
        self.say(&Record::Member(volume, action))
    }

    fn write(&mut self, volume: usize) -> &mut Self {
        self.say(&Record::Block {
            volume,
            block: 0,
            value: 0,
        })
    }

    fn point(&self) -> Option<u64> {
        self.0.point().map(|point| point.stamp.0)
    }
}
