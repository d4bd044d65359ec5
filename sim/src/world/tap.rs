//! The driver of a tap, played in one thread: it looks around, asks the core, does what it says.

use super::World;
use super::events::{Begin, Event};
use super::source::{Tap, Tapped, spec, volume_name};
use crate::dice::Dice;
use crate::disk::Sectors;
use crate::faults::MS;
use crate::planted::{Bug, is};
use crate::probes::Probe;
use ring::handoff::{LinkState, ToTap};
use ring::{Origin, Ring, RingConfig};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use ublk_tap::device::Parking;
use ublk_tap::group::{Core, CoreEvent, Facts, Orphans, Output, Place, Start};
use wire::member::gap_payload;
use wire::{Incarnation, Member, MemberAction, Stamp, VolumeIndex};

/// Rhythm of a tap, and of one in which a write waits.
const TURN_NS: u64 = 20 * MS;
const TURN_PARKED_NS: u64 = MS;
/// How long the devices wait for ranges to be read again.
const REREAD_PATIENCE: Duration = Duration::from_secs(10);

impl World {
    /// A tap begins.
    pub(super) fn start_tap(&mut self, begin: Begin) {
        self.source.life += 1;
        let left = self.leave_stamps(begin);
        let (ring, orphans) = match begin {
            Begin::Recover => {
                let (dir, life) = (self.source.dir.path(), self.source.incarnation);
                match Ring::recover(dir, life, self.clock.source()) {
                    Ok(found) => (found.ring, found.orphans),
                    Err(error) => return self.fail(format!("a ring is not recovered: {error}")),
                }
            }
            Begin::Anew | Begin::Clean => (self.new_ring(), Vec::new()),
        };
        self.pad.borrow_mut().note_stamps(&ring);
        if !orphans.is_empty() {
            self.reached.reach(Probe::OrphanFound);
        }
        let (ring, parking) = (Arc::new(ring), Arc::new(Parking::new()));
        let shape = (self.mix.queues, self.mix.depth);
        let volumes = self.mix.volumes.iter().enumerate();
        let volumes = volumes.map(|(volume, sectors)| {
            let size_bytes = *sectors as u64 * 512;
            let shape = (size_bytes, shape.0, shape.1);
            Tapped::new(volume, shape, (&ring, &parking), &self.pad)
        });
        let whole = ring.whole();
        let was_closed = ring.is_closed();
        self.source.tap = Some(Tap {
            safe: ring.acked(),
            durable: ring.acked(),
            core: Core::new(Duration::from_nanos(self.mix.park_ns)),
            volumes: volumes.collect(),
            claims: VecDeque::new(),
            orphans: Orphans::new(orphans),
            recovery_ends: self.clock.instant() + REREAD_PATIENCE,
            shipper: None,
            mail: VecDeque::new(),
            resets: false,
            turn_ns: 0,
            ring,
            parking,
        });
        if begin == Begin::Recover {
            self.reached.reach(Probe::TapRecovered);
            self.take_over(was_closed);
        }
        for volume in 0..self.mix.volumes.len() {
            let index = VolumeIndex(volume as u16);
            let start = match begin {
                Begin::Anew => Start::Join("the source was down".into()),
                Begin::Clean => {
                    Start::Continue(left.get(volume).copied().unwrap_or(MemberAction::Join))
                }
                Begin::Recover => {
                    let is_whole = whole >> volume & 1 == 1 && !was_closed;
                    Start::Recovered {
                        copies: 1,
                        copied: (!is_whole).then(|| "it was not whole".into()),
                    }
                }
            };
            self.tell_core(CoreEvent::Added { index, start });
        }
        let life = self.source.life;
        self.after(MS, Event::StartShipper { life });
        self.turn_tap();
    }

    fn new_ring(&mut self) -> Ring {
        let counter = self.source.incarnation.counter + 1;
        let id = u128::from(self.dice.roll(u64::MAX)) << 32 | u128::from(counter);
        if !is(Bug::IncarnationsJoined) || counter == 1 {
            self.source.incarnation = Incarnation { counter, id };
        }
        let incarnation = self.source.incarnation;
        self.pad
            .borrow_mut()
            .stamps
            .insert(incarnation.counter, Vec::new());
        let config = RingConfig {
            slots: self.mix.ring_slots,
            payload_bytes: self.mix.ring_bytes,
        };
        let origin = Origin::default();
        let made = Ring::create_at(self.source.dir.path(), incarnation, config, origin);
        made.expect("a ring in memory")
    }

    /// What volumes go on with that left their stream.
    fn leave_stamps(&self, begin: Begin) -> Vec<MemberAction> {
        let Some(tap) = self.source.tap.as_ref().filter(|_| begin == Begin::Clean) else {
            return Vec::new();
        };
        let incarnation = tap.ring.incarnation();
        let left = (0..tap.volumes.len()).map(|volume| {
            let place = tap.core.place(VolumeIndex(volume as u16));
            let stamp = match place {
                Some(Place::Left { leave }) => leave,
                _ => Stamp::ZERO,
            };
            MemberAction::Continue { incarnation, stamp }
        });
        left.collect()
    }

