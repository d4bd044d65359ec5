//! Stories of members: joining, copying, leaving, going on, being given up.

use super::*;

#[test]
fn the_first_copy_is_applied_as_it_comes_and_ends_in_the_first_point() {
    let mut story = Story::begin();
    story.member(0, MemberAction::Join).write(0);
    assert_eq!((story.0.limit(), story.point()), (Stamp(2), None));
    story.member(0, MemberAction::Ready);
    assert_eq!((story.0.limit(), story.point()), (Stamp(3), Some(3)));
}

#[test]
fn a_joining_volume_does_not_stop_the_points_of_the_others() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready);
    story.member(1, MemberAction::Join).write(0).write(1);
    assert_eq!((story.0.limit(), story.point()), (Stamp(5), Some(5)));
    assert!(!story.0.counts(&name(1)));
    story.member(1, MemberAction::Ready);
    assert!(story.0.counts(&name(1)));
}

#[test]
fn a_recopy_freezes_the_point_until_it_is_ready_and_then_the_base_heads_for_its_end() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready)
        .write(0);
    story.member(0, MemberAction::Join).write(0).write(0);
    assert_eq!((story.0.limit(), story.point()), (Stamp(3), Some(3)));
    assert_eq!(story.0.frozen(), Some("volume a is copied again"));
    assert_eq!(story.0.states_at(Stamp(3))[&name(0)], VolumeState::Ready);
    story.member(0, MemberAction::Ready).write(0);
    assert_eq!((story.0.limit(), story.point()), (Stamp(8), Some(8)));
    assert_eq!(story.0.horizon_for(Stamp(3)), Stamp(3));
    assert_eq!(story.0.horizon_for(Stamp(4)), Stamp(7));
    assert_eq!(story.0.horizon_for(Stamp(8)), Stamp(8));
}

#[test]
fn after_a_gap_everyone_must_join_again_before_the_point_moves() {
    let mut story = Story::begin();
    for volume in [0, 1] {
        story
            .member(volume, MemberAction::Join)
            .member(volume, MemberAction::Ready);
    }
    story
        .say(&Record::Gap)
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready)
        .write(0);
    assert_eq!((story.0.limit(), story.point()), (Stamp(4), Some(4)));
    assert_eq!(story.0.state(&name(1)), VolumeState::Doubt);
    story
        .member(1, MemberAction::Join)
        .member(1, MemberAction::Ready);
    assert_eq!(story.point(), Some(10));
}

#[test]
fn a_clean_stop_and_start_needs_no_copy_but_another_place_does() {
    let mut story = Story::begin();
    for volume in [0, 1] {
        story
            .member(volume, MemberAction::Join)
            .member(volume, MemberAction::Ready);
    }
    story
        .member(0, MemberAction::Leave)
        .member(1, MemberAction::Leave);
    assert_eq!(story.point(), Some(6));
    story.0.open(incarnation(2));
    story.1.clear();
    assert_eq!(story.0.frozen(), None);
    let left = |stamp| MemberAction::Continue {
        incarnation: incarnation(1),
        stamp: Stamp(stamp),
    };
    story.member(0, left(5));
    assert_eq!((story.point(), story.0.poll_wanted()), (Some(1), None));
    story.member(1, left(5));
    assert_eq!((story.0.limit(), story.point()), (Stamp(1), Some(1)));
    let wanted = story.0.poll_wanted().unwrap();
    assert_eq!(wanted.volume, Some(name(1)));
    assert_eq!(story.0.state(&name(1)), VolumeState::Doubt);
}

#[test]
fn a_new_incarnation_without_a_clean_stop_keeps_the_old_point() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready)
        .write(0);
    story.0.open(incarnation(2));
    story.1.clear();
    story.member(0, MemberAction::Join).write(0);
    let point = story.0.point().unwrap();
    assert_eq!((point.incarnation, point.stamp), (incarnation(1), Stamp(3)));
    assert_eq!(story.0.limit(), Stamp::ZERO);
    story.member(0, MemberAction::Ready);
    let point = story.0.point().unwrap();
    assert_eq!((point.incarnation, point.stamp), (incarnation(2), Stamp(3)));
}

#[test]
fn a_volume_that_left_above_the_limit_is_not_as_it_was() {
    let mut story = Story::begin();
    for volume in [0, 1] {
        story
            .member(volume, MemberAction::Join)
            .member(volume, MemberAction::Ready);
    }
    story
        .member(0, MemberAction::Join)
        .member(1, MemberAction::Leave);
    story.0.open(incarnation(2));
    assert_eq!(story.0.state(&name(1)), VolumeState::Doubt);
}

#[test]
fn a_volume_that_was_copied_and_left_while_others_were_copied_again_counts_from_then_on() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready);
    story
        .member(0, MemberAction::Join)
        .member(1, MemberAction::Join);
    story
        .member(1, MemberAction::Ready)
        .member(1, MemberAction::Leave);
    assert!(!story.0.counts(&name(1)));
    story.member(0, MemberAction::Ready);
    assert!(story.0.counts(&name(1)));
    story.member(1, MemberAction::Join);
    assert_eq!((story.0.limit(), story.point()), (Stamp(7), Some(7)));
}

#[test]
fn a_removed_volume_no_longer_holds_the_point() {
    let mut story = Story::begin();
    for volume in [0, 1] {
        story
            .member(volume, MemberAction::Join)
            .member(volume, MemberAction::Ready);
    }
    story
        .say(&Record::Gap)
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready);
    assert_eq!(story.point(), Some(4));
    story.0.remove(&name(1));
    assert_eq!((story.0.limit(), story.point()), (Stamp(7), Some(7)));
}
