//! What is judged while a run goes on: promises to the source, the base at rest, points held.

use super::World;
use super::events::Event;
use super::source::volume_name;
use crate::disk::StoreReader;
use crate::faults::MS;
use crate::oracle::{SECTOR_BYTES, ZERO, read};
use crate::probes::Probe;
use receiver::apply::PayloadSource;
use receiver::catalog::PointRecord;
use receiver::control::At;
use receiver::fold::RecordAt;
use receiver::points::counts_as;
use receiver::serve::group::{Event as Told, HoldId, Output};
use wire::Stamp;
use wire::control::Control;

/// Least time between two comparisons of the base.
const BASE_CHECK_NS: u64 = 40 * MS;

/// A point being looked at.
#[derive(Default)]
pub(super) struct Look {
    next: HoldId,
    /// Holds in force or asked for: hold, volume.
    holds: Vec<(HoldId, usize)>,
    /// What was held first.
    point: Option<PointRecord>,
    images: Vec<(usize, Vec<u64>)>,
    is_newest: bool,
    /// When the newest point was compared last.
    pub(super) compared_ns: u64,
}

impl Look {
    /// The receiver is gone, and with it what it held.
    pub(super) fn forget(&mut self) {
        self.holds.clear();
        self.images.clear();
        self.point = None;
    }
}

impl World {
    /// What a receiver may not say after what it has promised.
    pub(super) fn check_promises(&mut self, message: &Control) {
        let counter = self.source.incarnation.counter;
        let promised = &mut self.source.promised;
        if promised.0 != counter {
            *promised = (counter, Stamp::ZERO, Stamp::ZERO);
        }
        self.checks += 1;
        match message {
            Control::Ack(ack) => {
                promised.1 = promised.1.max(ack.durable);
                promised.2 = promised.2.max(ack.settled);
            }
            Control::HelloAck(ack) if ack.resume < promised.1 || ack.settled < promised.2 => {
                let words = format!(
                    "P10: resumes at {} and {}, had promised {} and {}",
                    ack.resume, ack.settled, promised.1, promised.2
                );
                self.fail(words);
            }
            _ => {}
        }
    }

    /// The ring keeps to its size.
    pub(super) fn check_ring(&mut self) {
        let Some(tap) = &self.source.tap else { return };
        let usage = tap.ring.usage();
        self.checks += 1;
        if usage.used_bytes > usage.capacity_bytes {
            self.fail(format!("P11: the ring holds more than it can: {usage:?}"));
        }
    }

    /// Number of the last change at or before a point.
    fn number_at(&self, counter: u64, stamp: Stamp) -> Option<u64> {
        let pad = self.pad.borrow();
        pad.stamps.get(&counter)?.get(stamp.0 as usize).copied()
    }

    /// Where the base rests, it is the source at the place the catalog says.
    pub(super) fn check_base(&mut self) {
        if self.clock.now_ns < self.base_checked_ns + BASE_CHECK_NS {
            return;
        }
        let Some(state) = self.site.catalog.clone() else {
            return;
        };
        if state.applied != state.horizon || state.applied == Stamp::ZERO {
            return;
        }
        self.base_checked_ns = self.clock.now_ns;
        if state.point.is_none() && self.had_point {
            return self.fail("P7: there is no point any more".into());
        }
        self.had_point |= state.point.is_some();
        let mut images = Vec::new();
        for (volume, target) in self.site.targets.iter().enumerate() {
            let held = state.volumes.get(&volume_name(volume));
            if held.is_some_and(|held| counts_as(*held)) {
                images.push((volume, target.contents()));
            }
        }
        let at = format!("base at {} of {}", state.applied, state.incarnation.counter);
        self.compare(&at, (state.incarnation.counter, state.applied), &images);
    }

    /// These images are together the source at that place.
    fn compare(&mut self, at: &str, (counter, stamp): (u64, Stamp), images: &[(usize, Vec<u64>)]) {
        if images.is_empty() {
            return;
        }
        let Some(number) = self.number_at(counter, stamp) else {
            return self.fail(format!("{at}: a stamp nobody claimed"));
        };
        self.checks += 1;
        let borrowed: Vec<(usize, &[u64])> = images.iter().map(|(v, i)| (*v, &i[..])).collect();
        let pad = self.pad.borrow();
        let cuts = pad.history.cuts(&borrowed);
        if cuts.contains(number) {
            return;
        }
        let closest = cuts.newest().unwrap_or_else(|| cuts.closest());
        let found = borrowed
            .iter()
            .flat_map(|(v, i)| pad.history.differences(*v, i, number));
        let found: Vec<String> = found.take(6).collect();
        let words = match cuts.newest() {
            Some(newest) => format!("P4: {at} is the source after change {newest}, not {number}"),
            None => {
                format!("P4: {at} is no state of the source; closest is {closest}, not {number}")
            }
        };
        drop(pad);
        self.fail(format!("{words}: {}", found.join("; ")));
    }

