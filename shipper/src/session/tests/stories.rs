//! What a healthy source does when the network, the receiver or the tap are not.

use super::world::{Answer, World, ack, config, hello_ack, volume};
use crate::session::*;
use ring::handoff::{GenerationReport, LinkState, ToTap};
use std::time::Duration;
use wire::control::{Ack, Control, HelloAck, RefusalCode};
use wire::{RecordKind, Stamp, TimeMark};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_session_announces_itself_and_sends_from_the_first_record() {
    let mut world = World::new();
    assert_eq!(world.link(), (LinkState::Connecting, ""));
    world.write(3, 4096);
    let hello = world.come_up(hello_ack(0));
    assert!(!hello.probe);
    assert_eq!((hello.oldest, hello.captured), (Stamp(1), Stamp(3)));
    assert_eq!(hello.volumes.len(), 2);
    assert_eq!(world.link(), (LinkState::Up, ""));
    assert_eq!(world.ranges(), [(1, 3)]);
    assert_eq!(world.sent, 3);
}

#[test]
fn the_generation_of_the_receiver_is_kept_and_sent_from_then_on() {
    let mut world = World::up();
    let theirs = hello_ack(0).generation;
    let report = ToTap::Generation(GenerationReport(theirs));
    assert!(world.told.contains(&report));
    world.lose("cable");
    assert_eq!(world.come_up(hello_ack(0)).generation, theirs);
}

#[test]
fn a_batch_is_closed_at_a_mebibyte_of_payload_and_at_its_count_of_records() {
    let mut world = World::up();
    world.write(9, 256 << 10);
    world.tick();
    assert_eq!(world.ranges(), [(1, 4), (5, 8), (9, 9)]);
    world.write(2, 1 << 20);
    world.tick();
    assert_eq!(world.ranges(), [(10, 10), (11, 11)]);
    world.write(1500, 512);
    world.tick();
    assert_eq!(world.ranges(), [(12, 1035), (1036, 1511)]);
}

#[test]
fn what_is_on_its_way_is_bounded_until_the_transport_delivers() {
    let mut world = World::up();
    world.write(200, 1 << 20);
    world.tick();
    assert_eq!(world.batches.len(), IN_FLIGHT_BATCHES_MAX);
    assert_eq!(world.session.reading(), None);
    let bytes = world.batches[0].bytes();
    world.event(Event::Delivered { bytes });
    assert_eq!(world.batches.len(), IN_FLIGHT_BATCHES_MAX + 1);
    assert_eq!(world.session.reading(), None);
}

#[test]
fn settle_marks_follow_the_disk_and_name_the_void_records() {
    let mut world = World::up();
    world.write(6, 512);
    world.tick();
    assert_eq!(world.settle_marks(), []);
    world.ring[1].1 = Answer::Error;
    world.ring[4].1 = Answer::Well;
    world.settle(3);
    world.tick();
    let mark = |after, upto, voids: &[u64]| wire::SettleMark {
        after: Stamp(after),
        upto: Stamp(upto),
        voids: voids.iter().copied().map(Stamp).collect(),
    };
    assert_eq!(world.settle_marks(), [mark(0, 3, &[2])]);
    world.settle(6);
    world.tick();
    assert_eq!(world.settle_marks(), [mark(3, 6, &[])]);
}

#[test]
fn a_settle_mark_never_runs_ahead_of_the_records_sent() {
    let mut world = World::up();
    world.write(100, 1 << 20);
    world.settle(100);
    world.tick();
    let sent = IN_FLIGHT_BATCHES_MAX as u64;
    assert_eq!(world.settle_marks().last().unwrap().upto, Stamp(sent));
}

#[test]
fn the_ring_is_freed_only_as_far_as_records_and_settle_marks_are_both_durable() {
    let mut world = World::up();
    world.write(10, 512);
    world.settle(8);
    world.tick();
    let with = |durable, settled| Ack {
        received: Stamp(10),
        durable: Stamp(durable),
        settled: Stamp(settled),
        ..Ack::default()
    };
    world.acknowledge(with(10, 0));
    assert_eq!(world.acked, 0);
    world.acknowledge(with(10, 5));
    assert_eq!(world.acked, 5);
    world.acknowledge(with(10, 8));
    assert_eq!(world.acked, 8);
}

