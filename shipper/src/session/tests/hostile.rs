//! A receiver that says what cannot be true: the session ends, the source keeps what it had.

use super::world::{World, ack, config, hello_ack};
use crate::session::*;
use ring::handoff::{LinkState, ToTap};
use wire::control::{Ack, Control, CopyWanted, Heartbeat, HelloAck};
use wire::{Generation, SettleMark, Stamp, TimeMark, VolumeIndex};

/// What is wrong, and how to make it so.
type Spoilt<T> = (&'static str, fn(&mut T));

/// Ten records sent, eight settled, six of them durable.
fn midway() -> World {
    let mut world = World::up();
    world.write(10, 512);
    world.settle(8);
    world.tick();
    world.acknowledge(ack(6));
    assert_eq!(world.acked, 6);
    world
}

fn assert_broken_off(world: &mut World, what: &str) {
    assert!(!world.is_open, "{what}: the connection stays open");
    assert_eq!(world.link().0, LinkState::Down, "{what}");
    assert!(
        matches!(world.control.back(), Some(Control::Bye(_))),
        "{what}"
    );
    assert_eq!(world.acked, 6, "{what}: the ring is not freed");
    world.batches.clear();
    let hello = world.come_up(hello_ack(6));
    assert_eq!(hello.oldest, Stamp(7), "{what}");
    assert_eq!(world.ranges(), [(7, 10)], "{what}: nothing was forgotten");
}

#[test]
fn impossible_acks_are_not_believed() {
    let fine = Ack {
        received: Stamp(10),
        ..ack(6)
    };
    let cases: [Spoilt<Ack>; 10] = [
        ("received ahead of sent", |ack| ack.received = Stamp(11)),
        ("durable ahead of received", |ack| ack.durable = Stamp(11)),
        ("settled ahead of marked", |ack| ack.settled = Stamp(9)),
        ("applied ahead of durable", |ack| ack.applied = Stamp(7)),
        ("received back", |ack| ack.received = Stamp(5)),
        ("durable back", |ack| ack.durable = Stamp(5)),
        ("settled back", |ack| ack.settled = Stamp(5)),
        ("echo of nothing", |ack| ack.echo = TimeMark(u64::MAX)),
        ("everything at the end of time", |ack| {
            (ack.received, ack.durable) = (Stamp(u64::MAX), Stamp(u64::MAX));
            (ack.settled, ack.applied) = (Stamp(u64::MAX), Stamp(u64::MAX));
        }),
        ("everything at zero", |ack| *ack = Ack::default()),
    ];
    for (what, spoil) in cases {
        let mut world = midway();
        let mut bad = fine;
        spoil(&mut bad);
        world.acknowledge(bad);
        assert_broken_off(&mut world, what);
    }
    let mut world = midway();
    world.acknowledge(fine);
    assert!(world.is_open);
}

#[test]
fn an_ack_frees_nothing_that_the_ring_does_not_show_as_settled() {
    let mut world = World::with(Config {
        captured: Stamp(10),
        ..config()
    });
    world.write(10, 512);
    world.settle(2);
    // The receiver claims settle marks up to 9; an earlier shipper may have sent them, so it is not
    // impossible, but the ring says otherwise.
    world.come_up(HelloAck {
        settled: Stamp(9),
        ..hello_ack(9)
    });
    assert_eq!(world.acked, 2);
}

#[test]
fn impossible_answers_to_a_hello_are_not_believed() {
    let cases: [Spoilt<HelloAck>; 5] = [
        ("resume ahead of sent", |ack| ack.resume = Stamp(11)),
        ("settled ahead of sent", |ack| ack.settled = Stamp(11)),
        ("resume at the end of time", |ack| {
            ack.resume = Stamp(u64::MAX)
        }),
        ("a mark beyond any clock", |ack| {
            ack.last_mark = TimeMark(1 << 63)
        }),
        ("the largest mark", |ack| ack.last_mark = TimeMark(u64::MAX)),
    ];
    for (what, spoil) in cases {
        let mut world = midway();
        world.lose("cable");
        let mut bad = hello_ack(6);
        spoil(&mut bad);
        world.come_up(bad);
        assert_broken_off(&mut world, what);
    }
}

#[test]
fn messages_out_of_turn_end_the_session() {
    let settle = SettleMark {
        after: Stamp(0),
        upto: Stamp(1),
        voids: Vec::new(),
    };
    let odd = [
        Control::HelloAck(hello_ack(0)),
        Control::Heartbeat(Heartbeat::default()),
        Control::Settle(settle),
        Control::CopyWanted(CopyWanted {
            volume: Some(VolumeIndex(9)),
            reason: "no such volume".into(),
        }),
    ];
    for message in odd {
        let mut world = midway();
        let what = format!("{message:?}");
        world.event(Event::Control(message));
        assert_broken_off(&mut world, &what);
    }
}

#[test]
fn an_ack_before_the_hello_was_answered_ends_the_attempt() {
    let mut world = World::new();
    world.event(Event::Connected);
    world.hello();
    world.acknowledge(Ack::default());
    assert!(!world.is_open);
    assert_eq!(world.link().0, LinkState::Down);
}

#[test]
fn a_receiver_with_an_older_or_foreign_generation_is_refused() {
    let generation = |counter, lineage| Generation { counter, lineage };
    for theirs in [generation(4, 7), generation(5, 8), Generation::default()] {
        let mut world = World::with(Config {
            generation: generation(5, 7),
            ..config()
        });
        world.write(1, 512);
        world.come_up(HelloAck {
            generation: theirs,
            ..hello_ack(0)
        });
        assert_eq!(world.link().0, LinkState::Refused, "{theirs}");
        assert!(world.batches.is_empty(), "nothing is sent to {theirs}");
        world.come_up(HelloAck {
            generation: generation(6, 1),
            ..hello_ack(0)
        });
        assert_eq!(world.link().0, LinkState::Up);
    }
}

#[test]
fn a_storm_of_copy_wishes_and_notices_changes_nothing_but_what_the_tap_hears() {
    let mut world = midway();
    for _ in 0..100 {
        let reason = "again".into();
        let wanted = CopyWanted {
            volume: None,
            reason,
        };
        world.event(Event::Control(Control::CopyWanted(wanted)));
        world.event(Event::Control(Control::Notice("busy".into())));
    }
    assert!(world.is_open && world.wants_full_copy());
    assert_eq!(world.acked, 6);
    let wishes = world
        .told
        .iter()
        .filter(|told| matches!(told, ToTap::CopyWanted(_)));
    assert_eq!(wishes.count(), 1, "one wish, however often it is made");
}