    fn take_over(&mut self, was_closed: bool) {
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        if was_closed {
            let words = "the tap was killed while the stream was given up".into();
            return self.tell_core(CoreEvent::GaveUp { words });
        }
        let volumes = &mut tap.volumes;
        volumes.iter_mut().for_each(|it| it.copier.hurry(true));
        tap.orphans.order(|index, range| {
            let copier = &mut volumes[usize::from(index.0)].copier;
            let is_read = !is(Bug::OrphanNotReread);
            Some(if is_read { copier.reread(range) } else { 0 })
        });
    }

    /// One turn of the driver.
    pub(super) fn turn_tap(&mut self) {
        let now = self.clock.instant();
        while let Some(said) = self
            .source
            .tap
            .as_mut()
            .and_then(|tap| tap.mail.pop_front())
        {
            self.shipper_said(said);
        }
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        let _ = tap.ring.try_reclaim();
        tap.parking.kick();
        tap.turn_queues();
        self.claim_members();
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        tap.safe = tap.ring.acked();
        self.take_faults();
        self.step_recovery();
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        let claim = tap.claims.front().map(|claim| claim.2);
        let oldest = tap.parking.oldest_since().into_iter().chain(claim).min();
        let facts = Facts {
            acked: tap.safe,
            used_permille: tap.ring.usage().permille(),
            waiting: oldest.map(|since| now.saturating_duration_since(since)),
            crowded: tap
                .parking
                .crowded_since()
                .map(|at| now.saturating_duration_since(at)),
            violation: tap.ring.violation().map(|violation| violation.to_string()),
            is_replacing: tap.resets,
        };
        let parked = !tap.parking.is_empty();
        if parked {
            self.reached.reach(Probe::WriteParked);
        }
        self.check_ring();
        self.tell_core(CoreEvent::Observed(facts));
        self.note_whole();
        self.step_stopping();
        self.touched();
        let wait = if parked { TURN_PARKED_NS } else { TURN_NS };
        self.next_turn(wait);
    }

    fn next_turn(&mut self, wait_ns: u64) {
        let (life, at) = (self.source.life, self.clock.now_ns + wait_ns);
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        if tap.turn_ns <= self.clock.now_ns || at < tap.turn_ns {
            tap.turn_ns = at;
            self.after(wait_ns, Event::Turn { life });
        }
    }

    /// A write has begun to wait: the tap looks more often.
    pub(super) fn hurry_turn(&mut self) {
        if self
            .source
            .tap
            .as_ref()
            .is_some_and(|tap| !tap.parking.is_empty())
        {
            self.next_turn(TURN_PARKED_NS);
        }
    }

    fn shipper_said(&mut self, said: ToTap) {
        match said {
            ToTap::Link(report) => {
                let (is_up, words) = (report.state == LinkState::Up, report.reason);
                self.tell_core(CoreEvent::Link { is_up, words });
            }
            ToTap::Progress(progress) => {
                if let Some(tap) = &mut self.source.tap {
                    tap.durable = progress.durable;
                }
            }
            ToTap::CopyWanted(wanted) => {
                let durable = self
                    .source
                    .tap
                    .as_ref()
                    .map_or(Stamp::ZERO, |tap| tap.durable);
                let (index, words) = (wanted.volume, wanted.reason);
                self.tell_core(CoreEvent::CopyWanted {
                    index,
                    durable,
                    words,
                });
            }
            ToTap::Generation(_) => {}
        }
    }

