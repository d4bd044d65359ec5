//! Stories of a group's surroundings: holds, targets, volumes that go, journals that fill or fail.

use super::World;
use super::site::{BLOCK_BYTES, BLOCKS, hello_of, name, registered, spec};
use super::stories::begun;
use crate::control::At;
use crate::intake::Progress;
use crate::serve::group::{Event, Job, JobOutcome, Output, Registered, Unopened};
use std::time::Duration;
use wire::control::{Control, RefusalCode};
use wire::{Stamp, TimeMark};

#[test]
fn a_hold_keeps_the_base_where_it_is_until_it_is_released() {
    let mut world = begun();
    world.hold = Some(1);
    world.site.tell(Event::Hold(1, name(0), At::Newest));
    let last = world.source.captured();
    let held = |output: &Output| matches!(output, Output::Held(1, Ok(at)) if at.stamp == last);
    assert!(world.site.other.iter().any(held), "{:?}", world.site.other);
    let image = world.site.kept.base;
    world.source.write(0, 0, false);
    world.flow();
    assert_eq!(world.site.kept.base, image);
    assert_eq!(world.point(), Some(last.next()), "points go on");
    world.release();
    world.rest();
    assert_eq!(world.site.kept.base, world.source.truth);
}

#[test]
fn targets_that_cannot_be_opened_are_not_written_and_their_source_is_told() {
    let mut world = begun();
    let image = world.site.kept.base;
    world.restart();
    let refused = Registered {
        refused: Some(Unopened::of("the disk is another one")),
        ..registered()
    };
    world.site.tell(Event::Added(name(1), refused));
    world.site.refused = vec![(name(1), Unopened::of("the disk is another one"))];
    let hello = hello_of(world.source.now, 1, 99);
    let refusal = world.site.group.objection(&hello).unwrap();
    assert_eq!(refusal.code, RefusalCode::Unable);
    assert!(refusal.text.contains("another one"), "{}", refusal.text);
    world.rest();
    assert_eq!(world.mode(), "refused");
    assert_eq!(world.site.kept.base, image);
    world.site.refused.clear();
    world.site.now.up += Duration::from_secs(60);
    world.rest();
    assert_eq!(world.mode(), "async", "the right disk is back");
}

#[test]
fn targets_that_are_only_away_at_a_start_do_not_keep_their_source_out() {
    let mut world = begun();
    let image = world.site.kept.base;
    world.restart();
    let away = Unopened {
        reason: "cannot read target t".into(),
        away: true,
    };
    let refused = Registered {
        refused: Some(away.clone()),
        ..registered()
    };
    world.site.tell(Event::Added(name(1), refused));
    world.site.refused = vec![(name(1), away)];
    let hello = hello_of(world.source.now, 1, 99);
    assert_eq!(world.site.group.objection(&hello), None);
    world.connect();
    world.site.commit(usize::MAX);
    world.exchange();
    world.write_and_settle(5);
    let status = world.site.group.status(world.site.now);
    assert_eq!(
        status.durable,
        world.source.captured().0,
        "the journal goes on"
    );
    assert_eq!(status.recoverable_stamp, status.durable, "and so do points");
    assert_eq!(status.mode, "behind");
    let reason = status.reason.unwrap();
    assert!(reason.contains("cannot read target t"), "{reason}");
    assert!(reason.contains("the journal goes on"), "{reason}");
    assert_eq!(world.site.kept.base, image, "nothing is written");
    world.site.refused.clear();
    world.site.now.up += Duration::from_secs(60);
    world.rest();
    assert_eq!(world.mode(), "async", "it is back");
    assert_eq!(world.site.kept.base, world.source.truth);
}

impl World {
    /// Writes that arrive, settle and become durable, whatever the targets do.
    fn write_and_settle(&mut self, count: usize) {
        for at in 0..count {
            self.source.write(0, at % BLOCKS, false);
        }
        self.source.settle(count);
        self.send();
        self.site.commit(usize::MAX);
        self.exchange();
    }
}

