//! The loop of a group: owner of ring, volumes and copiers. It asks the core, and does what it says.
//!
//! One thread. Nothing in it waits for a disk, a peer or an operator: long work is the clerk's,
//! sockets never block, answers are given when they are due. So the bound on a parked write (P6) and
//! the check of what the shipper acknowledges (P1) hold whatever else goes on.

use super::barrier::{self, Barriers};
use super::clerk::{Done, Job};
use super::core::{Core, CoreEvent, Facts, Mode, Output};
use super::front::FrontKind;
use super::members::Members;
use super::ports::Link;
use super::records;
use super::recovery::{Recovering, Recovery};
use super::removal::Removal;
use super::tapped::Tapped;
use super::upgrade::Become;
use crate::control::{Asked, BarrierReached, Reply, ReplyTo, Request, Settling};
use crate::copier::{CopierSaid, Rereads};
use crate::device::Parking;
use crate::failure::Failure;
use crate::settings::{Dirs, Settings, Span};
use crate::shipper::{Port, Supervisor};
use ring::Ring;
use ring::handoff::Progress;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use wire::{Generation, Member, MemberAction, Name, Stamp, VolumeIndex};

/// What reaches a group.
pub enum Input {
    /// An operator asks.
    Asked(Asked),
    /// The clerk is done with a job.
    Clerk(Done),
    /// A copier says something.
    Copier(CopierSaid),
    /// The tap is to end.
    Stop,
    /// The tap is killed, as far as threads can be: it lets its disks go and does nothing more.
    #[cfg(test)]
    Die(Sender<()>),
}

/// What a group is made of.
pub struct DriverConfig {
    /// Its name.
    pub group: Name,
    /// This host's name at the receiver.
    pub source: Name,
    /// Where things are.
    pub dirs: Dirs,
    /// What the operator has set.
    pub settings: Settings,
    /// Its ring.
    pub ring: Arc<Ring>,
    /// The history the receiver says it belongs to.
    pub generation: Generation,
    /// The shipper's socket.
    pub port: Port,
    /// The shipper's process, if it is ours.
    pub supervisor: Option<Supervisor>,
    /// The clerk's inbox.
    pub clerk: Sender<Job>,
    /// Where everything for the group is put.
    pub inbox: Receiver<Input>,
    /// The other end of the inbox.
    pub post: Sender<Input>,
    /// How long it waits for a first volume, if it was started for one.
    pub on_demand: Option<Duration>,
    /// What a dead tap left, to go on with.
    pub recovery: Option<Recovery>,
    /// Makes another program of this process.
    pub becomes: Become,
}

/// A group at work.
pub struct Driver {
    pub(super) group: Name,
    pub(super) source: Name,
    pub(super) dirs: Dirs,
    pub(super) settings: Settings,
    pub(super) ring: Arc<Ring>,
    pub(super) generation: Generation,
    pub(super) clerk: Sender<Job>,
    pub(super) post: Sender<Input>,
    inbox: Receiver<Input>,
    pub(super) core: Core,
    pub(super) link: Link,
    pub(super) progress: Progress,
    /// Writes that failed in volumes that have gone.
    pub(super) faults_before: u64,
    /// Durable at the receiver, as of this turn.
    pub(super) safe: Stamp,
    pub(super) parking: Arc<Parking>,
    pub(super) members: Members,
    pub(super) tapped: BTreeMap<VolumeIndex, Tapped>,
    pub(super) adding: Vec<Adding>,
    pub(super) claims: VecDeque<PendingClaim>,
    /// One an operator has asked for, or the end of the tap; besides those being written down.
    pub(super) removals: Vec<Removal>,
    pub(super) barriers: Barriers<ReplyTo>,
    /// What is to be recovered, before the first turn.
    recovery: Option<Recovery>,
    pub(super) becomes: Become,
    pub(super) recovering: Option<Recovering>,
    /// Copies begun in this life of the ring, by number of the volume.
    pub(super) copies: BTreeMap<u16, u64>,
    /// A successor will know which volume has which number.
    pub(super) is_roster_saved: bool,
    /// Since when changes are missing at the receiver because the stream was given up.
    pub(super) lost_since: Option<Instant>,
    /// It was told to end.
    pub(super) is_ending: bool,
    pub(super) is_over: bool,
    started: Instant,
    on_demand: Option<Duration>,
    /// It has had a volume.
    pub(super) was_used: bool,
    trimmed: Instant,
}