    /// Tells the core and does what it says.
    pub(super) fn tell_core(&mut self, event: CoreEvent) {
        let now = self.clock.instant();
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        tap.core.handle(now, event);
        while let Some(output) = self.source.tap.as_mut().and_then(|tap| tap.core.poll()) {
            self.line(|| format!("tap: {output:?}"));
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let now = self.clock.instant();
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        match output {
            Output::Close => {
                tap.ring.close();
                tap.ring.set_whole(0);
                tap.orphans.give_up();
                tap.volumes.iter_mut().for_each(|it| it.copier.hurry(false));
                tap.parking.kick();
                tap.claims.clear();
                self.reached.reach(Probe::StreamGivenUp);
            }
            Output::Reopen(reason) => self.reopen(&reason),
            Output::Claim(index, action) => {
                if action == MemberAction::Join {
                    tap.ring.set_whole(tap.ring.whole() & !(1 << index.0));
                    tap.ring.end_doubt(index);
                }
                tap.claims.retain(|claim| claim.0 != index);
                tap.claims.push_back((index, action, now));
                self.claim_members();
            }
            Output::GoLive(index) => self.go_live(usize::from(index.0)),
            Output::StartCopy(index, run) => {
                let is_skipped = is(Bug::CopySkippedAfterPowerCut) && self.source.was_cut;
                let volume = usize::from(index.0);
                if is_skipped {
                    return self.tell_core(CoreEvent::Copied { index, run });
                }
                tap.volumes[volume].copier.copy(run);
                self.wake_copier(volume, MS / 10);
            }
            Output::CancelCopy(index) => tap.volumes[usize::from(index.0)].copier.cancel(),
            Output::ReplaceShipper => self.fail("an honest shipper was not believed".into()),
        }
    }

    fn reopen(&mut self, reason: &str) {
        let clock = self.clock;
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        let payload = gap_payload(reason);
        let event = match tap.ring.reopen(payload.len() as u32, clock.source()) {
            Ok(mut claim) => {
                claim.payload_mut().copy_from_slice(&payload);
                let fields = ring::RecordFields::gap(payload.len() as u32);
                claim.fill(fields).settle();
                self.pad.borrow_mut().note_stamps(&tap.ring);
                self.reached.reach(Probe::StreamReopened);
                CoreEvent::Reopened
            }
            Err(_) => CoreEvent::NotReopened,
        };
        self.tell_core(event);
    }

    fn claim_members(&mut self) {
        let clock = self.clock;
        loop {
            let Some(tap) = &mut self.source.tap else {
                return;
            };
            let Some(&(index, action, _)) = tap.claims.front() else {
                return;
            };
            let volume = usize::from(index.0);
            let spec = spec(volume, self.mix.volumes[volume]);
            let payload = Member { action, spec }.to_bytes();
            let fields = ring::RecordFields::member(index, payload.len() as u32);
            let Some(stamp) = Tap::claim(&tap.ring, (&payload, fields), clock) else {
                return;
            };
            self.pad.borrow_mut().note_stamps(&tap.ring);
            tap.claims.pop_front();
            if matches!(action, MemberAction::Continue { .. }) {
                self.reached.reach(Probe::ContinuedWithoutCopy);
            }
            if action == MemberAction::Ready {
                self.source.was_cut = false;
            }
            self.line(|| format!("tap: {} {action:?} {stamp}", volume_name(volume)));
            self.tell_core(CoreEvent::Claimed {
                index,
                action,
                stamp,
            });
        }
    }

    fn go_live(&mut self, volume: usize) {
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        if tap.orphans.is_empty() {
            tap.volumes[volume].is_live = true;
            self.fetch_again(volume);
        } else {
            tap.volumes[volume].waits = true;
        }
    }

    fn step_recovery(&mut self) {
        let now = self.clock.instant();
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        if !tap.orphans.is_empty() && tap.step_orphans(now >= tap.recovery_ends) {
            self.reached.reach(Probe::OrphanForgone);
        }
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        if tap.orphans.is_empty() {
            for volume in 0..tap.volumes.len() {
                let Some(tap) = &mut self.source.tap else {
                    return;
                };
                if std::mem::take(&mut tap.volumes[volume].waits) {
                    tap.volumes[volume].is_live = true;
                    self.fetch_again(volume);
                }
            }
        }
        for volume in 0..self.mix.volumes.len() {
            self.wake_copier(volume, MS / 10);
        }
    }

    fn take_faults(&mut self) {
        for volume in 0..self.mix.volumes.len() {
            let Some(tap) = &mut self.source.tap else {
                return;
            };
            let list = tap.volumes[volume].shared.take_faults();
            if is(Bug::RefusedNotReread) {
                continue;
            }
            for fault in list.faults {
                let _turn = tap.volumes[volume].copier.reread(fault.range);
            }
            if list.overflowed {
                let index = VolumeIndex(volume as u16);
                self.tell_core(CoreEvent::FaultsLost { index });
            }
            self.wake_copier(volume, MS / 10);
        }
    }

    fn note_whole(&mut self) {
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        if !tap.orphans.is_empty() {
            return;
        }
        let mut whole = 0;
        for (volume, tapped) in tap.volumes.iter().enumerate() {
            let index = VolumeIndex(volume as u16);
            let is_ready = tap.core.place(index) == Some(Place::Ready);
            let is_sure = !tap.core.is_in_doubt(index) && tapped.copier.is_reread();
            if is_ready && is_sure && !tap.ring.is_closed() {
                whole |= 1 << volume;
            }
        }
        tap.ring.set_whole(whole);
    }
}

/// What the disks hold at first: data here and there, zeroes elsewhere.
pub(super) fn initial(volumes: &[usize], dice: &mut Dice) -> Vec<Vec<u64>> {
    let volume = |sectors: &usize| {
        let eighths = (0..sectors.div_ceil(8)).flat_map(|_| [dice.roll(2); 8]);
        eighths.take(*sectors).collect()
    };
    volumes.iter().map(volume).collect()
}

/// Targets full of garbage, as a disk is that held something else.
pub(super) fn garbage(volume: usize, sectors: usize) -> Sectors {
    Sectors::new(volume, vec![crate::oracle::GARBAGE; sectors])
}
