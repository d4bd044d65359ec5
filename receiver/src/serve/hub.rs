//! Hub: who is reached how. The handles of groups, the journal and the streams' owners.
//!
//! Shared by all threads. It routes and numbers; its locks are held for look-ups only.

use super::group::Event;
use super::meetings::Meetings;
use super::messages::{Handle, Told};
use super::room::Rooms;
use crate::apply::Budget;
use crate::catalog::{Catalog, Lane};
use crate::config::Settings;
use crate::control::JournalPlace;
use crate::journal::{Durable, Facts, Journal, Sink};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use wire::Name;
use wire::journal::StreamNumber;

/// How long a group may take to come to rest at a clean stop.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer of a group's actor may take.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// The switchboard.
#[derive(Debug)]
pub struct Hub {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) listen: String,
    /// How far back points are kept.
    pub(super) retain: Duration,
    /// Memory of the steps of all groups.
    pub(super) budget: Budget,
    rooms: Rooms,
    journal: OnceLock<JournalHandle>,
    news: Mutex<News>,
    groups: Mutex<BTreeMap<Lane, Handle>>,
    pub(super) meetings: Meetings,
    owners: Mutex<BTreeMap<StreamNumber, Lane>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next: AtomicU64,
    next_stream: AtomicU64,
}

/// What every group must know of the journal, whenever it was begun.
#[derive(Debug, Default)]
struct News {
    full: bool,
    pressed: Option<u64>,
    failed: Option<String>,
}

struct JournalHandle(Journal, std::path::PathBuf);

impl std::fmt::Debug for JournalHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("JournalHandle").field(&self.1).finish()
    }
}

impl Hub {
    /// `segment_bytes` are those of the journal.
    pub(super) fn new(
        catalog: Arc<Catalog>,
        settings: &Settings,
        next_stream: StreamNumber,
        segment_bytes: u64,
    ) -> Self {
        Self {
            catalog,
            listen: settings.listen.to_string(),
            retain: settings.retain,
            budget: Budget::new(settings.steps_bytes_max),
            rooms: Rooms::new(segment_bytes),
            journal: OnceLock::new(),
            news: Mutex::default(),
            groups: Mutex::default(),
            meetings: Meetings::default(),
            owners: Mutex::default(),
            threads: Mutex::default(),
            next: AtomicU64::new(1),
            next_stream: AtomicU64::new(next_stream.0),
        }
    }

    pub(super) fn set_journal(&self, journal: Journal, dir: std::path::PathBuf) {
        let fresh = self.journal.set(JournalHandle(journal, dir)).is_ok();
        assert!(fresh, "the journal is started once");
    }

    /// The journal; it is there before anyone can ask.
    pub(super) fn journal(&self) -> &Journal {
        &self
            .journal
            .get()
            .expect("the journal is started before the groups")
            .0
    }

    /// A reader of the journal for a worker.
    pub(super) fn reader(&self) -> crate::journal::Reader {
        let JournalHandle(journal, dir) = self
            .journal
            .get()
            .expect("the journal is started before the groups");
        crate::journal::Reader::new(dir.clone(), journal.id(), journal.segment_bytes())
    }

    /// Where others can read the journal.
    pub(super) fn journal_place(&self) -> JournalPlace {
        let JournalHandle(journal, dir) = self
            .journal
            .get()
            .expect("the journal is started before the groups");
        JournalPlace {
            dir: dir.clone(),
            id: format!("{:032x}", journal.id().0),
            segment_bytes: journal.segment_bytes(),
        }
    }

    /// How the journal is.
    pub(super) fn journal_facts(&self) -> Facts {
        self.journal
            .get()
            .map(|JournalHandle(journal, _)| journal.facts())
            .unwrap_or_default()
    }

