//! Power cuts at every call that can change the disk, with every kind of remainder.

use super::store::{Dice, Fault, MemoryStore};
use super::{Bench, STREAM, limits, open, record, scan, settle, told};
use crate::fold::RecordAt;
use crate::journal::{Durable, Entry, JournalError, Limits, Store};
use wire::journal::{GROUP_BYTES_MAX, StreamClose, StreamNumber};
use wire::{Name, Stamp, VolumeIndex, VolumeSpec};

/// A small life of a journal: several segments, freeing, a second stream.
fn life(bench: &mut Bench) -> Result<(), JournalError> {
    bench.append(vec![open(STREAM)])?;
    for stamp in 1..=12 {
        bench.append(vec![
            record(STREAM, stamp, 6144),
            settle(STREAM, stamp - 1, stamp),
        ])?;
    }
    bench.writer.applied(STREAM, Stamp(12));
    let second = StreamNumber(2);
    bench.append(vec![
        Entry::Close(STREAM, StreamClose { upto: Stamp(12) }),
        open(second),
    ])?;
    bench.append((1..=10).map(|stamp| record(second, stamp, 4096)).collect())?;
    bench.writer.retire(STREAM);
    bench.append((11..=20).map(|stamp| record(second, stamp, 4096)).collect())?;
    Ok(())
}

/// Stamps of the second stream, which nothing of is ever freed.
fn kept(entries: &[(StreamNumber, Durable)]) -> Vec<u64> {
    let stamps = entries
        .iter()
        .filter_map(|(stream, durable)| match durable {
            Durable::Record { header, .. } if *stream == StreamNumber(2) => Some(header.stamp.0),
            _ => None,
        });
    stamps.collect()
}

fn calls_of_a_life() -> u64 {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(8));
    life(&mut bench).unwrap();
    assert!(bench.writer.segments() < bench.writer.segments_max());
    store.calls()
}

#[test]
fn after_a_power_cut_at_any_call_all_that_was_called_durable_is_there_and_nothing_is_torn() {
    for call in 0..calls_of_a_life() {
        for seed in 1..=6 {
            let store = MemoryStore::default();
            store.fault_at(call, Fault::PowerCut);
            let mut durable = Vec::new();
            if let Ok((mut bench, ..)) = Bench::try_begin(&store, limits(8)) {
                assert!(life(&mut bench).is_err());
                durable = bench.durable;
            }
            let left = store.after_power_cut(&mut Dice(seed * 7919));
            check_remainder(&left, &durable, &format!("call {call} seed {seed}"));
        }
    }
}

/// All of `durable` that is still needed is there; what is there is sound and in order.
fn check_remainder(left: &MemoryStore, durable: &[(StreamNumber, Durable)], at: &str) {
    let (mut bench, found, damage) = Bench::try_begin(left, limits(8)).unwrap();
    assert_eq!(damage, [], "{at}");
    let found = told(&found);
    let (was, is) = (kept(durable), kept(&found));
    assert!(is.starts_with(&was), "{at}: {was:?} became {is:?}");
    let told_twice: Vec<u64> = (1..=is.len() as u64).collect();
    assert_eq!(is, told_twice, "{at}");
    bench
        .append(vec![open(StreamNumber(3)), record(StreamNumber(3), 1, 512)])
        .unwrap();
    let (recovered, again) = scan(left).unwrap();
    assert_eq!(recovered.damage, [], "{at}, after going on");
    let again = told(&again);
    assert_eq!(kept(&again), is, "{at}, after going on");
    let last = again.last().map(|(stream, _)| *stream);
    assert_eq!(last, Some(StreamNumber(3)), "{at}");
}

/// So many streams with so long tables that a checkpoint takes two groups.
fn wide_streams() -> Vec<Entry> {
    let spec = |index: u16| VolumeSpec {
        index: VolumeIndex(index),
        name: Name::new(&format!("v{index}")).unwrap(),
        size_bytes: 1 << 30,
        sector_bytes: 512,
        identity: "i".repeat(256),
    };
    let table: Vec<_> = (0..256).map(spec).collect();
    let mut entries = Vec::new();
    for number in 1..=125 {
        let Entry::Open(stream, mut stream_open) = open(StreamNumber(number)) else {
            unreachable!("open gives an open entry")
        };
        stream_open.volumes = table.clone();
        entries.push(Entry::Open(stream, stream_open));
        let upto = Stamp(number);
        entries.extend((number > 1).then(|| Entry::Close(stream, StreamClose { upto })));
    }
    entries
}

