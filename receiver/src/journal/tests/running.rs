//! The thread on real files: holds, room, failure, and reading records back.

use super::store::{Fault, MemoryStore};
use super::{ID, STREAM, limits, open, record, settle};
use crate::apply::PayloadSource;
use crate::fold::RecordAt;
use crate::journal::{
    Batch, DirStore, Durable, Found, Journal, Limits, Reader, Sink, Store, Writer, recover,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use wire::Stamp;
use wire::journal::{JournalId, StreamNumber};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Told {
    Durable(Vec<(StreamNumber, Durable)>),
    Room(bool),
    Pressed(Option<u64>),
    Failed(String),
}

struct Channel(Sender<Told>);

impl Sink for Channel {
    fn durable(&mut self, entries: Vec<(StreamNumber, Durable)>) {
        let _ = self.0.send(Told::Durable(entries));
    }

    fn room(&mut self, room: bool) {
        let _ = self.0.send(Told::Room(room));
    }

    fn pressed(&mut self, upto: Option<u64>) {
        let _ = self.0.send(Told::Pressed(upto));
    }

    fn failed(&mut self, reason: &str) {
        let _ = self.0.send(Told::Failed(reason.into()));
    }
}

fn start<S: Store + 'static>(mut store: S, limits: Limits) -> (Journal, Receiver<Told>) {
    let path = Path::new("/j");
    let recovered = recover(&mut store, path, None, &mut |_: Found| {}).unwrap();
    let writer = Writer::start(store, path.to_owned(), recovered, limits, ID).unwrap();
    let (sender, receiver) = channel();
    (
        Journal::start(writer, Box::new(Channel(sender))).unwrap(),
        receiver,
    )
}

fn batch(entries: Vec<super::Entry>) -> Batch {
    Batch {
        entries,
        hold: None,
    }
}

fn durable(told: &Receiver<Told>, count: usize) -> Vec<(StreamNumber, Durable)> {
    let mut found = Vec::new();
    while found.len() < count {
        if let Told::Durable(entries) = told.recv_timeout(PATIENCE).unwrap() {
            found.extend(entries);
        }
    }
    found
}

#[test]
fn records_appended_on_files_are_read_back_where_they_were_said_to_lie() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        segment_bytes: 1 << 20,
        bytes_max: 64 << 20,
    };
    let (journal, told) = start(DirStore::open(dir.path()).unwrap(), limits);
    journal.append(batch(vec![open(STREAM)]));
    let lengths = [512, 4096, 65_536, 512, 300 * 1024, 1024];
    let entries = |round: u64| {
        let each = lengths.iter().enumerate();
        each.map(|(at, &length)| record(STREAM, round * 6 + at as u64 + 1, length))
            .collect()
    };
    for round in 0..10 {
        journal.append(batch(entries(round)));
    }
    let found = durable(&told, 1 + 10 * lengths.len());
    let mut reader = Reader::new(dir.path().to_owned(), journal.id(), journal.segment_bytes());
    let mut payload = Vec::new();
    let records = found.iter().filter_map(|(_, durable)| match durable {
        Durable::Record { header, at, .. } => Some((*header, *at)),
        _ => None,
    });
    let records: Vec<_> = records.collect();
    for (header, at) in records.iter().chain(records.iter().rev()) {
        assert_eq!(reader.read(*at, &mut payload).unwrap(), *header);
        header.verify(&payload).unwrap();
    }
    let nowhere = RecordAt {
        segment: 1,
        offset_bytes: 4096 + 128,
    };
    assert!(reader.read(nowhere, &mut payload).is_err());
    let mut foreign = Reader::new(dir.path().to_owned(), JournalId(1), journal.segment_bytes());
    assert!(foreign.read(records[0].1, &mut payload).is_err());
    journal.stop();
}

#[test]
fn what_a_batch_holds_is_dropped_when_it_is_durable_and_not_before() {
    let (journal, told) = start(MemoryStore::default(), limits(8));
    let hold = Arc::new(());
    let entries = vec![open(STREAM), record(STREAM, 1, 512)];
    journal.append(Batch {
        entries,
        hold: Some(Box::new(Arc::clone(&hold))),
    });
    durable(&told, 2);
    journal.stop();
    assert_eq!(Arc::strong_count(&hold), 1);
}

#[test]
fn stopping_makes_everything_queued_durable_first() {
    let store = MemoryStore::default();
    let (journal, told) = start(store.clone(), limits(40));
    journal.append(batch(vec![open(STREAM)]));
    for stamp in 1..=200 {
        journal.append(batch(vec![record(STREAM, stamp, 4096)]));
    }
    journal.stop();
    assert_eq!(durable(&told, 201).len(), 201);
    assert_eq!(super::told(&super::scan(&store).unwrap().1).len(), 201);
}