    /// Where sessions get room for what they read.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// A number nobody had in this process.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A stream number nothing in the journal has.
    pub fn stream_number(&self) -> StreamNumber {
        StreamNumber(self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// From now on the group hears of the journal, and of what it was told before; its threads are
    /// ended with the others.
    pub(super) fn enter(&self, name: Lane, handle: Handle, threads: [JoinHandle<()>; 2]) {
        lock(&self.threads).extend(threads);
        let news = lock(&self.news);
        let tell = handle.tell.clone();
        lock(&self.groups).insert(name, handle);
        // Nobody to tell is a group that has ended already.
        if news.full {
            let _ = tell.send(Told::Event(Event::JournalRoom(false)));
        }
        if news.pressed.is_some() {
            let _ = tell.send(Told::Event(Event::JournalPressed(news.pressed)));
        }
        if let Some(reason) = &news.failed {
            let _ = tell.send(Told::Event(Event::JournalFailed(reason.clone())));
        }
    }

    /// A group's handle.
    pub(super) fn group(&self, name: &Lane) -> Option<Handle> {
        lock(&self.groups).get(name).cloned()
    }

    pub(super) fn handles(&self) -> Vec<(Lane, Handle)> {
        lock(&self.groups)
            .iter()
            .map(|(name, handle)| (name.clone(), handle.clone()))
            .collect()
    }

    /// The lanes of a group, by source.
    pub(super) fn lanes_of(&self, group: &Name) -> Vec<Lane> {
        let lanes = self.handles().into_iter().map(|(lane, _)| lane);
        lanes.filter(|lane| lane.group == *group).collect()
    }

    /// The lanes of each group, by name.
    pub(super) fn groups(&self) -> Vec<Vec<Lane>> {
        let lanes: Vec<Lane> = self.handles().into_iter().map(|(lane, _)| lane).collect();
        let groups = lanes.chunk_by(|one, other| one.group == other.group);
        groups.map(<[Lane]>::to_vec).collect()
    }

    /// Tells a group's actor; false if there is none.
    pub fn tell(&self, group: &Lane, told: Told) -> bool {
        self.group(group)
            .is_some_and(|handle| handle.tell.send(told).is_ok())
    }

    /// Asks a group's actor something that it answers through a channel.
    pub(super) fn ask<T>(
        &self,
        group: &Lane,
        question: impl FnOnce(SyncSender<T>) -> Told,
    ) -> Option<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        if !self.tell(group, question(answer)) {
            return None;
        }
        answered.recv_timeout(ANSWER_PATIENCE).ok()
    }

    /// The same, of something that takes its time: when that is up it is withdrawn, and what has
    /// come of it by then is the answer.
    pub(super) fn ask_or_withdraw<T>(
        &self,
        group: &Lane,
        question: impl FnOnce(SyncSender<T>) -> Told,
        (patience, withdrawal): (Duration, Event),
    ) -> Option<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        if !self.tell(group, question(answer)) {
            return None;
        }
        match answered.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => {
                self.tell(group, Told::Event(withdrawal));
                answered.recv_timeout(patience).ok()
            }
            answer => answer.ok(),
        }
    }

    /// What the journal says of the stream goes to this group.
    pub(super) fn own(&self, stream: StreamNumber, group: &Lane) {
        lock(&self.owners).insert(stream, group.clone());
    }

    pub(super) fn disown(&self, stream: StreamNumber) {
        lock(&self.owners).remove(&stream);
    }

    /// Ends the sessions of the source, with these words.
    pub fn dismiss_source(&self, source: &Name, reason: &str) {
        for (lane, _) in self.handles() {
            if lane.source == *source {
                self.tell(&lane, Told::Event(Event::Dismissed(reason.into())));
            }
        }
    }

    /// Ends every session, with these words.
    pub fn dismiss_all(&self, reason: &str) {
        for (name, _) in self.handles() {
            self.tell(&name, Told::Event(Event::Dismissed(reason.into())));
        }
    }

    /// Brings every group to rest and ends all threads.
    pub fn stop(&self) {
        self.end_meetings();
        let mut waits = Vec::new();
        for (name, _) in self.handles() {
            let (answer, answered) = mpsc::sync_channel(1);
            if self.tell(&name, Told::Stop(answer)) {
                waits.push((name, answered));
            }
        }
        for (name, answered) in waits {
            if answered.recv_timeout(STOP_PATIENCE).is_err() {
                tracing::warn!(group = %name, "stopped before the base had come to rest");
            }
        }
        lock(&self.groups).clear();
        self.journal().stop();
        for thread in lock(&self.threads).drain(..) {
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("a thread of a group panicked");
            }
        }
    }
}

/// The journal's news, to whom they belong.
pub(super) struct Router(pub(super) Arc<Hub>);