/// A disk being opened.
pub(super) struct Adding {
    pub(super) volume: Name,
    /// The disk, as the operator calls it.
    pub(super) path: PathBuf,
    pub(super) shape: crate::device::Shape,
    pub(super) kind: FrontKind,
    pub(super) reply: ReplyTo,
}

/// A member record that waits for room.
pub(super) struct PendingClaim {
    pub(super) index: VolumeIndex,
    pub(super) action: MemberAction,
    pub(super) since: Instant,
}

/// Rhythm while a write waits for room; it is let go as soon as there is some.
const TURN_PARKED: Duration = Duration::from_millis(1);
/// Rhythm while somebody waits for an answer.
const TURN_WAITED_FOR: Duration = Duration::from_millis(5);
/// Rhythm while records are on their way.
const TURN_BUSY: Duration = Duration::from_millis(20);
/// Rhythm otherwise.
const TURN_IDLE: Duration = Duration::from_millis(50);
/// Inputs taken per turn.
const INPUTS_MAX: usize = 256;
/// Longest wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(366 * 86_400);
/// How often the logs are looked at.
const TRIM_INTERVAL: Duration = Duration::from_secs(5);

impl Driver {
    /// A group without volumes.
    pub fn new(config: DriverConfig) -> Self {
        let now = Instant::now();
        Self {
            group: config.group,
            source: config.source,
            dirs: config.dirs,
            core: Core::new(config.settings.park),
            settings: config.settings,
            ring: config.ring,
            generation: config.generation,
            clerk: config.clerk,
            post: config.post,
            inbox: config.inbox,
            link: Link::new(config.port, config.supervisor),
            progress: Progress::default(),
            faults_before: 0,
            safe: Stamp::ZERO,
            parking: Arc::new(Parking::new()),
            members: Members::default(),
            tapped: BTreeMap::new(),
            adding: Vec::new(),
            claims: VecDeque::new(),
            removals: Vec::new(),
            barriers: Barriers::new(),
            recovery: config.recovery,
            becomes: config.becomes,
            recovering: None,
            copies: BTreeMap::new(),
            is_roster_saved: false,
            lost_since: None,
            is_ending: false,
            is_over: false,
            started: now,
            on_demand: config.on_demand,
            was_used: false,
            trimmed: now,
        }
    }