#[test]
fn a_step_names_what_the_next_one_changes_if_that_is_a_full_one() {
    let mut world = begun();
    world.write_and_settle(1);
    // They wait for the step of the first; a step takes two.
    world.write_and_settle(6);
    let mut steps = Vec::new();
    while let Some(Job::Step(step)) = world.site.job.clone() {
        steps.push(step);
        world.site.work();
        world.site.tell(Event::Tick);
    }
    let [one, first, second, third] = steps.as_slice() else {
        panic!("{} steps", steps.len());
    };
    assert!(one.next.is_empty(), "nothing was there");
    assert!(!first.next.is_empty());
    assert_eq!(first.next, second.changes);
    assert!(second.next.is_empty(), "more may come before its turn");
    assert!(third.next.is_empty());
}

#[test]
fn a_target_that_fails_in_a_step_does_not_stop_the_journal_and_catches_up_when_it_is_back() {
    for reach in 0..3 {
        let mut world = begun();
        let begin = world.source.captured();
        world.source.write(0, 0, false);
        world.source.write(1, 1, false);
        world.source.settle(2);
        world.send();
        world.site.commit(usize::MAX);
        let step = match &world.site.job {
            Some(Job::Step(step)) => step.clone(),
            other => panic!("{other:?}"),
        };
        // It fails after the horizon was committed and some of it was written, or before.
        world.site.die_working(reach, |volume, _| volume == 0);
        world.site.refused = vec![(name(0), Unopened::of("no such disk"))];
        let full = "cannot write target t: no space left".to_owned();
        world.site.tell(Event::Job(JobOutcome::Target(full)));
        assert_eq!(world.mode(), "behind");
        let heading = step.heading.unwrap();
        assert_eq!(world.site.group.base.horizon, heading.horizon);
        world.write_and_settle(5);
        let status = world.site.group.status(world.site.now);
        assert_eq!(status.durable, begin.0 + 7, "the journal goes on");
        assert_eq!(status.recoverable_stamp, begin.0 + 7, "and so do points");
        let reason = status.reason.unwrap();
        assert!(reason.contains("no space left"), "{reason}");
        world.site.tell(Event::Hold(9, name(0), At::Newest));
        let held = world.site.other.pop();
        let Some(Output::Held(9, Err(said))) = held else {
            panic!("held between two points: {held:?}");
        };
        assert!(said.contains("rests between two points"), "{said}");
        world.site.now.up += Duration::from_secs(60);
        world.rest();
        assert!(world.site.group.refused().is_some(), "still away");
        world.site.refused.clear();
        world.site.now.up += Duration::from_secs(60);
        world.rest();
        assert_eq!(world.mode(), "async", "reach {reach}");
        assert_eq!(world.site.kept.base, world.source.truth, "reach {reach}");
    }
}

#[test]
fn records_of_a_volume_that_is_registered_anew_with_another_size_are_not_for_it() {
    let mut world = begun();
    world.hold = Some(1);
    world.site.tell(Event::Hold(1, name(1), At::Newest));
    world.source.write(0, 0, false);
    world.source.write(1, 1, false);
    world.flow();
    let before = world.site.kept.base;
    world.site.tell(Event::Removing(name(0)));
    let smaller = Registered {
        size_bytes: spec(0).size_bytes / 2,
        ..registered()
    };
    world.site.tell(Event::Added(name(0), smaller));
    world.release();
    world.rest();
    assert_eq!(world.site.kept.base[0], before[0], "not for these targets");
    let truth = world.source.truth[1];
    assert_eq!(world.site.kept.base[1], truth, "the other volume goes on");
}

#[test]
fn a_journal_that_has_failed_ends_the_session_and_lets_no_other_in() {
    let mut world = begun();
    world.source.write(0, 0, false);
    world.send();
    world
        .site
        .tell(Event::JournalFailed("the disk is gone".into()));
    assert_eq!(world.site.ended.len(), 1);
    let session = world.source.session().unwrap();
    let mark = wire::SettleMark {
        after: world.source.captured(),
        upto: world.source.captured().next(),
        voids: Vec::new(),
    };
    world.site.tell(Event::Settle(session, mark));
    let hello = hello_of(world.source.now, 1, 99);
    let refusal = world.site.group.objection(&hello).unwrap();
    assert_eq!(refusal.code, RefusalCode::Unable);
    assert_eq!(world.mode(), "failed");
}