    /// Asks for a point to be held, to be compared.
    pub(super) fn look_event(&mut self) {
        let wait = self.dice.between(20 * MS, 150 * MS);
        self.after(wait, Event::Look);
        if !self.look.holds.is_empty() {
            return self.release_look();
        }
        self.check_newest();
        self.look.is_newest = self.dice.coin();
        let at = match (self.look.is_newest, self.dice.coin()) {
            (true, _) => At::Newest,
            (_, true) => At::Oldest,
            _ => At::Stamp(Stamp(self.dice.roll(self.newest.1.0 + 1))),
        };
        self.hold(0, at);
    }

    fn hold(&mut self, volume: usize, at: At) {
        self.look.next += 1;
        let hold = self.look.next;
        self.look.holds.push((hold, volume));
        self.tell_group(Told::Hold(hold, volume_name(volume), at));
        self.take_holds();
    }

    pub(super) fn take_holds(&mut self) {
        let held = self
            .site
            .daemon
            .as_mut()
            .map(|it| std::mem::take(&mut it.held));
        for output in held.unwrap_or_default() {
            if let Output::Held(hold, answer) = output {
                self.held(hold, answer);
            }
        }
    }

    fn held(&mut self, hold: HoldId, answer: Result<PointRecord, String>) {
        let Some(&(_, volume)) = self.look.holds.iter().find(|asked| asked.0 == hold) else {
            return;
        };
        let Ok(point) = answer else {
            return self.release_look();
        };
        if self.look.point.is_some_and(|first| first != point) {
            return self.release_look();
        }
        self.look.point = Some(point);
        let image = self.image_of(hold, volume);
        self.look.images.extend(image.map(|image| (volume, image)));
        if volume + 1 < self.mix.volumes.len() {
            return self.hold(volume + 1, At::Stamp(point.stamp));
        }
        let images = std::mem::take(&mut self.look.images);
        let at = format!("point {} of {}", point.stamp, point.incarnation.counter);
        self.reached.reach(match self.look.is_newest {
            true => Probe::PointHeld,
            false => Probe::OlderPointHeld,
        });
        self.compare(&at, (point.incarnation.counter, point.stamp), &images);
        if self.look.is_newest && images.len() == self.mix.volumes.len() {
            self.look.compared_ns = self.clock.now_ns;
        }
        self.release_look();
    }

    fn release_look(&mut self) {
        let holds = std::mem::take(&mut self.look.holds);
        self.look.forget();
        for (hold, _) in holds {
            self.tell_group(Told::Release(hold));
        }
    }

    /// The base with the records up to the held point.
    fn image_of(&mut self, hold: HoldId, volume: usize) -> Option<Vec<u64>> {
        let group = &self.site.daemon.as_ref()?.group;
        let mut reader = StoreReader(self.site.store.clone());
        let mut image = self.site.targets[volume].contents();
        let mut payload = Vec::new();
        let mut after = None;
        let mut unread = None;
        loop {
            let page = group.held_page(hold, after)?;
            for patch in page.patches {
                let first = patch.offset_bytes as usize / SECTOR_BYTES;
                let count = patch.len_bytes as usize / SECTOR_BYTES;
                let Some((segment, offset_bytes)) = patch.record else {
                    image[first..first + count].fill(ZERO);
                    continue;
                };
                let at = RecordAt {
                    segment,
                    offset_bytes,
                };
                if let Err(error) = reader.read(at, &mut payload) {
                    unread = Some(error.to_string());
                    continue;
                }
                for (nth, bytes) in payload.chunks_exact(SECTOR_BYTES).enumerate() {
                    image[first + nth] = read(bytes, volume, first + nth);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if let Some(words) = unread {
            self.fail(format!("P9: a record of a point cannot be read: {words}"));
        }
        Some(image)
    }

    /// The newest complete point never goes back.
    pub(super) fn check_newest(&mut self) {
        let Some(daemon) = &self.site.daemon else {
            return;
        };
        let newest = daemon.group.retained().pop();
        if daemon.group.status(self.site_now(0)).mode == "frozen" {
            self.reached.reach(Probe::Frozen);
        }
        self.checks += 1;
        let newest = newest.map(|run| {
            let counter = run
                .incarnation
                .split('-')
                .next()
                .and_then(|n| n.parse().ok());
            (counter.unwrap_or(0), Stamp(run.last_stamp))
        });
        match newest {
            None if self.had_point => {
                let state = self.state_line();
                self.fail(format!("P7: no point is left: {state}"));
            }
            Some(newest) if newest < self.newest => {
                let before = self.newest;
                self.fail(format!(
                    "P7: the newest point goes back from {before:?} to {newest:?}"
                ));
            }
            Some(newest) => {
                self.had_point = true;
                self.newest = newest;
            }
            None => {}
        }
    }
}
