//! The cut against sources with contents: at every instant it is what all of them were at one time.

use super::*;
use proptest::prelude::*;

const SOURCES: usize = 3;

fn name(source: usize) -> Name {
    Name::new(["a", "b", "c"][source]).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    /// The source writes; its clock goes on by so much.
    Write(usize, u64),
    /// Nothing was written up to now.
    Beat(usize, u64),
    /// What it wrote first, so much of it, is durable and settled; and its heartbeat, if it is valid.
    Arrive(usize, usize),
    /// It has its first point.
    Begin(usize),
    /// It leaves in order: all it wrote has arrived, and that it left.
    Leave(usize),
    /// It is back. Its records are marked above the cut.
    Return(usize),
    /// Its volumes are no longer exact, as of what has arrived; or they are again.
    Freeze(usize, bool),
    Detach(usize),
    /// It has another session.
    Attach(usize),
    /// The receiver is restarted.
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let source = 0..SOURCES;
    let step = 1..20u64;
    prop_oneof![
        6 => (source.clone(), step.clone()).prop_map(|(s, t)| Op::Write(s, t)),
        4 => (source.clone(), step).prop_map(|(s, t)| Op::Beat(s, t)),
        8 => (source.clone(), 1..5usize).prop_map(|(s, n)| Op::Arrive(s, n)),
        2 => source.clone().prop_map(Op::Begin),
        1 => source.clone().prop_map(Op::Leave),
        1 => source.clone().prop_map(Op::Return),
        2 => (source.clone(), any::<bool>()).prop_map(|(s, f)| Op::Freeze(s, f)),
        1 => source.clone().prop_map(Op::Detach),
        1 => source.prop_map(Op::Attach),
        1 => Just(Op::Restart),
    ]
}

/// A source as it really is.
#[derive(Clone, Debug, Default)]
struct Source {
    clock: u64,
    /// Times of its writes.
    writes: Vec<u64>,
    /// So many of them have arrived.
    arrived: usize,
    /// A promise: no write up to this time but these many.
    beat: Option<(u64, usize)>,
    frozen: bool,
    /// Times at which its volumes are not exact, ends excluded: as it knows, and as it is.
    holes: Vec<(u64, u64)>,
    inexact: Vec<(u64, u64)>,
    /// When it was back last, having left: before that nothing changed.
    back: u64,
    since: u64,
    through: u64,
    has_points: bool,
    has_left: bool,
    session: u64,
}

impl Source {
    fn reach(&self) -> Reach {
        let holes = self.holes.iter();
        Reach {
            has_points: self.has_points,
            can_change: !self.has_left,
            through: TimeMark(self.through),
            frozen: self.frozen.then_some(TimeMark(self.since)),
            holes: holes.map(|(a, b)| (TimeMark(*a), TimeMark(*b))).collect(),
            session: Some(self.session),
            ..Reach::default()
        }
    }

    fn is_exact_at(&self, time: u64) -> bool {
        let inside = |(after, upto): &(u64, u64)| *after < time && time < *upto;
        !(self.inexact.iter().any(inside) || self.frozen && time > self.since.max(self.back))
    }
}