    /// Works until the last volume is removed or the tap is told to end.
    pub fn run(mut self) {
        if let Some(recovery) = self.recovery.take() {
            self.recover(Instant::now(), recovery);
        }
        while !self.is_over {
            match self.inbox.recv_timeout(self.rhythm()) {
                Ok(input) => self.take(Instant::now(), input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold the other end"),
            }
            self.turn(Instant::now());
        }
    }

    /// One turn: inputs, shipper, ring, devices, decisions.
    pub(super) fn turn(&mut self, now: Instant) {
        for _ in 0..INPUTS_MAX {
            let Ok(input) = self.inbox.try_recv() else {
                break;
            };
            self.take(now, input);
        }
        self.hear_shipper(now);
        self.free_room();
        self.claim_members(now);
        // Before the faults are looked at: a write that failed is in their list before its record
        // is void, so every one at or below this stamp is known from here on.
        self.safe = self.ring.acked();
        self.look_at_devices(now);
        self.step_recovery(now);
        let facts = self.facts(now);
        self.decide(now, CoreEvent::Observed(facts));
        self.note_whole();
        self.step_removals(now);
        self.step_barriers(now);
        if self.core.is_whole() {
            self.lost_since = None;
        }
        self.trim_logs(now);
        self.consider_ending(now);
    }

    /// Tells the core and does what it says.
    pub(super) fn decide(&mut self, now: Instant, event: CoreEvent) {
        self.core.handle(now, event);
        while let Some(output) = self.core.poll() {
            self.carry_out(now, output);
        }
    }

    fn take(&mut self, now: Instant, input: Input) {
        match input {
            Input::Asked(Asked { request, reply }) => self.answer(now, request, reply),
            Input::Clerk(done) => self.clerk_done(now, done),
            Input::Copier(CopierSaid::Copied { index, run }) => {
                self.decide(now, CoreEvent::Copied { index, run });
            }
            Input::Copier(CopierSaid::RereadFailed { index, words }) => {
                self.decide(now, CoreEvent::RereadFailed { index, words });
            }
            Input::Stop => self.end(now),
            #[cfg(test)]
            Input::Die(told) => {
                self.tapped.clear();
                told.send(()).expect("the test waits");
                loop {
                    std::thread::park();
                }
            }
        }
    }

    fn answer(&mut self, now: Instant, request: Request, reply: ReplyTo) {
        match request {
            Request::Status => reply.send(Reply::Status(Box::new(self.status(now)))),
            Request::Add(request) => self.add(request, reply),
            Request::Remove(request) => self.remove(now, &request, reply),
            Request::Barrier(request) => {
                let within = wait_of(request.timeout_ms);
                self.barriers.ask(reply, request.wait, now, within);
            }
            Request::Forget { volume } => self.forget(&volume, reply),
            Request::Upgrade(request) => self.upgrade(&request, reply),
        }
    }

    fn carry_out(&mut self, now: Instant, output: Output) {
        tracing::debug!(?output, "decided");
        match output {
            Output::Close => self.close(now),
            Output::Reopen(reason) => self.reopen(now, &reason),
            Output::Claim(index, action) => {
                self.note_join(index, action);
                self.claims.retain(|claim| claim.index != index);
                self.claims.push_back(PendingClaim {
                    index,
                    action,
                    since: now,
                });
                self.claim_members(now);
            }
            Output::GoLive(index) => self.go_live(index),
            Output::StartCopy(index, run) => self.with_copier(index, |copier| copier.copy(run)),
            Output::CancelCopy(index) => self.with_copier(index, |copier| copier.cancel()),
            Output::ReplaceShipper => self.link.replace_shipper(),
        }
    }

    /// What was claimed before this is the stream, nothing after it; who waited goes on.
    fn close(&mut self, now: Instant) {
        let last = self.ring.close();
        self.ring.set_whole(0);
        self.give_up_orphans();
        self.parking.kick();
        self.claims.clear();
        self.lost_since.get_or_insert(now);
        for tapped in self.tapped.values_mut() {
            tapped.note_loss();
        }
        let reason = self.core.reason(now);
        tracing::error!(%last, reason, "the stream is given up");
    }

    fn reopen(&mut self, now: Instant, reason: &str) {
        match records::reopen(&self.ring, reason) {
            Some(stamp) => {
                tracing::info!(%stamp, "the stream is taken up again");
                self.decide(now, CoreEvent::Reopened);
            }
            None => self.decide(now, CoreEvent::NotReopened),
        }
    }

    /// Claims the member records that wait, in their order, as far as there is room.
    pub(super) fn claim_members(&mut self, now: Instant) {
        while let Some(PendingClaim { index, action, .. }) = self.claims.front() {
            let (index, action) = (*index, *action);
            let Some(spec) = self.members.spec(index) else {
                self.claims.pop_front();
                continue;
            };
            let member = Member {
                action,
                spec: spec.clone(),
            };
            // A full ring, or one whose shipper is not to be believed, is looked at next turn.
            let Ok(Some(stamp)) = records::claim_member(&self.ring, &member) else {
                return;
            };
            tracing::info!(volume = %member.spec.name, ?action, %stamp, "member record");
            self.claims.pop_front();
            self.decide(
                now,
                CoreEvent::Claimed {
                    index,
                    action,
                    stamp,
                },
            );
            if action == MemberAction::Join {
                self.save_roster();
            }
        }
    }

    fn with_copier(&mut self, index: VolumeIndex, order: impl FnOnce(&crate::copier::Copier)) {
        let tapped = self.tapped.get_mut(&index);
        if let Some(copier) = tapped.and_then(|tapped| tapped.copier.as_ref()) {
            order(copier);
        }
    }

    /// Frees what the receiver holds, and lets the first write in line look for room.
    fn free_room(&mut self) {
        // A violation stays in the ring and is among the facts.
        let _ = self.ring.try_reclaim();
        self.parking.kick();
    }

    fn look_at_devices(&mut self, now: Instant) {
        let mut lost = Vec::new();
        for (index, tapped) in &mut self.tapped {
            if tapped.watch_size(now) {
                self.ring.doubt(*index);
            }
            if tapped.look(now) {
                lost.push(*index);
            }
        }
        for index in lost {
            self.decide(now, CoreEvent::FaultsLost { index });
        }
    }

    fn facts(&self, now: Instant) -> Facts {
        let parked = self.parking.oldest_since();
        let claim = self.claims.front().map(|claim| claim.since);
        let oldest = parked.into_iter().chain(claim).min();
        Facts {
            acked: self.safe,
            used_permille: self.ring.usage().permille(),
            waiting: oldest.map(|since| now.saturating_duration_since(since)),
            crowded: self
                .parking
                .crowded_since()
                .map(|since| now.saturating_duration_since(since)),
            violation: self.ring.violation().map(|violation| violation.to_string()),
            is_replacing: self.link.is_replacing(),
        }
    }

    fn step_barriers(&mut self, now: Instant) {
        if self.barriers.is_empty() {
            return;
        }
        self.barriers.retain(|reply| !reply.is_gone());
        let view = barrier::View {
            is_whole: self.core.is_whole() && self.has_recovered(),
            is_broken: self.core.mode() == Mode::Broken,
            faults: self.faults_before + self.tapped.values().map(|t| t.faults).sum::<u64>(),
            // Before `captured`: what was read again lies below it.
            is_certain: self.tapped.values().all(|t| t.rereads() == Rereads::Done),
            captured: self.ring.captured(),
            acked: self.safe,
            applied: self.progress.applied,
        };
        for (reply, outcome) in self.barriers.step(now, view) {
            match outcome {
                barrier::Outcome::Reached(stamp, passed) => {
                    let (stamp, seconds) = (stamp.0, passed.as_secs_f64());
                    reply.send(Reply::Barrier(BarrierReached { stamp, seconds }));
                }
                barrier::Outcome::Late(wait, stamp, passed) => {
                    let text = self.late_barrier(now, wait, stamp, passed);
                    reply.fail(Failure::late(text));
                }
            }
        }
    }

    fn late_barrier(
        &self,
        now: Instant,
        wait: Settling,
        stamp: Option<Stamp>,
        passed: Duration,
    ) -> String {
        let (wait, safe) = match wait {
            Settling::Durable => ("durable", self.ring.acked()),
            Settling::Applied => ("applied", self.progress.applied),
        };
        let passed = Span(passed);
        let why = match (self.core.reason(now), self.link.words()) {
            (reason, _) if !reason.is_empty() => reason,
            (_, words) => format!("link {words}"),
        };
        let mode = self.core.mode();
        match stamp {
            Some(stamp) => {
                format!("stamp {stamp} is not {wait} after {passed}, {safe} is; {why}; mode {mode}")
            }
            None => format!("no point after {passed}: {why}; mode {mode}"),
        }
    }

    fn rhythm(&self) -> Duration {
        let is_waited_for = !self.barriers.is_empty()
            || !self.removals.is_empty()
            || !self.adding.is_empty()
            || !self.claims.is_empty()
            || self.has_orphans();
        let is_busy = self.ring.captured() > self.ring.acked() || self.core.mode() != Mode::Async;
        match () {
            () if !self.parking.is_empty() => TURN_PARKED,
            () if is_waited_for => TURN_WAITED_FOR,
            () if is_busy => TURN_BUSY,
            () => TURN_IDLE,
        }
    }

    fn trim_logs(&mut self, now: Instant) {
        if now.saturating_duration_since(self.trimmed) >= TRIM_INTERVAL {
            self.trimmed = now;
            crate::daemon::trim_log(&self.dirs.tap_log(&self.group));
            crate::daemon::trim_log(&self.dirs.shipper_log(&self.group));
        }
    }

    /// A tap somebody started to add a volume does not wait for one without end.
    fn consider_ending(&mut self, now: Instant) {
        let waited = now.saturating_duration_since(self.started);
        let is_late = self.on_demand.is_some_and(|patience| waited > patience);
        if is_late && !self.was_used && self.is_empty() {
            tracing::info!("nothing was added");
            self.is_over = true;
        }
    }

    /// An add has failed and is undone: a tap started for it ends, as does one told to.
    pub(super) fn end_if_unused(&mut self) {
        self.is_over |= (self.on_demand.is_some() || self.is_ending) && self.is_empty();
    }

    /// Whether it has no volume, not even one that is coming or going.
    pub(super) fn is_empty(&self) -> bool {
        self.tapped.is_empty() && self.adding.is_empty() && self.removals.is_empty()
    }
}

/// How long an operator wants to wait: bounded, so that no sum of times overflows.
pub(super) fn wait_of(millis: u64) -> Duration {
    Duration::from_millis(millis).min(WAIT_MAX)
}

impl From<Asked> for Input {
    fn from(asked: Asked) -> Self {
        Self::Asked(asked)
    }
}
