//! What the core decides, told on virtual time.

use crate::group::core::{Core, CoreEvent, Facts, Mode, Output, Start};
use crate::group::volume::Place;
use std::time::{Duration, Instant};
use wire::{Incarnation, MemberAction, Stamp, VolumeIndex};

const A: VolumeIndex = VolumeIndex(0);
const B: VolumeIndex = VolumeIndex(1);
const PARK: Duration = Duration::from_secs(2);
const CONTINUE: MemberAction = MemberAction::Continue {
    incarnation: Incarnation { counter: 7, id: 9 },
    stamp: Stamp(99),
};

/// A core and a world that gives every claim its stamp at once.
struct Story {
    core: Core,
    now: Instant,
    stamp: u64,
    facts: Facts,
    is_full: bool,
}

impl Story {
    fn new() -> Self {
        let facts = Facts::default();
        Self {
            core: Core::new(PARK),
            now: Instant::now(),
            stamp: 0,
            facts,
            is_full: false,
        }
    }

    /// Handles an event and plays the driver; gives what else was to be done.
    fn tell(&mut self, event: CoreEvent) -> Vec<Output> {
        self.core.handle(self.now, event);
        let mut rest = Vec::new();
        while let Some(output) = self.core.poll() {
            match output {
                Output::Claim(index, action) if !self.is_full => {
                    self.stamp += 1;
                    let stamp = Stamp(self.stamp);
                    self.core.handle(
                        self.now,
                        CoreEvent::Claimed {
                            index,
                            action,
                            stamp,
                        },
                    );
                }
                Output::Reopen(_) if !self.is_full => {
                    self.stamp += 1;
                    self.core.handle(self.now, CoreEvent::Reopened);
                    rest.push(output);
                }
                other => rest.push(other),
            }
        }
        rest
    }

    fn look(&mut self) -> Vec<Output> {
        self.tell(CoreEvent::Observed(self.facts.clone()))
    }

    fn pass(&mut self, time: Duration) -> Vec<Output> {
        self.now += time;
        self.look()
    }

    fn link(&mut self, is_up: bool) {
        let words = if is_up { "" } else { "no answer" };
        self.tell(CoreEvent::Link {
            is_up,
            words: words.into(),
        });
    }

    fn join(&mut self, index: VolumeIndex) -> Vec<Output> {
        self.tell(CoreEvent::Added {
            index,
            start: Start::Join("new volume".into()),
        })
    }

    fn acked(&mut self, stamp: u64) {
        self.facts.acked = Stamp(stamp);
        self.look();
    }

    /// A volume that is whole.
    fn whole(&mut self, index: VolumeIndex) {
        self.join(index);
        let run = self.core.copies(index);
        self.tell(CoreEvent::Copied { index, run });
        self.acked(self.stamp);
        assert_eq!(self.core.place(index), Some(Place::Ready));
    }

    fn break_by_parking(&mut self) -> Vec<Output> {
        self.facts.waiting = Some(PARK + Duration::from_millis(1));
        let outputs = self.look();
        self.facts.waiting = None;
        outputs
    }

    fn mode(&self) -> Mode {
        self.core.mode()
    }

    fn reason(&self) -> String {
        self.core.reason(self.now)
    }
}

#[test]
fn a_new_volume_joins_before_it_is_live_is_copied_and_is_whole_when_its_end_is_safe() {
    let mut story = Story::new();
    assert_eq!(story.join(A), [Output::GoLive(A), Output::StartCopy(A, 1)]);
    assert_eq!(
        (story.mode(), story.reason().as_str()),
        (Mode::FirstCopy, "new volume")
    );
    assert!(
        story
            .tell(CoreEvent::Copied { index: A, run: 1 })
            .is_empty()
    );
    story.acked(1);
    assert_eq!(
        story.mode(),
        Mode::FirstCopy,
        "the end of the copy is not safe yet"
    );
    assert!(!story.core.is_whole());
    story.acked(2);
    assert_eq!((story.mode(), story.reason().as_str()), (Mode::Async, ""));
    assert!(story.core.is_whole());
}

#[test]
fn a_clean_volume_continues_and_nothing_is_copied() {
    let mut story = Story::new();
    let outputs = story.tell(CoreEvent::Added {
        index: A,
        start: Start::Continue(CONTINUE),
    });
    assert_eq!(outputs, [Output::GoLive(A)]);
    assert_eq!((story.mode(), story.core.copies(A)), (Mode::Async, 0));
}

