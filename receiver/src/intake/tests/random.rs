//! Any order, any repetition, against the same in order.

use super::*;

/// A stream of records, members and void records, with its settle marks.
fn script() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    (5usize..40).prop_flat_map(|count| {
        let kinds = proptest::collection::vec(0u8..6, count);
        let order = proptest::collection::vec(0usize..count, count * 3);
        (kinds, order)
    })
}

fn record_of(kind: u8, stamp: u64) -> (RecordHeader, Vec<u8>) {
    match kind {
        0 => member(stamp, "wal", MemberAction::Join),
        1 => member(stamp, "data", MemberAction::Ready),
        _ => (header(stamp), Vec::new()),
    }
}

fn settles(kinds: &[u8]) -> Vec<SettleMark> {
    let each = (1u64..).zip(kinds);
    each.map(|(stamp, kind)| {
        let void = if *kind == 5 { vec![stamp] } else { Vec::new() };
        mark(stamp - 1, stamp, &void)
    })
    .collect()
}

/// All progress, with places in between left out: how often one looks does not matter.
fn condensed(progress: Vec<Progress>) -> Vec<Progress> {
    let mut out: Vec<Progress> = Vec::new();
    for step in progress {
        if matches!(step, Progress::Upto { .. })
            && matches!(out.last(), Some(Progress::Upto { .. }))
        {
            out.pop();
        }
        out.push(step);
    }
    out
}

proptest! {
    #[test]
    fn any_order_any_repetition_and_a_restart_give_the_same_progress(
        (kinds, order) in script(), restart in any::<prop::sample::Index>()
    ) {
        let mut straight = intake();
        for (stamp, kind) in (1u64..).zip(&kinds) {
            let (header, payload) = record_of(*kind, stamp);
            take(&mut straight, header, &payload);
        }
        for mark in settles(&kinds) {
            settle(&mut straight, &mark);
        }
        let expected = straight.advance();

        let mut mixed = intake();
        let mut journal: Vec<Durable> = Vec::new();
        let mut progress = Vec::new();
        let mut marks = settles(&kinds).into_iter();
        let everything = order.iter().copied().chain(0..kinds.len());
        let restart_at = restart.index(order.len());
        for (step, at) in everything.enumerate() {
            let (header, payload) = record_of(kinds[at], at as u64 + 1);
            if mixed.receive(&header, &payload).unwrap() == Receipt::New {
                journal.push(stored(header, &payload));
                mixed.durable(stored(header, &payload));
            }
            if step % 2 == 0 && let Some(mark) = marks.next() {
                mixed.settle(&mark).unwrap();
            }
            while let Some(due) = mixed.settle_due() {
                journal.push(Durable::Settle(due.clone()));
                mixed.durable(Durable::Settle(due));
            }
            progress.extend(mixed.advance());
            if step == restart_at {
                mixed = intake();
                progress.clear();
                journal.iter().for_each(|durable| mixed.durable(durable.clone()));
                let settled = mixed.settled();
                marks = settles(&kinds).split_off(settled.0 as usize).into_iter();
                progress.extend(mixed.advance());
            }
        }
        for mark in marks {
            mixed.settle(&mark).unwrap();
        }
        store_settles(&mut mixed);
        progress.extend(mixed.advance());
        prop_assert_eq!(condensed(progress), condensed(expected));
    }
}
