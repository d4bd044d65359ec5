//! Actor: the thread that owns one [`Group`] and carries out what it asks for.

use super::backlog::Backlog;
use super::group::{Event, Group, HoldId, JobOutcome, Now, Output, SessionId};
use super::hub::Hub;
use super::line::Line;
use super::messages::{Handle, Held, Removed, Told, Work};
use super::room::Room;
use crate::clock::wall_clock;
use crate::journal::{Batch, Entry};
use crate::points::{Cut, Reach};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::control::Control;
use wire::{Name, VolumeName};

/// Longest time between two looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Most messages taken before the source hears how far things are.
const TURN_MAX: usize = 64;

struct Actor {
    hub: Arc<Hub>,
    group: Group,
    handle: Handle,
    begun: Instant,
    sessions: BTreeMap<SessionId, Arc<Line>>,
    holds: BTreeMap<HoldId, SyncSender<Held>>,
    removals: BTreeMap<Name, SyncSender<Removed>>,
    stop: Option<SyncSender<()>>,
    /// Room of the records being handled: the journal keeps it until they are durable.
    room: Option<Room>,
    /// Records that wait until the group takes any; their room bounds them.
    backlog: Backlog,
    /// The group takes no records, as the sessions were told.
    held_up: bool,
    stopped: bool,
    /// How far it reaches, as the other sources of the group were told.
    reported: Option<Reach>,
}

/// However the thread ends: nobody is left to believe that it listens.
impl Drop for Actor {
    fn drop(&mut self) {
        for line in self.sessions.values() {
            line.end("the group is not served any more; see the receiver's log".into());
        }
    }
}

