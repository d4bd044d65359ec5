//! Mishaps: faults made, and all of them healed; what "at rest" means.

use super::World;
use super::events::{Begin, Event, Heal};
use crate::disk::{StoreFault, Target, TargetFault};
use crate::faults::{Fault, MS, S};
use crate::oracle::GARBAGE;
use crate::probes::Probe;
use ublk_tap::group::{Mode, Place};
use wire::VolumeIndex;

/// A journal this large has room for whatever a run writes.
const SEGMENTS_ENOUGH: u64 = 400;

impl World {
    /// Something goes wrong, and the next thing will.
    pub(super) fn fault_event(&mut self) {
        if self.is_healed {
            return;
        }
        let wait = self.dice.roll(2 * self.mix.fault_ns);
        self.after(wait, Event::Fault);
        if let Some(fault) = self.mix.fault(&mut self.dice) {
            self.faults += 1;
            self.line(|| format!("fault: {fault:?}"));
            self.make(fault);
        }
    }

    fn make(&mut self, fault: Fault) {
        let now = self.clock.now_ns;
        let short = self.dice.spread(MS, 2 * S);
        let long = self.dice.spread(10 * MS, 20 * S);
        match fault {
            Fault::KillTap | Fault::CutSource => self.end_source(fault == Fault::CutSource),
            Fault::RestartTap => self.stop_tap(),
            Fault::KillShipper => {
                self.reached.reach(Probe::ShipperKilled);
                self.drop_shipper();
                let life = self.source.life;
                self.after(short / 8, Event::StartShipper { life });
            }
            Fault::StallShipper => {
                if let Some(shipper) = self.shipper() {
                    shipper.stalled_ns = shipper.stalled_ns.max(now + short);
                }
                self.after(short, Event::Heal(Heal::Shipper));
            }
            Fault::KillReceiver => self.kill_site(false),
            Fault::CutReceiver => self.kill_site(true),
            Fault::CutInCommit => {
                let calls = self.dice.roll(8);
                self.site.store.arm(calls, StoreFault::PowerCut);
            }
            Fault::CutInStep => self.site.cut_in_step = Some(self.dice.roll(8)),
            Fault::BreakConnection => {
                if let Some(link) = self.shipper().and_then(|shipper| shipper.link) {
                    self.break_link(link, true);
                }
            }
            Fault::Mute => self.links.mute_ns = now + long,
            Fault::Deaf => self.links.deaf_ns = now + long,
            Fault::Partition => {
                (self.links.mute_ns, self.links.deaf_ns) = (now + long, now + long);
                if long > 5 * S {
                    self.reached.reach(Probe::LongPartition);
                }
            }
            Fault::RefuseWrites => {
                self.source.refuses_writes = true;
                self.after(short / 16, Event::Heal(Heal::Writes));
            }
            Fault::RefuseReads => {
                self.source.refuses_reads = true;
                self.after(short / 4, Event::Heal(Heal::Reads));
            }
            Fault::SlowDisk => {
                self.source.slowness = self.dice.between(5, 50);
                self.after(short, Event::Heal(Heal::Disk));
            }
            Fault::SlowJournal => {
                self.site.slowness = self.dice.between(10, 100);
                self.after(short, Event::Heal(Heal::Journal));
            }
            Fault::RefuseJournal => {
                let calls = self.dice.roll(8);
                self.site.store.arm(calls, StoreFault::Refused);
            }
            Fault::RefuseTarget => {
                let writes = self.dice.roll(5);
                let volume = self.dice.roll(self.site.targets.len() as u64) as usize;
                match writes {
                    4 => self.site.is_pool_full = true,
                    _ => self.site.targets[volume].arm(writes, TargetFault::Refused),
                }
            }
            Fault::DamageBatch => self.links.damages = true,
            Fault::StepSourceClock => {
                let step = self.dice.spread(MS, 3600 * S) as i64;
                let step = if self.dice.coin() { step } else { -step };
                if step < 0 {
                    self.reached.reach(Probe::ClockWentBack);
                }
                self.clock.source_ns += step;
            }
            Fault::StepReceiverClock => {
                let step = self.dice.spread(MS, 3600 * S) as i64;
                self.clock.receiver_ns += if self.dice.coin() { step } else { -step };
            }
        }
    }

    fn end_source(&mut self, power: bool) {
        if self.source.tap.is_none() {
            return;
        }
        let wait = self.dice.spread(MS, S);
        let begin = match power {
            true => {
                self.cut_source();
                Begin::Anew
            }
            false => {
                self.source.stopping = None;
                self.kill_tap();
                // The driver hands requests out again, a connection has lost them.
                if self.dice.coin() {
                    self.pad.borrow_mut().pending.clear();
                }
                Begin::Recover
            }
        };
        self.after(wait, Event::StartTap(begin));
    }

