//! How a tap ends: cleanly, killed, or with its host.

use super::World;
use super::events::{Begin, Event};
use super::source::group_name;
use crate::faults::{MS, S};
use crate::probes::Probe;
use ublk_tap::group::{CoreEvent, Mode, Place};
use wire::VolumeIndex;

impl World {
    /// The operator wants the tap stopped and started again.
    pub(super) fn stop_tap(&mut self) {
        let Some(tap) = &self.source.tap else { return };
        let is_whole = tap.core.mode() == Mode::Async && tap.core.is_whole();
        if is_whole && tap.is_reread() && tap.orphans.is_empty() && self.source.stopping.is_none() {
            self.source.stopping = Some(self.clock.now_ns + 10 * S);
        }
    }

    /// A clean stop under way: requests end, volumes leave, all of it is acknowledged.
    pub(super) fn step_stopping(&mut self) {
        let Some(until) = self.source.stopping else {
            return;
        };
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        let is_over = self.clock.now_ns >= until || tap.core.mode() != Mode::Async;
        let places = (0..tap.volumes.len()).map(|n| tap.core.place(VolumeIndex(n as u16)));
        let places: Vec<_> = places.flatten().collect();
        let is_quiet = tap.is_idle() && self.pad.borrow().pending.is_empty();
        if places
            .iter()
            .all(|place| matches!(place, Place::Left { .. }))
        {
            let captured = tap.ring.captured();
            if tap.ring.acked() >= captured {
                self.source.stopping = None;
                self.reached.reach(Probe::CleanRestart);
                self.end_tap();
                self.start_tap(Begin::Clean);
            } else if is_over {
                self.give_tap_up();
            }
        } else if is_over {
            self.give_tap_up();
        } else if is_quiet && tap.is_reread() && places.iter().all(|p| *p == Place::Ready) {
            for volume in &mut tap.volumes {
                volume.is_live = false;
            }
            for volume in 0..places.len() {
                let index = VolumeIndex(volume as u16);
                self.tell_core(CoreEvent::Leave { index });
            }
        }
    }

    /// A clean stop that did not come about: the next tap copies.
    fn give_tap_up(&mut self) {
        self.source.stopping = None;
        self.kill_tap();
        self.after(MS, Event::StartTap(Begin::Anew));
    }

    /// The tap has ended; its state stays to be read.
    fn end_tap(&mut self) {
        self.drop_shipper();
        if let Some(tap) = &self.source.tap {
            let _ = tap.ring.remove_file();
        }
    }

    /// The tap is killed. What the disk has been asked goes on, and ends before a successor begins.
    pub(super) fn kill_tap(&mut self) {
        self.drop_shipper();
        self.finish_disk();
        self.source.tap = None;
        for pending in self.pad.borrow_mut().pending.values_mut() {
            pending.number = None;
        }
        self.line(|| format!("tap killed; group {}", group_name()));
    }

    /// The host loses power: ring and requests are gone, and what the disk had not synced.
    pub(super) fn cut_source(&mut self) {
        self.reached.reach(Probe::SourcePowerCut);
        self.kill_tap();
        self.source.was_cut = true;
        self.source.stopping = None;
        self.pad.borrow_mut().pending.clear();
        for volume in 0..self.source.disks.len() {
            let changed = self.source.disks[volume].power_cut(&mut self.dice);
            if changed.is_empty() {
                continue;
            }
            self.reached.reach(Probe::SourceLostSectors);
            let mut pad = self.pad.borrow_mut();
            let number = pad.history.take_number();
            for sector in changed {
                let content = self.source.disks[volume].contents()[sector];
                let noted = pad.history.note((volume, sector), number, content);
                debug_assert!(noted.is_ok(), "a new number is the highest");
            }
        }
    }
}