/// Starts the thread.
pub(super) fn spawn(
    hub: Arc<Hub>,
    group: Group,
    told: Receiver<Told>,
    handle: Handle,
) -> io::Result<JoinHandle<()>> {
    let name = format!("group {}", group.lane());
    let mut actor = Actor {
        hub,
        group,
        handle,
        begun: Instant::now(),
        sessions: BTreeMap::new(),
        holds: BTreeMap::new(),
        removals: BTreeMap::new(),
        stop: None,
        room: None,
        backlog: Backlog::default(),
        held_up: false,
        stopped: false,
        reported: None,
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(move || actor.run(&told))
}

impl Actor {
    fn run(&mut self, told: &Receiver<Told>) {
        while !self.stopped {
            match told.recv_timeout(self.patience()) {
                Ok(first) => {
                    self.take(first);
                    let more = std::iter::from_fn(|| told.try_recv().ok());
                    for next in more.take(TURN_MAX) {
                        self.take(next);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.event(Event::Tick),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.take_waiting();
            self.acknowledge();
        }
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    fn patience(&self) -> Duration {
        let deadline = self.group.deadline().unwrap_or(Duration::MAX);
        deadline
            .saturating_sub(self.begun.elapsed())
            .clamp(Duration::from_millis(1), TICK)
    }

    fn now(&self) -> Now {
        Now {
            wall: wall_clock(),
            up: self.begun.elapsed(),
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Event(event) | Told::Heard(event, _) => self.event(event),
            Told::Records(session, records, room) => {
                let up = self.begun.elapsed();
                self.backlog.push(up, session, records, room);
                self.take_waiting();
            }
            Told::Attach(session, line) => {
                line.hold_up(self.held_up);
                self.sessions.insert(session, line);
            }
            Told::Probe(hello, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.group.objection(&hello));
            }
            Told::Status(answer) => {
                let _ = answer.try_send(self.group.status(self.now()));
            }
            Told::Hold(hold, volume, at, answer) => {
                self.holds.insert(hold, answer);
                self.event(Event::Hold(hold, volume, at));
            }
            Told::Points(answer) => {
                let _ = answer.try_send(self.group.retained());
            }
            Told::Page(hold, after, answer) => {
                let _ = answer.try_send(self.group.held_page(hold, after));
            }
            Told::Remove(volume, answer) => {
                self.removals.insert(volume.clone(), answer);
                self.event(Event::Removing(volume));
            }
            Told::Stop(answer) => {
                self.stop = Some(answer);
                self.event(Event::Stop);
            }
        }
    }

    /// Hands on what waits, in order, as long as the group takes records.
    fn take_waiting(&mut self) {
        while self.group.takes_records()
            && let Some((session, records, room)) = self.backlog.take(self.begun.elapsed())
        {
            self.room = Some(room);
            self.event(Event::Records(session, records));
            self.room = None;
        }
        self.hold_up();
        while let Some(session) = self.backlog.overdue(self.begun.elapsed()) {
            if let Some(line) = self.sessions.get(&session) {
                line.end("no records are taken; what was on its way comes again".into());
            }
            self.backlog.forget(session);
        }
    }

    /// While the group takes no records, none is given room that others could have.
    fn hold_up(&mut self) {
        let held_up = !self.group.takes_records();
        if held_up != self.held_up {
            self.held_up = held_up;
            for line in self.sessions.values() {
                line.hold_up(held_up);
            }
        }
    }

    /// The session is over: what it left waiting would be refused, and takes room from others.
    fn detach(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.backlog.forget(session);
    }

    fn event(&mut self, event: Event) {
        match &event {
            Event::Ended(session) => self.detach(*session),
            Event::Release(hold) => drop(self.holds.remove(hold)),
            _ => {}
        }
        let now = self.now();
        self.group.handle(now, event);
        while let Some(output) = self.group.poll() {
            self.carry_out(output);
        }
        let reach = self.group.reach(now);
        if reach != self.reported {
            self.reported.clone_from(&reach);
            if let Some(reach) = reach {
                self.hub.report(&self.group.lane(), reach);
            }
        }
        if self.group.waits_for_cut() {
            let lane = self.group.lane();
            let at = self.hub.look_at_cut(&lane.group, Cut::at).flatten();
            self.event(Event::Cut(at));
        }
    }

    fn acknowledge(&mut self) {
        if self.group.ack_is_due()
            && let Some(ack) = self.group.ack(self.now())
        {
            self.carry_out(ack);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Append(entries) => self.append(entries),
            Output::Applied(stream, stamp) => self.hub.journal().applied(stream, stamp),
            Output::Retire(stream) => {
                self.hub.disown(stream);
                self.hub.journal().retire(stream);
            }
            Output::Job(job) => {
                if !self.work(Work::Job(Box::new(job))) {
                    let reason = "its worker has ended; see the log, then restart the receiver";
                    let failed = JobOutcome::Failed(reason.into());
                    self.group.handle(self.now(), Event::Job(failed));
                }
            }
            Output::Say(session, control) => self.say(session, control),
            Output::End(session, reason) => {
                if let Some(line) = self.sessions.get(&session) {
                    line.end(reason);
                }
                self.detach(session);
            }
            Output::Held(hold, held) => {
                if let Some(answer) = self.holds.remove(&hold) {
                    let _ = answer.try_send(held);
                }
            }
            Output::Removed(volume) => self.removed(volume),
            Output::Kept(volume, why) => {
                if let Some(answer) = self.removals.remove(&volume) {
                    let _ = answer.try_send(Err(why));
                }
            }
            Output::Report(text) => tracing::warn!("{text}"),
            Output::Stopped => self.stopped = true,
        }
    }

    fn append(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            if let Entry::Open(stream, _) = entry {
                self.hub.own(*stream, &self.group.lane());
            }
        }
        let hold = self.room.take().map(|room| Box::new(room) as _);
        self.hub.journal().append(Batch { entries, hold });
    }

    fn removed(&mut self, volume: Name) {
        let answer = self.removals.remove(&volume);
        let name = VolumeName {
            group: self.group.lane().group,
            volume,
        };
        self.work(Work::Remove(name, answer));
    }

    fn work(&self, work: Work) -> bool {
        let sent = self.handle.work.send(work).is_ok();
        if !sent {
            tracing::error!(group = %self.group.lane(), "the worker of the group is gone");
        }
        sent
    }

    fn say(&self, session: SessionId, control: Control) {
        // A session that is gone tells so itself.
        if let Some(line) = self.sessions.get(&session) {
            line.say(control);
        }
    }
}