#[test]
fn a_checkpoint_cut_between_its_groups_is_completed_before_anything_is_freed() {
    let limits = Limits {
        segment_bytes: 16 << 20,
        bytes_max: 64 << 20,
    };
    let wide = wide_streams();
    let bytes: usize = wide.iter().map(Entry::bytes).sum();
    assert!(bytes > GROUP_BYTES_MAX as usize, "{bytes}");
    let (mut cuts, mut completed) = (0, 0);
    loop {
        let store = MemoryStore::default();
        let mut bench = Bench::begin(&store, limits);
        bench.append(wide.clone()).unwrap();
        let mut stamp = 1;
        while store.list().unwrap() == [1, 2] && stamp < 20 {
            if stamp == 6 {
                store.fault_at(store.calls() + cuts, Fault::PowerCut);
            }
            if bench.append(vec![record(STREAM, stamp, 1 << 20)]).is_err() {
                break;
            }
            stamp += 1;
        }
        if bench.writer.maintain().is_ok() {
            break;
        }
        let left = store.after_power_cut(&mut Dice(cuts + 5));
        let (mut bench, _, damage) = Bench::try_begin(&left, limits).unwrap();
        bench.writer.applied(STREAM, Stamp(100));
        bench.writer.maintain().unwrap();
        completed += u64::from(left.list().unwrap()[0] > 1);
        let (_, found) = scan(&left).unwrap();
        let told = told(&found);
        for entry in &wide {
            let (stream, durable) = entry.clone().durable(RecordAt {
                segment: 0,
                offset_bytes: 0,
            });
            assert!(told.contains(&(stream, durable)), "{stream:?} cut {cuts}");
        }
        assert_eq!(damage, [], "cut {cuts}");
        cuts += 1;
    }
    assert!(cuts > 6 && completed > 3, "{completed} of {cuts}");
}

#[test]
fn power_cuts_during_recovery_change_nothing_however_many_follow_each_other() {
    let calls = calls_of_a_life();
    for call in (0..calls).step_by(3) {
        let mut dice = Dice(call + 11);
        let store = MemoryStore::default();
        store.fault_at(call, Fault::PowerCut);
        let mut durable = Vec::new();
        if let Ok((mut bench, ..)) = Bench::try_begin(&store, limits(8)) {
            assert!(life(&mut bench).is_err());
            durable = bench.durable;
        }
        let mut left = store.after_power_cut(&mut dice);
        for cut in 0..8 {
            left.fault_at(left.calls() + dice.roll(8), Fault::PowerCut);
            if let Ok((mut bench, ..)) = Bench::try_begin(&left, limits(8)) {
                let more = bench.append(vec![record(StreamNumber(2), 999, 512)]);
                assert!(more.is_err() || bench.durable.len() == 1);
                // A record that was called durable must be found from now on: stop here.
                if more.is_ok() {
                    break;
                }
            }
            left = left.after_power_cut(&mut dice);
            let (recovered, found) = scan(&left).unwrap();
            let at = format!("call {call} cut {cut}");
            assert_eq!(recovered.damage, [], "{at}");
            let (was, is) = (kept(&durable), kept(&told(&found)));
            assert!(is.starts_with(&was), "{at}: {was:?} became {is:?}");
        }
    }
}

/// Recovers again and again, cut at the given calls, and says what there is in the end.
fn recovered_after(
    left: &MemoryStore,
    cuts: &[u64],
    dice: &mut Dice,
) -> Vec<(StreamNumber, Durable)> {
    let mut left = left.copy();
    for cut in cuts {
        left.fault_at(left.calls() + cut, Fault::PowerCut);
        // The last cuts may lie behind all that a recovery has to do.
        let _ = Bench::try_begin(&left, limits(8));
        left = left.after_power_cut(dice);
    }
    let (bench, found, damage) = Bench::try_begin(&left, limits(8)).unwrap();
    assert_eq!(damage, []);
    drop(bench);
    told(&found)
}

#[test]
fn a_recovery_cut_ten_times_at_any_step_comes_to_the_result_of_one_that_was_not() {
    for call in 0..calls_of_a_life() {
        let mut dice = Dice(call * 31 + 7);
        let store = MemoryStore::default();
        store.fault_at(call, Fault::PowerCut);
        if let Ok((mut bench, ..)) = Bench::try_begin(&store, limits(8)) {
            assert!(life(&mut bench).is_err());
        }
        let left = store.after_power_cut(&mut dice);
        let once = recovered_after(&left, &[], &mut dice);
        let steps = {
            let one = left.copy();
            drop(Bench::try_begin(&one, limits(8)).unwrap());
            one.calls()
        };
        for step in 0..steps {
            let cuts: Vec<u64> = (0..10).map(|turn| (step + turn * turn) % steps).collect();
            let again = recovered_after(&left, &cuts, &mut dice);
            assert_eq!(again, once, "call {call} step {step} of {steps}");
        }
    }
}

#[test]
fn the_first_failed_call_is_final_whatever_later_calls_would_say() {
    let all = calls_of_a_life();
    let mut failures = 0;
    for call in 0..all {
        let store = MemoryStore::default();
        store.fault_at(call, Fault::Once(std::io::ErrorKind::Other));
        let Ok((mut bench, ..)) = Bench::try_begin(&store, limits(8)) else {
            continue;
        };
        let Err(error) = life(&mut bench) else {
            panic!("call {call} failed unnoticed")
        };
        failures += 1;
        assert!(
            matches!(error, JournalError::Failed(_)),
            "call {call}: {error}"
        );
        let count = bench.durable.len();
        for _ in 0..3 {
            assert!(bench.append(vec![record(STREAM, 500, 512)]).is_err());
            assert!(bench.writer.maintain().is_err());
        }
        assert_eq!(
            bench.durable.len(),
            count,
            "nothing is called durable after a failure"
        );
        let (was, left) = (kept(&bench.durable), store.copy());
        drop(bench);
        let (recovered, found) = scan(&left).unwrap();
        assert_eq!(recovered.damage, [], "call {call}");
        assert!(kept(&told(&found)).starts_with(&was), "call {call}");
    }
    assert!(failures > 20, "only {failures} calls were tried");
}