#[test]
fn a_device_does_not_go_live_before_its_record_has_a_place() {
    let mut story = Story::new();
    story.is_full = true;
    let outputs = story.join(A);
    assert_eq!(outputs, [Output::Claim(A, MemberAction::Join)]);
    assert_eq!(
        story.core.place(A),
        Some(Place::Entering(MemberAction::Join))
    );
    let stamp = Stamp(5);
    let outputs = story.tell(CoreEvent::Claimed {
        index: A,
        action: MemberAction::Join,
        stamp,
    });
    assert_eq!(outputs, [Output::GoLive(A), Output::StartCopy(A, 1)]);
}

#[test]
fn a_write_that_waits_too_long_ends_the_stream_and_the_copy_starts_again_by_itself() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    story.facts.waiting = Some(PARK);
    assert!(story.look().is_empty(), "the bound itself is still allowed");
    assert_eq!(story.break_by_parking(), [Output::Close]);
    assert_eq!(story.mode(), Mode::Broken);
    assert!(
        story.reason().contains("ring was full for more than 2.0 s"),
        "{}",
        story.reason()
    );

    story.facts.used_permille = 1000;
    assert!(
        story.pass(Duration::from_secs(60)).is_empty(),
        "the ring has not drained"
    );
    story.facts.used_permille = 250;
    let outputs = story.look();
    assert!(
        matches!(&outputs[..], [Output::Reopen(_), Output::StartCopy(A, 2)]),
        "{outputs:?}"
    );
    assert_eq!(story.mode(), Mode::FirstCopy);
    assert!(
        story
            .reason()
            .starts_with("copied again: the ring was full"),
        "{}",
        story.reason()
    );
    story.tell(CoreEvent::Copied { index: A, run: 2 });
    story.acked(story.stamp);
    assert_eq!(story.mode(), Mode::Async);
}

#[test]
fn without_a_link_the_stream_stays_given_up_and_says_so() {
    let mut story = Story::new();
    story.whole(A);
    story.link(false);
    story.break_by_parking();
    assert!(story.reason().contains("no answer"), "{}", story.reason());
    assert!(story.pass(Duration::from_secs(3600)).is_empty());
    assert!(
        story.reason().contains("when the link is up"),
        "{}",
        story.reason()
    );
    story.link(true);
    assert!(matches!(story.look()[0], Output::Reopen(_)));
}

#[test]
fn a_stream_that_keeps_breaking_is_taken_up_less_and_less_often() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    let mut waits = Vec::new();
    for _ in 0..6 {
        story.break_by_parking();
        let broken = story.now;
        while story.pass(Duration::from_millis(500)).is_empty() {
            assert!(
                story.now - broken < Duration::from_secs(400),
                "it must come back"
            );
        }
        waits.push((story.now - broken).as_secs());
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32]);
}

#[test]
fn a_gap_that_finds_no_room_is_tried_again() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    story.break_by_parking();
    story.is_full = true;
    let outputs = story.pass(Duration::from_secs(2));
    assert!(matches!(&outputs[..], [Output::Reopen(_)]));
    assert!(story.look().is_empty(), "one attempt at a time");
    story.tell(CoreEvent::NotReopened);
    assert!(matches!(&story.look()[..], [Output::Reopen(_)]));
}

#[test]
fn a_lying_shipper_is_parted_with_once_and_trusted_again_only_when_its_page_was_reset() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    story.facts.violation = Some("acked 9 of 3 records".into());
    assert_eq!(story.look(), [Output::Close, Output::ReplaceShipper]);
    assert!(
        story.reason().contains("acked 9 of 3"),
        "{}",
        story.reason()
    );
    story.facts.is_replacing = true;
    assert!(story.pass(Duration::from_secs(60)).is_empty());
    // The next shipper has come, and lies before it was looked at once.
    story.facts.is_replacing = false;
    story.facts.violation = Some("acked 8 of 3 records".into());
    assert_eq!(story.look(), [Output::ReplaceShipper]);
    assert!(story.reason().contains("acked 8 of 3"));
    story.facts.is_replacing = true;
    assert!(story.look().is_empty());
    story.facts.is_replacing = false;
    story.facts.violation = None;
    assert!(matches!(story.look()[0], Output::Reopen(_)));
    story.facts.violation = Some("again".into());
    assert_eq!(
        story.look(),
        [Output::Close, Output::CancelCopy(A), Output::ReplaceShipper]
    );
}