#[test]
fn lost_acks_do_no_harm() {
    let mut world = World::up();
    world.write(50, 512);
    world.settle(50);
    world.tick();
    // Every ack but the last is lost with its packets; the last covers them.
    world.acknowledge(ack(50));
    assert_eq!(world.acked, 50);
    assert_eq!(world.link().0, LinkState::Up);
}

#[test]
fn after_a_cut_in_the_middle_of_batches_everything_not_durable_is_sent_again() {
    let mut world = World::up();
    world.write(40, 128 << 10);
    world.settle(40);
    world.tick();
    let first = world.batches.clone();
    world.ranges();
    world.acknowledge(ack(8));
    world.lose("cable");
    assert_eq!(world.link(), (LinkState::Down, "cable"));
    world.write(8, 128 << 10);
    let hello = world.come_up(HelloAck {
        session: 41,
        resume: Stamp(12),
        last_mark: first[1].records[3].mark,
        ..hello_ack(8)
    });
    assert_eq!((hello.oldest, hello.captured), (Stamp(9), Stamp(48)));
    let again = world.batches.clone();
    assert!(again.iter().all(|batch| batch.session == 41));
    assert_eq!(
        world.ranges(),
        [(13, 20), (21, 28), (29, 36), (37, 44), (45, 48)]
    );
    for record in again.iter().flat_map(|batch| &batch.records) {
        let before = first.iter().flat_map(|batch| &batch.records);
        let twin = before.clone().find(|twin| twin.stamp == record.stamp);
        assert!(
            twin.is_none_or(|twin| twin == record),
            "the same record again, mark included"
        );
    }
    assert_eq!(world.settle_marks().first().unwrap().after, Stamp(8));
}

#[test]
fn settle_marks_the_receiver_has_are_not_sent_again_though_records_are() {
    let mut world = World::up();
    world.write(10, 512);
    world.ring[6].1 = Answer::Error;
    world.settle(10);
    world.tick();
    world.lose("cable");
    world.settle_marks();
    world.come_up(HelloAck {
        resume: Stamp(3),
        settled: Stamp(7),
        ..hello_ack(0)
    });
    assert_eq!(world.ranges().last(), Some(&(4, 10)));
    let marks = world.settle_marks();
    assert_eq!((marks[0].after, marks[0].upto), (Stamp(7), Stamp(10)));
    assert!(
        marks[0].voids.is_empty(),
        "void 7 was in a mark the receiver has"
    );
    world.acknowledge(Ack {
        received: Stamp(10),
        ..ack(10)
    });
    assert_eq!(world.acked, 10);
}

#[test]
fn a_refused_source_says_why_and_comes_up_once_the_operator_has_helped() {
    let mut world = World::new();
    let text = "volume pg/wal is not registered for source db1";
    world.refuse(RefusalCode::UnknownVolume, text);
    assert_eq!(world.link(), (LinkState::Refused, text));
    let refused_at = world.now;
    world.refuse(RefusalCode::UnknownVolume, text);
    let waited = world.now - refused_at;
    assert!(waited >= REFUSED_WAIT * 3 / 4 && waited <= REFUSED_WAIT + SECOND);
    assert_eq!(world.link(), (LinkState::Refused, text));
    world.write(1, 512);
    world.come_up(hello_ack(0));
    assert_eq!(world.link(), (LinkState::Up, ""));
    assert_eq!(world.ranges(), [(1, 1)]);
}

#[test]
fn a_receiver_whose_identity_stands_in_the_way_counts_as_a_refusal() {
    let mut world = World::new();
    world.event(Event::Lost(Loss {
        is_refusal: true,
        reason: "another fingerprint".into(),
    }));
    assert_eq!(world.link(), (LinkState::Refused, "another fingerprint"));
}

#[test]
fn an_unreachable_receiver_is_tried_ever_more_seldom_but_for_ever() {
    let mut world = World::new();
    let mut attempts = Vec::new();
    for _ in 0..20 {
        world.until_connecting();
        attempts.push(world.now);
        world.lose("no answer");
    }
    let waits: Vec<Duration> = attempts.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(waits[0] < SECOND / 5);
    assert!(
        waits[10..]
            .iter()
            .all(|wait| *wait > 3 * SECOND && *wait <= 5 * SECOND + SECOND / 50)
    );
    let reports = world
        .told
        .iter()
        .filter(|told| matches!(told, ToTap::Link(_)));
    assert_eq!(reports.count(), 2, "the tap hears of it once");
    world.come_up(hello_ack(0));
    assert_eq!(world.link(), (LinkState::Up, ""));
}