fn step(op: &Op, sources: &mut [Source], cut: &mut Cut) {
    match *op {
        Op::Write(source, _) | Op::Beat(source, _) | Op::Freeze(source, _)
            if sources[source].has_left => {}
        Op::Write(source, step) => {
            let source = &mut sources[source];
            source.clock += step;
            source.writes.push(source.clock);
        }
        Op::Beat(source, step) => {
            let source = &mut sources[source];
            source.clock += step;
            source.beat = Some((source.clock, source.writes.len()));
        }
        Op::Arrive(at, count) => {
            let source = &mut sources[at];
            source.arrived = (source.arrived + count).min(source.writes.len());
            let last = source
                .arrived
                .checked_sub(1)
                .map(|last| source.writes[last]);
            let beat = source.beat.filter(|(_, writes)| *writes <= source.arrived);
            let through = last.max(beat.map(|(clock, _)| clock)).unwrap_or(0);
            source.through = source.through.max(through);
        }
        Op::Begin(at) => sources[at].has_points = true,
        Op::Leave(at) => {
            let source = &mut sources[at];
            if !source.frozen && !source.has_left {
                source.clock += 1;
                (source.arrived, source.through) = (source.writes.len(), source.clock);
                source.has_left = true;
            }
        }
        Op::Return(at) => {
            let source = &mut sources[at];
            let latest = cut.at().map_or(0, |at| at.0);
            if source.has_left {
                source.clock = source.clock.max(latest);
                (source.back, source.has_left) = (latest, false);
            }
        }
        Op::Freeze(at, frozen) => {
            let source = &mut sources[at];
            match (source.frozen, frozen) {
                (false, true) => (source.frozen, source.since) = (true, source.through),
                (true, false) => {
                    source.frozen = false;
                    source.holes.push((source.since, source.through));
                    let since = source.since.max(source.back);
                    source.inexact.push((since, source.through));
                }
                _ => {}
            }
        }
        Op::Detach(source) => {
            // The hub lets nobody detach the last one.
            if cut.state().is_some_and(|state| state.parts() > 1) {
                cut.detach(&name(source));
            }
        }
        Op::Attach(source) => sources[source].session += 1,
        Op::Restart => *cut = cut.state().map(Cut::restore).unwrap_or_default(),
    }
    for (number, source) in sources.iter().enumerate() {
        cut.report(&name(number), source.reach());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn at_the_cut_every_source_that_is_part_is_whole_and_exact_and_there_always_is_a_point(
        ops in prop::collection::vec(op(), 1..80)
    ) {
        let mut sources = vec![Source::default(); SOURCES];
        let mut cut = Cut::default();
        let mut before = None;
        for op in &ops {
            step(op, &mut sources, &mut cut);
            let at = cut.at();
            prop_assert!(at >= before, "{:?} after {:?}", at, before);
            before = at;
            let Some(TimeMark(time)) = at else { continue };
            prop_assert_eq!(cut.upto(TimeMark(time)), at, "no point");
            prop_assert!(cut.oldest().is_some_and(|oldest| Some(oldest) <= at));
            for (number, source) in sources.iter().enumerate() {
                if !cut.holds(&name(number)) {
                    continue;
                }
                let missing = source.writes[source.arrived..].iter().find(|w| **w <= time);
                prop_assert_eq!(missing, None, "source {} at {}", number, time);
                // Nor will there be one: its clock was there already.
                let later = source.clock >= time || source.has_left;
                prop_assert!(later, "source {} at {}", number, time);
                prop_assert!(source.is_exact_at(time), "source {} at {}", number, time);
            }
        }
        // When nothing is wrong any more, all meet where they have all come to.
        let least = 1 + sources.iter().map(|source| source.clock).max().unwrap_or(0);
        for (number, source) in sources.iter_mut().enumerate() {
            (source.has_points, source.has_left) = (true, false);
            (source.frozen, source.through) = (false, least);
            source.session += 1;
            cut.report(&name(number), source.reach());
        }
        prop_assert_eq!(cut.at(), Some(TimeMark(least)));
        prop_assert!((0..SOURCES).all(|number| cut.holds(&name(number))));
    }
}

fn mark(time: u64) -> TimeMark {
    TimeMark(time)
}

/// It can change, all it did up to `through` is there, in its first session.
fn reach(through: u64) -> Reach {
    Reach {
        has_points: true,
        can_change: true,
        through: mark(through),
        session: Some(1),
        ..Reach::default()
    }
}

fn through(cut: &mut Cut, source: usize, time: u64) {
    cut.report(&name(source), reach(time));
}

/// Two sources with points, both through 10.
fn two() -> Cut {
    let mut cut = Cut::default();
    for source in 0..2 {
        through(&mut cut, source, 10);
    }
    assert_eq!(cut.at(), Some(mark(10)));
    cut
}

#[test]
fn a_silent_source_is_named_and_holds_the_point_until_it_is_detached() {
    let mut cut = two();
    assert_eq!(cut.holder(), None);
    through(&mut cut, 0, 50);
    assert_eq!(cut.at(), Some(mark(10)));
    let holder = Holder {
        source: name(1),
        frozen: false,
    };
    assert_eq!(cut.holder(), Some(holder));
    cut.detach(&name(1));
    assert_eq!((cut.at(), cut.holder()), (Some(mark(50)), None));
    // In the session it had it does not come back, nor by a restart.
    through(&mut cut, 1, 50);
    assert!(cut.is_detached(&name(1)) && !cut.holds(&name(1)));
    let mut cut = Cut::restore(cut.state().unwrap());
    assert!(cut.is_detached(&name(1)) && cut.holds(&name(0)));
    // It comes back: waited for from when it has caught up, and the cut does not go back for it.
    through(&mut cut, 1, 30);
    through(&mut cut, 0, 60);
    assert_eq!((cut.at(), cut.holds(&name(1))), (Some(mark(60)), false));
    through(&mut cut, 1, 70);
    through(&mut cut, 0, 90);
    assert_eq!((cut.at(), cut.holds(&name(1))), (Some(mark(70)), true));
}

#[test]
fn a_source_that_joins_stops_nobody_and_one_that_leaves_lets_go() {
    let mut cut = two();
    through(&mut cut, 2, 3);
    through(&mut cut, 0, 20);
    through(&mut cut, 1, 20);
    assert_eq!((cut.at(), cut.holds(&name(2))), (Some(mark(20)), false));
    through(&mut cut, 2, 25);
    assert!(cut.holds(&name(2)));
    cut.report(&name(2), Reach::default());
    through(&mut cut, 0, 40);
    through(&mut cut, 1, 40);
    assert_eq!(cut.at(), Some(mark(40)));
}

#[test]
fn a_source_whose_first_point_lies_ahead_is_waited_for_once_the_others_are_there() {
    let mut cut = two();
    let ahead = |through| Reach {
        since: mark(30),
        ..reach(through)
    };
    cut.report(&name(2), ahead(35));
    for (time, part) in [(20, false), (32, true)] {
        through(&mut cut, 0, time);
        through(&mut cut, 1, time);
        assert_eq!((cut.at(), cut.holds(&name(2))), (Some(mark(time)), part));
    }
    assert_eq!(cut.oldest(), Some(mark(30)));
    assert_eq!(
        (cut.upto(mark(29)), cut.upto(mark(31))),
        (None, Some(mark(31)))
    );
}

#[test]
fn a_recopy_at_one_source_holds_the_point_of_all_and_leaves_a_hole() {
    let mut cut = two();
    let frozen = Reach {
        frozen: Some(mark(4)),
        ..reach(25)
    };
    // Its last record before the recopy is older than the cut, which a heartbeat made.
    cut.report(&name(1), frozen);
    through(&mut cut, 0, 30);
    assert_eq!(cut.at(), Some(mark(10)));
    assert!(cut.holder().is_some_and(|holder| holder.frozen));
    let thawed = Reach {
        holes: vec![(mark(4), mark(25))],
        ..reach(25)
    };
    cut.report(&name(1), thawed.clone());
    assert_eq!(
        (cut.at(), cut.upto(mark(20))),
        (Some(mark(25)), Some(mark(10)))
    );
    cut.report(
        &name(1),
        Reach {
            since: mark(25),
            ..thawed
        },
    );
    assert_eq!((cut.upto(mark(20)), cut.oldest()), (None, Some(mark(25))));
}

#[test]
fn what_is_lost_takes_the_cut_back_where_the_others_still_have_a_point() {
    let lost = Reach {
        frozen: Some(mark(6)),
        lost: true,
        ..reach(10)
    };
    let mut cut = two();
    cut.report(&name(1), lost.clone());
    assert_eq!((cut.at(), cut.holds(&name(1))), (Some(mark(6)), true));

    let mut cut = two();
    cut.report(
        &name(0),
        Reach {
            since: mark(8),
            ..reach(20)
        },
    );
    cut.report(&name(1), lost);
    assert_eq!((cut.at(), cut.holds(&name(1))), (Some(mark(20)), false));
}

#[test]
fn when_all_have_left_in_order_the_point_is_where_the_last_one_did() {
    let left = |through| Reach {
        can_change: false,
        session: None,
        ..reach(through)
    };
    let mut cut = two();
    cut.report(&name(0), left(20));
    assert_eq!(cut.at(), Some(mark(10)));
    // Who is left goes on, and the other is as it was at any later time.
    through(&mut cut, 1, 30);
    assert_eq!((cut.at(), cut.holds(&name(0))), (Some(mark(30)), true));
    assert_eq!(cut.holder(), None);
    cut.report(&name(1), left(41));
    assert_eq!(
        (cut.at(), cut.upto(mark(99))),
        (Some(mark(41)), Some(mark(41)))
    );
    let state = cut.state().unwrap();
    assert_eq!(state.parts(), 2);
    let mut cut = Cut::restore(state);
    for source in 0..2 {
        cut.report(&name(source), left(20));
        assert_eq!(cut.upto(mark(99)), Some(mark(41)));
    }
    // One is back: it is waited for, from where they were.
    cut.report(
        &name(0),
        Reach {
            can_change: true,
            ..left(20)
        },
    );
    assert_eq!((cut.at(), cut.holds(&name(0))), (Some(mark(41)), true));
    through(&mut cut, 1, 60);
    assert_eq!(cut.at(), Some(mark(41)));
    through(&mut cut, 0, 50);
    assert_eq!(cut.at(), Some(mark(50)));
}

/// The same, with so many records.
fn point(stamp: u64) -> PointRecord {
    PointRecord {
        incarnation: wire::Incarnation { counter: 1, id: 1 },
        stamp: wire::Stamp(stamp),
        ..PointRecord::default()
    }
}

#[test]
fn a_source_restored_with_less_than_it_had_at_the_cut_is_whole_before_the_hole_only() {
    let at = |through, stamp| Reach {
        newest: point(stamp),
        session: None,
        ..reach(through)
    };
    let kept = |since: u64| {
        let mut cut = Cut::default();
        cut.report(&name(0), at(10, 3));
        cut.report(&name(1), at(10, 5));
        let mut cut = Cut::restore(cut.state().unwrap());
        let whole = Reach {
            since: mark(since),
            ..at(7, 3)
        };
        // An idle source is known to be whole up to the cut by a sign of life, kept nowhere else.
        cut.report(&name(0), whole);
        assert_eq!(cut.at(), Some(mark(10)));
        cut
    };
    let mut cut = kept(0);
    cut.report(&name(1), at(6, 4));
    assert_eq!((cut.at(), cut.holds(&name(1))), (Some(mark(6)), true));
    assert_eq!(cut.upto(mark(10)), Some(mark(6)));
    // It is the same after another restart, and over when it has everything again.
    let mut cut = Cut::restore(cut.state().unwrap());
    cut.report(&name(0), at(7, 3));
    cut.report(&name(1), at(6, 4));
    assert_eq!(cut.at(), Some(mark(6)));
    cut.report(&name(1), at(10, 5));
    cut.report(&name(0), at(10, 3));
    assert_eq!(cut.at(), Some(mark(10)));

    // Where the others have no point any more it is no part.
    let mut cut = kept(8);
    cut.report(&name(1), at(6, 4));
    assert_eq!((cut.at(), cut.holds(&name(1))), (Some(mark(10)), false));

    // Nor is it whole at any later time because it seems to have left: that was before.
    let mut cut = kept(0);
    let left = Reach {
        can_change: false,
        ..at(6, 4)
    };
    cut.report(&name(1), left.clone());
    cut.report(&name(1), left);
    assert_eq!(cut.upto(mark(10)), Some(mark(6)));
}
