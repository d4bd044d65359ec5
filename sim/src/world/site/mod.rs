//! The receiver, played in one thread: its group, journal, applier and what survives it.

mod base;
mod hearing;
mod host;
mod journal;

pub(in crate::world) use host::{Daemon, Site};

use super::World;
use super::events::Event;
use super::link::Mail;
use super::source::{group_name, source_name, spec};
use crate::faults::{MS, S, US};
use crate::planted::{Bug, is};
use crate::probes::Probe;
use receiver::apply::Applier;
use receiver::journal::{Found, Limits, Writer, recover};
use receiver::serve::group::{Event as Told, Now, Output, Registered, Restored, SessionId};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::Name;
use wire::control::Control;
use wire::journal::JournalId;

/// Path of the journal, for words.
const JOURNAL: &str = "/simulated/journal";

impl World {
    /// A receiver begins with what is there.
    pub(in crate::world) fn start_site(&mut self) {
        if self.site.is_up() {
            return;
        }
        self.site.life += 1;
        let Some(daemon) = self.restore() else {
            // The power went again, or a call failed: once more, later.
            if self.site.store.is_off() {
                self.reached.reach(Probe::CutInRecovery);
                self.lose_site_power();
            }
            self.site.store.go_on();
            return self.after(20 * MS, Event::StartSite);
        };
        let state = self.site.catalog.as_ref();
        if state.is_some_and(|state| state.applied != state.horizon) {
            self.reached.reach(Probe::BaseMovedInMidst);
        }
        self.site.daemon = Some(daemon);
        self.line(|| "site: receiver begins".into());
        self.tell_group(Told::Tick);
        self.wake_journal();
    }