#[test]
fn what_was_being_copied_when_the_stream_ended_is_copied_from_its_start() {
    let mut story = Story::new();
    story.link(true);
    story.join(A);
    assert_eq!(
        story.break_by_parking(),
        [Output::Close, Output::CancelCopy(A)]
    );
    assert!(
        story
            .tell(CoreEvent::Copied { index: A, run: 1 })
            .is_empty(),
        "too late"
    );
    assert_eq!(story.core.place(A), Some(Place::Outside));
    story.pass(Duration::from_secs(2));
    assert!(matches!(story.core.place(A), Some(Place::Copying { .. })));
    story.tell(CoreEvent::Copied { index: A, run: 1 });
    assert!(
        matches!(story.core.place(A), Some(Place::Copying { .. })),
        "an older run"
    );
}

#[test]
fn a_volume_added_while_the_stream_is_given_up_is_live_at_once_and_joins_with_the_others() {
    let mut story = Story::new();
    story.whole(A);
    story.break_by_parking();
    let outputs = story.tell(CoreEvent::Added {
        index: B,
        start: Start::Continue(CONTINUE),
    });
    assert_eq!(outputs, [Output::GoLive(B)]);
    story.link(true);
    let outputs = story.pass(Duration::from_secs(2));
    assert_eq!(
        outputs[1..],
        [Output::StartCopy(A, 2), Output::StartCopy(B, 1)]
    );
}

#[test]
fn a_volume_whose_record_still_waits_when_the_stream_ends_goes_live_outside_it() {
    let mut story = Story::new();
    story.is_full = true;
    story.join(A);
    assert_eq!(story.break_by_parking(), [Output::Close, Output::GoLive(A)]);
    assert_eq!(story.core.place(A), Some(Place::Outside));
}

#[test]
fn the_receiver_gets_the_copies_it_asks_for_and_not_one_more() {
    let mut story = Story::new();
    story.whole(A);
    story.whole(B);
    let wanted = |index, durable| CoreEvent::CopyWanted {
        index,
        durable: Stamp(durable),
        words: "journal lost".into(),
    };
    story.tell(wanted(None, 4));
    assert_eq!(
        story.look(),
        [Output::StartCopy(A, 2), Output::StartCopy(B, 2)]
    );
    assert!(
        story.reason().contains("journal lost"),
        "{}",
        story.reason()
    );
    // Asked again before it can have seen the join that answers it.
    story.tell(wanted(Some(A), 4));
    assert!(story.pass(Duration::from_secs(60)).is_empty());
    // It has the join, and lost something after it: the copy under way is not enough.
    story.tell(wanted(Some(A), 5));
    assert_eq!(
        story.look(),
        [Output::CancelCopy(A), Output::StartCopy(A, 3)]
    );
}

#[test]
fn a_receiver_that_asks_without_end_does_not_get_copies_without_end() {
    let mut story = Story::new();
    story.whole(A);
    let mut copies = 0;
    for _ in 0..600 {
        let durable = Stamp(u64::MAX);
        story.tell(CoreEvent::CopyWanted {
            index: None,
            durable,
            words: "more".into(),
        });
        copies += story
            .pass(Duration::from_secs(1))
            .iter()
            .filter(|o| is_start(o))
            .count();
    }
    assert!((5..15).contains(&copies), "{copies} copies in ten minutes");
}

fn is_start(output: &Output) -> bool {
    matches!(output, Output::StartCopy(..))
}

#[test]
fn a_range_that_cannot_be_read_again_ends_the_stream_and_lost_faults_cost_a_copy() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    story.tell(CoreEvent::FaultsLost { index: A });
    assert_eq!(story.look(), [Output::StartCopy(A, 2)]);
    let words = "cannot read 4096 bytes at 1 GiB".to_owned();
    let outputs = story.tell(CoreEvent::RereadFailed { index: A, words });
    assert_eq!(outputs, [Output::Close, Output::CancelCopy(A)]);
    assert!(
        story.reason().contains("cannot read 4096 bytes"),
        "{}",
        story.reason()
    );
}

#[test]
fn a_volume_that_leaves_stays_left_whatever_happens_to_the_stream_after_it() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    story.whole(B);
    story.tell(CoreEvent::Leave { index: A });
    assert_eq!(
        story.core.place(A),
        Some(Place::Left {
            leave: Stamp(story.stamp)
        })
    );
    assert!(story.core.is_whole());
    story.break_by_parking();
    let outputs = story.pass(Duration::from_secs(2));
    assert_eq!(
        outputs[1..],
        [Output::StartCopy(B, 2)],
        "the one that left is not copied"
    );
    story.tell(CoreEvent::Dropped { index: A });
    assert_eq!(story.core.place(A), None);
}