    pub(super) fn heal_one(&mut self, heal: Heal) {
        match heal {
            Heal::Writes => self.source.refuses_writes = false,
            Heal::Reads => self.source.refuses_reads = false,
            Heal::Disk => self.source.slowness = 1,
            Heal::Journal => self.site.slowness = 1,
            Heal::Shipper => self.wake_shipper(0),
        }
    }

    /// From here on nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.writes_left = 0;
        self.line(|| "healed".into());
        for heal in [Heal::Writes, Heal::Reads, Heal::Disk, Heal::Journal] {
            self.heal_one(heal);
        }
        self.site.store.heal();
        self.site.targets.iter().for_each(Target::heal);
        (self.site.cut_in_step, self.site.is_pool_full) = (None, false);
        self.links.damages = false;
        let now = self.clock.now_ns;
        self.links.mute_ns = self.links.mute_ns.min(now);
        self.links.deaf_ns = self.links.deaf_ns.min(now);
        self.wake_shipper(0);
        // Where a copy does not fit beside the point that is kept, an operator makes room.
        if self.mix.segments < SEGMENTS_ENOUGH {
            self.mix.segments = SEGMENTS_ENOUGH;
            self.kill_site(false);
        }
    }

    /// Whether the replica is the source, and everyone knows.
    pub(super) fn is_even(&mut self) -> bool {
        let Some(tap) = &self.source.tap else {
            return false;
        };
        let Some(daemon) = &self.site.daemon else {
            return false;
        };
        let volumes = 0..self.mix.volumes.len();
        let is_ready = |n| tap.core.place(VolumeIndex(n as u16)) == Some(Place::Ready);
        let is_whole = tap.core.mode() == Mode::Async && volumes.clone().all(is_ready);
        let is_acked = tap.ring.acked() == tap.ring.captured();
        if !is_whole || !is_acked || !self.pad.borrow().pending.is_empty() {
            return false;
        }
        let newest = daemon.group.retained().pop();
        let captured = tap.ring.captured().0;
        let counter = tap.ring.incarnation().counter.to_string();
        let is_newest = newest.is_some_and(|run| {
            run.last_stamp == captured && run.incarnation.split('-').next() == Some(&counter)
        });
        let state = self.site.catalog.clone().unwrap_or_default();
        // With points retained the base trails; the points themselves were compared.
        let is_there =
            state.incarnation == tap.ring.incarnation() && state.applied == tap.ring.captured();
        if !is_newest || !(is_there || self.mix.retain_ns > 0) {
            return false;
        }
        if is_there {
            for volume in volumes {
                let replica = self.site.targets[volume].contents();
                let disk = self.source.disks[volume].contents();
                let differs = replica
                    .iter()
                    .zip(disk)
                    .position(|(a, b)| a != b || *a == GARBAGE);
                if let Some(sector) = differs {
                    let (has, wants) = (replica[sector], disk[sector]);
                    self.fail(format!(
                        "P4: at rest {volume}/{sector} is {has} on the replica, {wants} on the source"
                    ));
                }
            }
        }
        self.checks += 1;
        true
    }

    /// The world in one line: tap's mode and places, ring, sessions, catalog.
    pub(super) fn state_line(&self) -> String {
        let tap = self.source.tap.as_ref().map(|tap| {
            let places = (0..tap.volumes.len()).map(|n| tap.core.place(VolumeIndex(n as u16)));
            let places: Vec<_> = places.flatten().collect();
            format!(
                "tap {} {places:?} captured {} acked {} orphans {} reread {} shipper {} reason {:?}",
                tap.core.mode(),
                tap.ring.captured(),
                tap.ring.acked(),
                tap.orphans.len(),
                tap.is_reread(),
                tap.shipper.is_some(),
                tap.core.reason(self.clock.instant()),
            )
        });
        let group = self.site.daemon.as_ref().map(|daemon| {
            let runs = daemon.group.retained();
            format!(
                "newest {:?}",
                runs.last().map(|run| (&run.incarnation, run.last_stamp))
            )
        });
        let state = self.site.catalog.as_ref().map(|state| {
            let (applied, horizon) = (state.applied, state.horizon);
            let (point, volumes) = (state.point, &state.volumes);
            format!(
                "base {applied}/{horizon} of {} {point:?} {volumes:?}",
                state.incarnation
            )
        });
        format!(
            "{tap:?} | {group:?} | {state:?} | pending {} links {}",
            self.pad.borrow().pending.len(),
            self.links.open.len()
        )
    }
}