#[test]
fn a_hello_that_is_not_answered_is_given_up() {
    let mut world = World::new();
    world.event(Event::Connected);
    world.pass(HELLO_PATIENCE);
    assert_eq!(world.link().0, LinkState::Down);
    assert!(!world.is_open);
}

#[test]
fn a_receiver_that_lost_what_it_acknowledged_makes_the_tap_copy_again() {
    let mut world = World::up();
    world.write(20, 512);
    world.settle(20);
    world.tick();
    world.acknowledge(ack(15));
    world.lose("the receiver's disk died");
    world.batches.clear();
    let hello = world.come_up(hello_ack(4));
    assert_eq!(hello.oldest, Stamp(16));
    assert!(world.wants_full_copy());
    assert_eq!(
        world.ranges(),
        [(16, 20)],
        "sending goes on at the oldest record held"
    );
    assert_eq!(world.settle_marks()[0].after, Stamp(15));
    world.acknowledge(ack(15));
    world.acknowledge(ack(20));
    assert_eq!(world.acked, 20);
}

#[test]
fn a_ring_that_was_freed_under_the_shipper_makes_the_tap_copy_again() {
    let mut world = World::up();
    world.write(30, 512);
    world.settle(30);
    world.freed = 25;
    world.tick();
    assert!(world.wants_full_copy());
    assert_eq!(world.link().0, LinkState::Down);
    let hello = world.come_up(hello_ack(0));
    assert_eq!(hello.oldest, Stamp(26));
    assert_eq!(world.ranges(), [(26, 30)]);
}

#[test]
fn a_new_shipper_of_an_old_ring_goes_on_where_the_receiver_stands() {
    let mut world = World::up();
    world.write(10, 512);
    world.settle(10);
    world.tick();
    world.acknowledge(ack(4));
    let ring = std::mem::take(&mut world.ring);
    let mut reborn = World::with(Config {
        acked: Stamp(4),
        captured: Stamp(10),
        ..config()
    });
    reborn.ring = ring;
    let hello = reborn.come_up(hello_ack(9));
    assert_eq!(hello.oldest, Stamp(5));
    assert_eq!(reborn.ranges(), [(10, 10)]);
    assert_eq!(reborn.acked, 9);
}

#[test]
fn heartbeats_come_every_second_and_promise_only_what_was_claimed_before() {
    let mut world = World::up();
    assert_eq!(world.beats().len(), 1, "one at once");
    world.write(5, 512);
    for _ in 0..50 {
        world.pass(SECOND / 10);
        let echo = Ack {
            received: Stamp(5),
            ..Ack::default()
        };
        world.acknowledge(echo);
    }
    let beats = world.beats();
    assert_eq!(beats.len(), 5);
    assert!(beats.windows(2).all(|two| two[0].clock < two[1].clock));
    assert!(beats.iter().all(|beat| beat.captured == Stamp(5)));
}

#[test]
fn a_stream_that_was_given_up_promises_nothing_until_it_goes_on() {
    let mut world = World::up();
    world.write(5, 512);
    world.pass(SECOND);
    let last = *world.beats().last().unwrap();
    world.is_closed = true;
    for _ in 0..3 {
        world.pass(SECOND);
    }
    assert_eq!(
        world.beats(),
        [last; 3],
        "alive, but nothing new is vouched for"
    );
    world.is_closed = false;
    world.push(RecordKind::Gap, 0, 0);
    world.pass(SECOND);
    let next = world.beats()[0];
    assert!(next.clock > last.clock && next.captured == Stamp(6));
}

#[test]
fn a_shipper_that_finds_the_stream_given_up_starts_with_an_empty_promise() {
    let mut world = World::new();
    world.is_closed = true;
    world.write(5, 512);
    world.come_up(hello_ack(0));
    assert_eq!(world.beats(), [wire::control::Heartbeat::default()]);
    world.acknowledge(Ack::default());
    assert!(world.is_open);
}