#[test]
fn a_full_journal_tells_and_goes_on_by_itself_when_space_is_freed() {
    let (journal, told) = start(MemoryStore::default(), limits(4));
    journal.append(batch(vec![open(STREAM)]));
    let mut stamp = 0;
    while !journal.facts().full {
        stamp += 1;
        journal.append(batch(vec![record(STREAM, stamp, 4096)]));
        durable(&told, 1);
    }
    journal.append(batch(vec![settle(STREAM, 0, stamp)]));
    durable(&told, 1);
    journal.applied(STREAM, Stamp(stamp));
    loop {
        match told.recv_timeout(PATIENCE).unwrap() {
            Told::Room(true) => break,
            Told::Failed(reason) => panic!("{reason}"),
            Told::Room(false) | Told::Pressed(_) | Told::Durable(_) => {}
        }
    }
    journal.append(batch(vec![record(STREAM, stamp + 1, 4096)]));
    durable(&told, 1);
    journal.stop();
}

#[test]
fn a_journal_that_is_nearly_full_says_what_it_wants_back_before_it_refuses_records() {
    let (journal, told) = start(MemoryStore::default(), limits(8));
    journal.append(batch(vec![open(STREAM)]));
    durable(&told, 1);
    let mut stamp = 0;
    let wanted = loop {
        stamp += 1;
        journal.append(batch(vec![record(STREAM, stamp, 4096)]));
        match told.recv_timeout(PATIENCE).unwrap() {
            Told::Pressed(wanted) => break wanted.unwrap(),
            Told::Durable(_) => {}
            Told::Room(_) | Told::Failed(_) => panic!("it was to say so before"),
        }
    };
    let oldest = 1;
    assert!(wanted >= oldest && wanted < 7, "{wanted}");
    journal.append(batch(vec![settle(STREAM, 0, stamp)]));
    journal.applied(STREAM, Stamp(stamp));
    loop {
        match told.recv_timeout(PATIENCE).unwrap() {
            Told::Pressed(None) => break,
            Told::Failed(reason) => panic!("{reason}"),
            _ => {}
        }
    }
    journal.stop();
}

#[test]
fn entries_that_found_no_room_become_durable_when_there_is_some_with_nothing_else_said() {
    let (journal, told) = start(MemoryStore::default(), limits(4));
    journal.append(batch(vec![open(STREAM)]));
    durable(&told, 1);
    let count: u64 = 80;
    let records = (1..=count).map(|stamp| record(STREAM, stamp, 4096));
    journal.append(batch(records.collect()));
    let mut found = 0;
    while let Ok(said) = told.recv_timeout(Duration::from_millis(300)) {
        if let Told::Durable(entries) = said {
            found += entries.len() as u64;
        }
    }
    assert!(found < count && journal.facts().full, "{found} found room");
    journal.applied(STREAM, Stamp(found));
    durable(&told, usize::try_from(count - found).unwrap());
    journal.stop();
}

#[test]
fn after_a_failed_sync_nothing_is_durable_and_what_comes_in_is_let_go() {
    let store = MemoryStore::default();
    let (journal, told) = start(store.clone(), limits(8));
    journal.append(batch(vec![open(STREAM)]));
    durable(&told, 1);
    // The write is the next call, its sync the one after.
    store.fault_at(store.calls() + 1, Fault::Once(std::io::ErrorKind::Other));
    let hold = Arc::new(());
    let entries = vec![record(STREAM, 1, 512)];
    journal.append(Batch {
        entries,
        hold: Some(Box::new(Arc::clone(&hold))),
    });
    let Told::Failed(reason) = told.recv_timeout(PATIENCE).unwrap() else {
        panic!("a failed sync was called durable")
    };
    assert!(
        reason.contains("nothing is acknowledged any more"),
        "{reason}"
    );
    for stamp in 2..=10 {
        let entries = vec![record(STREAM, stamp, 512)];
        journal.append(Batch {
            entries,
            hold: Some(Box::new(Arc::clone(&hold))),
        });
    }
    journal.stop();
    assert_eq!(Arc::strong_count(&hold), 1);
    assert!(told.try_recv().is_err());
    assert_eq!(journal.facts().failed, Some(reason));
}

/// Panics at the first durable entry, then tells the rest.
struct Fragile(Channel);

impl Sink for Fragile {
    fn durable(&mut self, _: Vec<(StreamNumber, Durable)>) {
        std::panic::panic_any("on purpose");
    }

    fn room(&mut self, room: bool) {
        self.0.room(room);
    }

    fn pressed(&mut self, upto: Option<u64>) {
        self.0.pressed(upto);
    }

    fn failed(&mut self, reason: &str) {
        self.0.failed(reason);
    }
}

#[test]
fn a_thread_that_panics_is_a_journal_that_has_failed() {
    let mut store = MemoryStore::default();
    let path = Path::new("/j");
    let recovered = recover(&mut store, path, None, &mut |_: Found| {}).unwrap();
    let writer = Writer::start(store, path.to_owned(), recovered, limits(8), ID).unwrap();
    let (sender, told) = channel();
    let journal = Journal::start(writer, Box::new(Fragile(Channel(sender)))).unwrap();
    let hold = Arc::new(());
    journal.append(Batch {
        entries: vec![open(STREAM)],
        hold: Some(Box::new(Arc::clone(&hold))),
    });
    let failed = |said: &Told| matches!(said, Told::Failed(_));
    while !failed(&told.recv_timeout(PATIENCE).unwrap()) {}
    assert!(journal.facts().failed.is_some());
    journal.append(batch(vec![record(STREAM, 1, 512)]));
    journal.stop();
    assert_eq!(Arc::strong_count(&hold), 1, "what it held is let go");
}