    fn restore(&mut self) -> Option<Daemon> {
        let expected = JournalId(77);
        let known = self.site.is_bound.then_some(expected);
        let registered: BTreeMap<Name, Registered> = self
            .mix
            .volumes
            .iter()
            .enumerate()
            .map(|(volume, sectors)| {
                let spec = spec(volume, *sectors);
                let registered = Registered {
                    size_bytes: spec.size_bytes,
                    sector_bytes: spec.sector_bytes,
                    refused: None,
                    since: Some(receiver::catalog::Since::default()),
                };
                (spec.name, registered)
            })
            .collect();
        let names = (group_name(), source_name());
        let mut restored = Restored::new(names, registered, self.site.catalog.clone(), 1);
        let mut store = self.site.store.clone();
        let site = RefCell::new(&mut self.site);
        let mut replay = |found: Found| {
            site.borrow_mut().note_durable(found.stream, &found.durable);
            restored.found(found.stream, found.durable);
        };
        let recovered = recover(&mut store, Path::new(JOURNAL), known, &mut replay);
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(_) if !self.site.store.is_well() => return None,
            Err(error) => {
                self.fail(format!("P10: the journal is not recovered: {error}"));
                return None;
            }
        };
        if let Some(damage) = recovered.damage.first() {
            self.fail(format!("P10: what was durable is damaged: {damage}"));
        }
        self.site.next_stream = self.site.next_stream.max(recovered.next_stream().0);
        let limits = Limits {
            segment_bytes: self.mix.segment_bytes,
            bytes_max: self.mix.segments * self.mix.segment_bytes,
        };
        let writer = Writer::start(store, PathBuf::from(JOURNAL), recovered, limits, expected);
        let writer = match writer {
            Ok(writer) => writer,
            Err(_) if !self.site.store.is_well() => return None,
            Err(error) => {
                self.fail(format!("P10: the journal does not go on: {error}"));
                return None;
            }
        };
        self.site.is_bound = true;
        let retain = Duration::from_nanos(self.mix.retain_ns);
        let (group, retired) = restored.retaining(retain).finish();
        let mut applier = Applier::new();
        Daemon::open_targets(&mut applier, &self.site.targets, &self.mix);
        Some(Daemon {
            group,
            writer,
            applier,
            queue: VecDeque::new(),
            applied: BTreeMap::new(),
            retired,
            sessions: BTreeMap::new(),
            waiting: VecDeque::new(),
            job: None,
            held: Vec::new(),
            is_full: false,
            pressed: None,
            begun_ns: self.clock.now_ns,
            commit_scheduled: false,
            tick_ns: 0,
            has_failed: false,
        })
    }

    pub(in crate::world) fn site_now(&self, begun_ns: u64) -> Now {
        Now {
            wall: self.clock.receiver(),
            up: Duration::from_nanos(self.clock.now_ns - begun_ns),
        }
    }

    /// Tells the group and does what it asks for.
    pub(in crate::world) fn tell_group(&mut self, told: Told) {
        let Some(begun_ns) = self.site.daemon.as_ref().map(|daemon| daemon.begun_ns) else {
            return;
        };
        let now = self.site_now(begun_ns);
        let mut next = Some(told);
        while let Some(told) = next.take() {
            if let Some(daemon) = &mut self.site.daemon {
                daemon.group.handle(now, told);
            }
            while let Some(output) = self.site.daemon.as_mut().and_then(|it| it.group.poll()) {
                self.group_says(output);
            }
            next = self.next_waiting();
        }
        if let Some(daemon) = &mut self.site.daemon
            && daemon.group.ack_is_due()
            && let Some(ack) = daemon.group.ack(now)
        {
            self.group_says(ack);
        }
        self.schedule_tick();
    }

    /// Records that waited until the group takes some.
    fn next_waiting(&mut self) -> Option<Told> {
        let daemon = self.site.daemon.as_mut()?;
        if !daemon.group.takes_records() {
            return None;
        }
        let (session, records) = daemon.waiting.pop_front()?;
        Some(Told::Records(session, records))
    }

    fn schedule_tick(&mut self) {
        let life = self.site.life;
        let now = self.clock.now_ns;
        let Some(daemon) = &mut self.site.daemon else {
            return;
        };
        let deadline = daemon
            .group
            .deadline()
            .map(|at| daemon.begun_ns + at.as_nanos() as u64);
        let at = deadline.unwrap_or(u64::MAX).clamp(now + MS, now + S);
        if daemon.tick_ns <= now || at < daemon.tick_ns {
            daemon.tick_ns = at;
            self.after(at - now, Event::Tick { life });
        }
    }

    fn group_says(&mut self, output: Output) {
        let Some(daemon) = &mut self.site.daemon else {
            return;
        };
        match output {
            Output::Append(entries) => {
                daemon.queue.extend(entries);
                self.wake_journal();
            }
            Output::Applied(stream, stamp) => {
                daemon.applied.insert(stream, stamp);
                self.wake_journal();
            }
            Output::Retire(stream) => {
                daemon.retired.push(stream);
                self.wake_journal();
            }
            Output::Job(job) => {
                if daemon.job.is_some() {
                    return self.fail("two jobs at once".into());
                }
                daemon.job = Some(job);
                let life = self.site.life;
                let time = self.dice.roll(2 * self.mix.step_ns) + 10 * US;
                self.after(time, Event::Work { life });
            }
            Output::Say(session, control) => self.say(session, control),
            Output::End(session, reason) => self.end_session(session, &reason),
            held @ Output::Held(..) => daemon.held.push(held),
            Output::Report(text) => self.line(|| format!("site: {text}")),
            Output::Removed(_) | Output::Kept(..) | Output::Stopped => {}
        }
    }

    fn say(&mut self, session: SessionId, control: Control) {
        let Some(daemon) = &self.site.daemon else {
            return;
        };
        let Some(&link) = daemon.sessions.get(&session) else {
            return;
        };
        if let Control::HelloAck(ack) = &control
            && let Some(open) = self.links.open.get_mut(&link)
        {
            open.number = ack.session;
        }
        let control = match control {
            Control::Ack(mut ack) if is(Bug::EarlyAck) => {
                ack.durable = ack.received;
                Control::Ack(ack)
            }
            control => control,
        };
        self.tell_source(link, Mail::Control(control));
    }

    fn end_session(&mut self, session: SessionId, reason: &str) {
        let Some(daemon) = &mut self.site.daemon else {
            return;
        };
        let Some(link) = daemon.sessions.remove(&session) else {
            return;
        };
        daemon.waiting.retain(|waiting| waiting.0 != session);
        self.line(|| format!("site: ends session {session}: {reason}"));
        let known = [
            "newer session",
            "journal",
            "goodbye",
            "damaged batch",
            "power",
            "refused",
        ];
        if !known.iter().any(|known| reason.contains(known)) {
            self.fail(format!("an honest source's session was ended: {reason}"));
        }
        self.tell_source(link, Mail::Control(Control::Bye(reason.into())));
        self.tell_source(link, Mail::Lost(reason.into()));
    }

    /// The receiver dies; with `power`, so does its host.
    pub(in crate::world) fn kill_site(&mut self, power: bool) {
        if self.site.daemon.take().is_none() {
            return;
        }
        self.reached.reach(match power {
            true => Probe::ReceiverPowerCut,
            false => Probe::ReceiverKilled,
        });
        self.line(|| format!("site: receiver dies, power {power}"));
        let links: Vec<u64> = self.links.open.keys().copied().collect();
        for link in links {
            self.break_link(link, true);
        }
        if power {
            self.lose_site_power();
        }
        self.look.forget();
        let wait = self.dice.spread(MS, 2 * S);
        self.after(wait, Event::StartSite);
    }

    fn lose_site_power(&mut self) {
        self.site.store.restart(Some(&mut self.dice));
        for target in &self.site.targets {
            target.restart(Some(&mut self.dice));
        }
        if self.is_safety() && self.dice.roll(6) == 0 {
            let calls = self.dice.roll(6);
            self.site
                .store
                .arm(calls, crate::disk::StoreFault::PowerCut);
        }
    }

    fn restart_site_in(&mut self, wait_ns: u64) {
        let life = self.site.life;
        self.after(wait_ns, Event::RestartSite { life });
    }
}
