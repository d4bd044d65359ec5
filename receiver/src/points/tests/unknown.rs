//! Failed writes at the source: what is unknown holds the point.

use super::*;

impl Story {
    fn refused(&mut self, volume: usize) -> &mut Self {
        self.say(&Record::Refused { volume, block: 0 })
    }
}

#[test]
fn a_failed_write_holds_the_point_before_it_until_its_range_is_known_again() {
    let mut story = Story::begin();
    for volume in [0, 1] {
        story.member(volume, MemberAction::Join).write(volume);
        story.member(volume, MemberAction::Ready);
    }
    assert_eq!(story.point(), Some(6));
    story.refused(0).write(1);
    assert_eq!((story.point(), story.0.limit()), (Some(6), Stamp(6)));
    let why = story.0.frozen().unwrap();
    assert!(
        why.contains("volume a") && why.contains("bytes at 0"),
        "{why}"
    );
    story.write(0);
    assert_eq!((story.point(), story.0.frozen()), (Some(9), None));
    assert_eq!(
        story.0.horizon_for(Stamp(7)),
        Stamp(9),
        "the base does not rest in between"
    );
}

#[test]
fn a_failed_write_before_the_first_point_holds_that_back_too() {
    let mut story = Story::begin();
    story.member(0, MemberAction::Join).write(0).refused(0);
    story.member(0, MemberAction::Ready);
    assert_eq!((story.point(), story.0.limit()), (None, Stamp(2)));
    story.write(0);
    assert_eq!(story.point(), Some(5));
}

#[test]
fn a_volume_that_leaves_with_something_unknown_has_to_be_copied() {
    let mut story = Story::begin();
    story.member(0, MemberAction::Join).write(0);
    story.member(0, MemberAction::Ready).refused(0);
    story.member(0, MemberAction::Leave);
    assert_eq!(story.0.state(&name(0)), VolumeState::Doubt);
    assert_eq!(story.point(), Some(3));
    story.member(0, MemberAction::Join).write(0);
    story.member(0, MemberAction::Ready);
    assert_eq!(story.point(), Some(8));
}

#[test]
fn more_than_can_be_remembered_is_copied() {
    let mut story = Story::begin();
    story.member(0, MemberAction::Join).write(0);
    story.member(0, MemberAction::Ready).refused(0);
    let (stamp, volume) = (Stamp(5), name(0));
    story.0.handle(Progress::Scattered { stamp, volume });
    let mark = TimeMark(5);
    story.0.handle(Progress::Upto { stamp, mark });
    let wanted = story.0.poll_wanted().unwrap();
    assert_eq!(wanted.volume, Some(name(0)));
    assert_eq!(story.point(), Some(3));
}
