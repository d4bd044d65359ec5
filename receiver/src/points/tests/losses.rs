//! Stories of losses: a part of the journal is gone.

use super::*;

#[test]
fn a_loss_doubts_all_and_asks_for_all() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready)
        .write(0);
    let (after, mark, upto) = (Stamp(3), TimeMark(3), Stamp(9));
    story.0.handle(Progress::Lost {
        after,
        mark,
        upto,
        reason: "gone".into(),
    });
    story.0.handle(Progress::Upto {
        stamp: Stamp(9),
        mark,
    });
    assert_eq!((story.0.limit(), story.point()), (Stamp(3), Some(3)));
    assert_eq!(
        story.0.poll_wanted(),
        Some(Wanted {
            volume: None,
            reason: "gone".into()
        })
    );
    assert_eq!(story.0.state(&name(0)), VolumeState::Doubt);
}

#[test]
fn a_loss_doubts_also_who_had_left_for_they_may_have_come_back_in_it() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready)
        .member(0, MemberAction::Leave);
    assert_eq!(story.point(), Some(3));
    let (after, mark, upto) = (Stamp(3), TimeMark(3), Stamp(6));
    story.0.handle(Progress::Lost {
        after,
        mark,
        upto,
        reason: "gone".into(),
    });
    story.0.handle(Progress::Upto {
        stamp: Stamp(9),
        mark,
    });
    assert_eq!(story.0.state(&name(0)), VolumeState::Doubt);
    assert_eq!((story.0.limit(), story.point()), (Stamp(3), Some(3)));
}

#[test]
fn a_loss_found_late_takes_the_point_back_to_before_it() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready);
    story
        .member(1, MemberAction::Join)
        .write(0)
        .member(1, MemberAction::Ready)
        .write(0);
    let (after, mark, upto) = (Stamp(3), TimeMark(3), Stamp(4));
    story.0.handle(Progress::Lost {
        after,
        mark,
        upto,
        reason: "gone".into(),
    });
    assert_eq!((story.0.limit(), story.point()), (Stamp(3), Some(3)));
    assert!(
        !story.0.counts(&name(1)),
        "its first copy was not complete there"
    );
    let at_three = story.0.states_at(Stamp(3));
    assert_eq!(at_three[&name(0)], VolumeState::Ready);
    assert_eq!(
        at_three[&name(1)],
        VolumeState::Copying {
            first: true,
            since: Stamp(3)
        }
    );
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready);
    assert_eq!(story.point(), Some(8));
}

#[test]
fn a_loss_inside_a_stretch_without_points_takes_the_point_back_to_before_the_stretch() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready)
        .write(0);
    story
        .member(0, MemberAction::Join)
        .write(0)
        .write(0)
        .member(0, MemberAction::Ready)
        .write(0);
    let before = story.0.point();
    assert_eq!(story.point(), Some(8));
    let (after, mark, upto) = (Stamp(5), TimeMark(5), Stamp(6));
    story.0.handle(Progress::Lost {
        after,
        mark,
        upto,
        reason: "gone".into(),
    });
    assert_eq!((story.0.limit(), story.point()), (Stamp(3), Some(3)));
    assert!(story.0.point().map(|point| point.mark) < before.map(|point| point.mark));
}

#[test]
fn a_loss_inside_the_first_stretch_of_an_incarnation_takes_the_point_back_to_the_one_before() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .member(0, MemberAction::Ready)
        .write(0);
    let old = story.0.point();
    story.0.open(incarnation(2));
    story.1.clear();
    story
        .member(0, MemberAction::Join)
        .write(0)
        .member(0, MemberAction::Ready);
    assert_ne!(story.0.point(), old);
    let (after, mark, upto) = (Stamp(1), TimeMark(1), Stamp(2));
    story.0.handle(Progress::Lost {
        after,
        mark,
        upto,
        reason: "gone".into(),
    });
    assert_eq!((story.0.limit(), story.0.point()), (Stamp::ZERO, old));
}

#[test]
fn a_loss_before_the_first_point_leaves_nothing_to_protect() {
    let mut story = Story::begin();
    story
        .member(0, MemberAction::Join)
        .write(0)
        .member(0, MemberAction::Ready);
    let (after, mark, upto) = (Stamp(1), TimeMark(1), Stamp(2));
    story.0.handle(Progress::Lost {
        after,
        mark,
        upto,
        reason: "gone".into(),
    });
    assert_eq!((story.point(), story.0.frozen()), (None, None));
    assert_eq!(story.0.limit(), Stamp(3));
}