#[test]
fn a_record_claimed_right_after_a_heartbeat_gets_a_later_mark() {
    let mut world = World::up();
    world.write(1, 512);
    let noted = TimeMark(world.wall_ns);
    world.pass(SECOND);
    let promised = world.beats().last().unwrap().clock;
    world.write(1, 512);
    world.ring[1].0.mark = noted;
    world.tick();
    let last = world.batches.last().unwrap().records.last().unwrap().mark;
    assert!(last > promised, "{last:?} after {promised:?}");
}

#[test]
fn a_silent_receiver_is_left_and_its_echo_gives_the_clock_offset() {
    let mut world = World::up();
    let beat = world.beats()[0];
    world.pass(SECOND / 10);
    world.acknowledge(Ack {
        echo: beat.clock,
        clock: TimeMark(beat.clock.0 + 50_000_000 + 7),
        ..Ack::default()
    });
    let offset = world.told.iter().find_map(|told| match told {
        ToTap::Progress(progress) => Some(progress.clock_offset_ns),
        _ => None,
    });
    assert_eq!(offset, Some(7));
    for _ in 0..29 {
        world.pass(SECOND);
    }
    assert_eq!(world.link().0, LinkState::Up);
    world.pass(2 * SECOND);
    assert_eq!(world.link(), (LinkState::Down, "the receiver fell silent"));
}

#[test]
fn what_holds_the_receiver_up_is_shown_and_taken_back() {
    let mut world = World::up();
    world.event(Event::Control(Control::Notice("journal full".into())));
    assert_eq!(world.link(), (LinkState::Up, "journal full"));
    world.event(Event::Control(Control::Notice(String::new())));
    assert_eq!(world.link(), (LinkState::Up, ""));
}

#[test]
fn a_volume_the_receiver_has_not_heard_of_waits_until_it_was_announced() {
    let mut world = World::up();
    world.write(2, 512);
    world.push(RecordKind::Member, 2, 0);
    world.push(RecordKind::Write, 2, 512);
    world.tick();
    assert_eq!(world.ranges(), [(1, 2)], "records of volume 2 wait");
    let volumes = vec![volume(0, "data"), volume(1, "wal"), volume(2, "logs")];
    world.event(Event::Volumes(volumes.clone()));
    assert!(world.closed.last().unwrap().contains("volumes"));
    assert!(world.is_connecting, "again at once, without a wait");
    let hello = world.come_up(hello_ack(0));
    assert_eq!(hello.volumes, volumes);
    assert_eq!(world.ranges(), [(1, 4)]);
}

#[test]
fn a_removed_volume_stays_announced_until_its_records_are_durable() {
    let mut world = World::up();
    world.write(5, 512);
    world.settle(5);
    world.event(Event::Volumes(vec![volume(1, "wal")]));
    assert!(world.is_open, "a removal needs no new hello");
    world.lose("cable");
    assert_eq!(world.come_up(hello_ack(0)).volumes.len(), 2);
    world.acknowledge(ack(5));
    world.lose("cable");
    assert_eq!(world.come_up(hello_ack(5)).volumes, [volume(1, "wal")]);
}

#[test]
fn without_a_tap_the_rest_is_drained_but_no_heartbeat_vouches_for_it() {
    let mut world = World::up();
    world.write(3, 512);
    world.settle(3);
    world.tick();
    world.event(Event::TapGone);
    assert!(!world.session.is_drained());
    world.control.clear();
    for _ in 0..5 {
        world.pass(SECOND);
    }
    assert_eq!(world.beats(), []);
    world.acknowledge(ack(3));
    assert!(world.session.is_drained());
}

#[test]
fn a_stop_is_said_to_the_receiver_and_nothing_follows() {
    let mut world = World::up();
    world.event(Event::Stop);
    assert!(matches!(world.control.back(), Some(Control::Bye(_))));
    assert!(!world.is_open);
    world.write(1, 512);
    world.pass(60 * SECOND);
    assert!(!world.is_connecting && world.batches.is_empty());
}

#[test]
fn a_long_session_makes_the_next_waits_short_again_and_a_flapping_one_does_not() {
    let mut world = World::new();
    let wait = |world: &mut World| {
        let lost = world.now;
        world.until_connecting();
        world.now - lost
    };
    for _ in 0..10 {
        world.come_up(hello_ack(0));
        world.lose("flap");
    }
    assert!(wait(&mut world) > 3 * SECOND);
    world.come_up(hello_ack(0));
    world.pass(SETTLED_SESSION);
    world.lose("cable");
    assert!(wait(&mut world) < SECOND);
}