#[test]
fn a_leave_that_still_waits_when_the_stream_ends_is_lost() {
    let mut story = Story::new();
    story.whole(A);
    story.is_full = true;
    let outputs = story.tell(CoreEvent::Leave { index: A });
    assert_eq!(outputs, [Output::Claim(A, MemberAction::Leave)]);
    story.tell(CoreEvent::GaveUp {
        words: "the tap is ending".into(),
    });
    assert_eq!(story.core.place(A), Some(Place::Outside));
}

#[test]
fn a_stream_without_volumes_is_not_taken_up() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    story.break_by_parking();
    story.tell(CoreEvent::Dropped { index: A });
    assert!(story.pass(Duration::from_secs(60)).is_empty());
}

#[test]
fn a_volume_whose_failed_writes_were_not_all_noted_is_in_doubt_until_it_is_copied() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    story.tell(CoreEvent::CopyWanted {
        index: None,
        durable: Stamp(story.stamp),
        words: "spends the patience of the next copy".into(),
    });
    story.look();
    let run = story.core.copies(A);
    story.tell(CoreEvent::Copied { index: A, run });
    story.acked(story.stamp);
    assert!(story.core.is_whole());
    story.tell(CoreEvent::FaultsLost { index: A });
    assert!(story.look().is_empty(), "not so soon after the last copy");
    assert_eq!(story.core.place(A), Some(Place::Ready));
    assert!(story.core.is_in_doubt(A) && !story.core.is_whole());
    assert_eq!(story.reason(), "many writes failed");
    assert_eq!(
        story.pass(Duration::from_secs(5)),
        [Output::StartCopy(A, run + 1)]
    );
    assert!(!story.core.is_in_doubt(A));
}

#[test]
fn writes_that_leave_few_requests_for_reads_wait_a_second_at_most() {
    let mut story = Story::new();
    story.link(true);
    story.whole(A);
    let nearly = Duration::from_millis(1000);
    story.facts.waiting = Some(nearly);
    story.facts.crowded = Some(nearly);
    assert!(story.look().is_empty());
    story.facts.waiting = Some(nearly + Duration::from_millis(1));
    story.facts.crowded = None;
    assert!(story.look().is_empty(), "there are enough");
    story.facts.crowded = story.facts.waiting;
    assert_eq!(story.look(), [Output::Close]);
    assert!(
        story
            .reason()
            .contains("1.0 s with few requests left for reads"),
        "{}",
        story.reason()
    );
}

#[test]
fn a_bound_below_a_second_holds_for_crowded_devices_too() {
    let mut story = Story::new();
    story.core = Core::new(Duration::from_millis(200));
    story.link(true);
    story.whole(A);
    story.facts.crowded = Some(Duration::from_millis(201));
    assert_eq!(story.look(), [Output::Close]);
}

fn recovered(index: VolumeIndex, copied: Option<&str>) -> CoreEvent {
    let start = Start::Recovered {
        copies: 3,
        copied: copied.map(str::to_owned),
    };
    CoreEvent::Added { index, start }
}

#[test]
fn a_volume_that_was_whole_when_its_tap_died_goes_on_and_another_joins_before_it_serves() {
    let mut story = Story::new();
    assert_eq!(story.tell(recovered(A, None)), [Output::GoLive(A)]);
    assert_eq!(story.core.mode(), Mode::Async);
    assert!(story.core.is_whole());
    story.is_full = true;
    let waits = story.tell(recovered(B, Some("why")));
    assert_eq!(waits, [Output::Claim(B, MemberAction::Join)]);
    let stamp = Stamp(9);
    let claimed = CoreEvent::Claimed {
        index: B,
        action: MemberAction::Join,
        stamp,
    };
    let outputs = story.tell(claimed);
    assert_eq!(outputs, [Output::GoLive(B), Output::StartCopy(B, 4)]);
    assert_eq!((story.core.copies(A), story.core.copies(B)), (3, 4));
    assert_eq!(story.core.volume_reason(B), "why");
}

#[test]
fn in_a_stream_that_was_given_up_recovered_volumes_wait_to_be_copied() {
    let mut story = Story::new();
    let words = "killed".into();
    assert_eq!(story.tell(CoreEvent::GaveUp { words }), [Output::Close]);
    assert_eq!(story.tell(recovered(A, None)), [Output::GoLive(A)]);
    assert_eq!(story.core.place(A), Some(Place::Outside));
    assert_eq!(story.core.mode(), Mode::Broken);
}