#[test]
fn a_group_with_too_many_records_to_apply_takes_no_more_and_says_so() {
    let mut world = begun();
    world.site.group.records_max = 3;
    let notices = |world: &mut World| -> Vec<String> {
        let said = world.site.heard().into_iter();
        said.filter_map(|(_, said)| match said {
            Control::Notice(text) => Some(text),
            _ => None,
        })
        .collect()
    };
    for block in 0..BLOCKS {
        world.source.write(0, block, false);
    }
    world.send();
    world.site.commit(2);
    assert!(world.site.group.takes_records());
    world.site.commit(usize::MAX);
    assert!(!world.site.group.takes_records());
    let told = notices(&mut world);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("3 records wait"), "{told:?}");
    let status = world.site.group.status(world.site.now);
    assert_eq!(status.reason.as_ref(), told.first());
    world.flow();
    assert!(world.site.group.takes_records());
    world.site.tell(Event::JournalRoom(false));
    world.site.tell(Event::JournalRoom(false));
    let told = notices(&mut world);
    assert!(
        told.iter().any(|text| text.contains("at its bound")),
        "{told:?}"
    );
}

#[test]
fn what_is_wanted_while_no_source_is_there_is_wanted_once() {
    let mut world = begun();
    let session = world.source.session().unwrap();
    world.site.tell(Event::Ended(session));
    for round in 0..50 {
        let after = world.source.captured();
        let lost = Progress::Lost {
            after,
            mark: TimeMark(1),
            upto: Stamp(after.0 + round + 1),
            reason: "the journal is damaged".into(),
        };
        world.site.group.points.handle(lost);
        world.site.tell(Event::Tick);
    }
    assert_eq!(world.site.group.wanted.len(), 1);
}

#[test]
fn a_base_that_ended_between_two_points_is_held_for_nobody() {
    let mut world = begun();
    world.source.recopy(0);
    for _ in 0..=BLOCKS {
        world.source.copy(0);
    }
    world.source.settle(BLOCKS + 2);
    world.send();
    world.site.commit(usize::MAX);
    // On its way through the stretch of the copy, in which no place is a point.
    world.site.work();
    world.site.tell(Event::Tick);
    let base = &world.site.group.base;
    assert!(base.applied < base.horizon && world.site.job.is_some());
    world.source.crash(None);
    world.connect();
    world.site.commit(usize::MAX);
    let last_copy = world.site.kept.payloads.keys().rev().nth(1);
    world.site.damaged = last_copy.copied();
    world.site.tell(Event::Hold(1, name(0), At::Newest));
    world.site.work();
    let refused = |output: &Output| matches!(output, Output::Held(1, Err(_)));
    assert!(
        world.site.other.iter().any(refused),
        "{:?}",
        world.site.other
    );
    assert_eq!(world.point(), None);
    world.site.damaged = None;
    world.exchange();
    world.copy_all();
    world.copy_all();
    assert_eq!(world.site.kept.base, world.source.truth);
}

#[test]
fn nothing_is_written_under_a_horizon_that_may_not_have_been_committed() {
    for outcome in [JobOutcome::Target, JobOutcome::NotBegun] {
        let mut world = begun();
        world.write_and_settle(2);
        assert!(matches!(world.site.job, Some(Job::Step(_))));
        // The pool is full, which is found before anything is committed.
        let before = world.site.kept.catalog.clone();
        world.site.die_working(0, |_, _| false);
        world
            .site
            .tell(Event::Job(outcome("the pool is full".into())));
        assert_eq!(world.site.kept.catalog, before);
        // There is room now, and the same step is made again: writing it checks its horizon.
        world.site.now.up += Duration::from_secs(60);
        world.rest();
        assert_eq!(world.mode(), "async");
        assert_eq!(world.site.kept.base, world.source.truth);
    }
}