impl Sink for Router {
    fn durable(&mut self, entries: Vec<(StreamNumber, Durable)>) {
        let mut rest = entries.into_iter().peekable();
        while let Some((stream, first)) = rest.next() {
            let mut run = vec![first];
            while let Some((_, next)) = rest.next_if(|(number, _)| *number == stream) {
                run.push(next);
            }
            let owner = lock(&self.0.owners).get(&stream).cloned();
            if let Some(owner) = owner {
                self.0
                    .tell(&owner, Told::Event(Event::Durable(stream, run)));
            }
        }
    }

    fn room(&mut self, room: bool) {
        let mut news = lock(&self.0.news);
        news.full = !room;
        for (name, _) in self.0.handles() {
            self.0.tell(&name, Told::Event(Event::JournalRoom(room)));
        }
    }

    fn pressed(&mut self, upto: Option<u64>) {
        let mut news = lock(&self.0.news);
        news.pressed = upto;
        for (name, _) in self.0.handles() {
            self.0.tell(&name, Told::Event(Event::JournalPressed(upto)));
        }
    }

    fn failed(&mut self, reason: &str) {
        tracing::error!(reason, "the journal has failed");
        let mut news = lock(&self.0.news);
        news.failed = Some(reason.into());
        for (name, _) in self.0.handles() {
            self.0
                .tell(&name, Told::Event(Event::JournalFailed(reason.into())));
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Held for look-ups only: a panic elsewhere cannot have left half a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn hub() -> (tempfile::TempDir, Arc<Hub>) {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::create(&dir.path().join("catalog.redb")).unwrap();
        let hub = Hub::new(
            Arc::new(catalog),
            &settings(dir.path()),
            StreamNumber(1),
            1 << 24,
        );
        (dir, Arc::new(hub))
    }

    fn settings(dir: &Path) -> Settings {
        Settings {
            dir: dir.to_owned(),
            listen: "127.0.0.1:1".parse().unwrap(),
            advertise: "a:1".into(),
            journal_dir: dir.join("journal"),
            journal_bytes_max: crate::journal::JOURNAL_BYTES_MIN,
            retain: Duration::ZERO,
            steps_bytes_max: crate::apply::STEPS_BYTES_MIN,
        }
    }

    fn enter(hub: &Hub, name: &str) -> mpsc::Receiver<Told> {
        let (tell, told) = mpsc::channel();
        let (work, _) = mpsc::channel();
        let threads = [(); 2].map(|()| std::thread::spawn(|| {}));
        let name = Name::new(name).unwrap();
        let lane = Lane {
            group: name.clone(),
            source: name,
        };
        hub.enter(lane, Handle { tell, work }, threads);
        told
    }

    #[test]
    fn what_takes_too_long_is_withdrawn_and_the_answer_says_what_became_of_it() {
        let (_dir, hub) = hub();
        let told = enter(&hub, "busy");
        let lane = hub.lanes_of(&Name::new("busy").unwrap()).remove(0);
        let volume = Name::new("data").unwrap();
        let group = std::thread::spawn(move || {
            let Ok(Told::Remove(asked, answer)) = told.recv() else {
                panic!("not asked")
            };
            let withdrawn = told.recv_timeout(Duration::from_secs(5));
            let kept = matches!(withdrawn, Ok(Told::Event(Event::Keep(kept))) if kept == asked);
            answer
                .try_send(kept.then_some(()).ok_or_else(String::new))
                .unwrap();
        });
        let question = |answer| Told::Remove(volume.clone(), answer);
        let withdrawal = (Duration::from_secs(1), Event::Keep(volume.clone()));
        let answer = hub.ask_or_withdraw(&lane, question, withdrawal);
        group.join().unwrap();
        assert_eq!(answer, Some(Ok(())), "it was withdrawn, and that was heard");
    }

    #[test]
    fn a_group_that_begins_late_knows_how_the_journal_is() {
        let (_dir, hub) = hub();
        let mut router = Router(hub.clone());
        router.room(false);
        let full = enter(&hub, "full");
        assert!(matches!(
            full.try_recv(),
            Ok(Told::Event(Event::JournalRoom(false)))
        ));
        router.room(true);
        assert!(enter(&hub, "roomy").try_recv().is_err());
        router.failed("the disk is gone");
        let failed = enter(&hub, "failed").try_recv();
        assert!(matches!(
            failed,
            Ok(Told::Event(Event::JournalFailed(reason))) if reason == "the disk is gone"
        ));
    }
}