#[test]
fn a_step_that_was_not_begun_leaves_the_base_where_it_can_be_held() {
    let mut world = begun();
    let point = world.point();
    world.write_and_settle(2);
    world.site.die_working(0, |_, _| false);
    let full = "the pool is full".to_owned();
    world.site.tell(Event::Job(JobOutcome::NotBegun(full)));
    assert_eq!(world.mode(), "behind");
    world.hold = Some(1);
    world.site.tell(Event::Hold(1, name(0), At::Oldest));
    let held =
        |output: &Output| matches!(output, Output::Held(1, Ok(at)) if Some(at.stamp) == point);
    assert!(world.site.other.iter().any(held), "{:?}", world.site.other);
}

#[test]
fn a_step_cut_short_leaves_the_times_of_its_records_as_they_were() {
    let mut world = begun();
    world.write_and_settle(4);
    let marks = |world: &World| -> Vec<TimeMark> {
        let stream = world.site.group.streams.front().unwrap();
        let applied = world.site.group.base.applied;
        let stamps = (0..5).map(|nth| Stamp(applied.0 + nth));
        stamps.map(|stamp| stream.intake.mark_at(stamp)).collect()
    };
    let before = marks(&world);
    world.site.die_working(1, |_, _| false);
    world.restart();
    let base = &world.site.group.base;
    assert!(base.applied < base.horizon);
    assert_eq!(marks(&world), before);
}

#[test]
fn a_volume_that_is_held_is_not_removed_and_its_records_stay_part_of_the_image() {
    let mut world = begun();
    world.site.tell(Event::Hold(1, name(1), At::Newest));
    world.site.other.clear();
    world.source.write(0, 0, false);
    world.flow();
    world.hold = Some(2);
    world.site.tell(Event::Hold(2, name(0), At::Newest));
    world.site.other.clear();
    world.site.tell(Event::Removing(name(0)));
    let said = world.site.other.last();
    let kept = matches!(said, Some(Output::Kept(_, why)) if why.contains("exported"));
    assert!(kept, "{said:?}");
    let page = world.site.group.held_page(2, None).unwrap();
    assert_eq!(page.patches.len(), 1, "all of it");
    assert!(world.source.session().is_some() && world.site.ended.is_empty());
    world.release();
    world.site.tell(Event::Release(1));
    world.rest();
    world.site.other.clear();
    world.site.tell(Event::Removing(name(0)));
    let gone = |output: &Output| *output == Output::Removed(name(0));
    assert!(world.site.other.iter().any(gone), "{:?}", world.site.other);
}

#[test]
fn a_removal_that_is_withdrawn_while_a_step_is_written_has_no_effect() {
    let mut world = begun();
    world.source.write(0, 0, false);
    world.source.settle(1);
    world.send();
    world.site.commit(usize::MAX);
    world.site.tell(Event::Tick);
    assert!(world.site.job.is_some(), "a step is being written");
    world.site.tell(Event::Removing(name(0)));
    world.site.tell(Event::Keep(name(0)));
    let said = world.site.other.last();
    let kept = matches!(said, Some(Output::Kept(_, why)) if why.contains("try again later"));
    assert!(kept, "{said:?}");
    world.exchange();
    world.rest();
    assert!(world.site.group.volumes.contains_key(&name(0)));
    assert_eq!(world.site.kept.base, world.source.truth);
    world.site.tell(Event::Removing(name(0)));
    world.site.other.clear();
    world.site.tell(Event::Keep(name(0)));
    assert_eq!(world.site.other, [], "it is forgotten, and was answered so");
}

#[test]
fn a_step_zeroes_only_so_much_and_the_next_ones_the_rest() {
    let mut world = begun();
    world.site.group.step_changes_max = 1000;
    world.site.group.step_zero_bytes_max = BLOCK_BYTES;
    world.hold = Some(1);
    world.site.tell(Event::Hold(1, name(0), At::Newest));
    // Every fifth write of this source is of zeroes.
    for at in 0..10 {
        world.source.write(0, at % BLOCKS, false);
    }
    world.flow();
    world.release();
    let mut steps = 0;
    while matches!(world.site.job, Some(Job::Step(_))) {
        steps += 1;
        world.site.work();
        world.site.tell(Event::Tick);
    }
    assert_eq!(steps, 2);
    assert_eq!(world.site.kept.base, world.source.truth);
}
