//! The application, and the disk below the tap.

use super::World;
use super::events::Event;
use super::pad::{Pending, Place, Wanted, changes};
use crate::faults::{MS, US};
use crate::oracle::{SECTOR_BYTES, ZERO, read};
use crate::planted::{Bug, is};
use crate::probes::Probe;
use ublk_tap::device::simulated::{AppRequest, Asked, DiskRequest, Io};

const EIO: i32 = 5;

impl World {
    /// The application asks for something, if it can.
    pub(super) fn app_event(&mut self) {
        if self.writes_left > 0 {
            let gap = self.dice.roll(2 * self.mix.gap_ns) + 1;
            self.after(gap, Event::App);
            if self.source.stopping.is_none() {
                self.submit();
            }
        }
    }

    fn submit(&mut self) {
        let volume = self.dice.roll(self.mix.volumes.len() as u64) as usize;
        let queue = self.dice.roll(self.mix.queues as u64) as usize;
        let is_live = |world: &Self| {
            let tap = world.source.tap.as_ref();
            tap.is_some_and(|tap| tap.volumes[volume].is_live)
        };
        if !is_live(self) {
            return;
        }
        let request = self.draw_request(volume);
        let mut pad = self.pad.borrow_mut();
        let is_free = |tag: &u16| !pad.pending.contains_key(&(volume, queue, *tag));
        let Some(tag) = (0..self.mix.depth).find(is_free) else {
            return;
        };
        let pending = Pending {
            request,
            number: None,
            since_ns: self.clock.now_ns,
        };
        pad.pending.insert((volume, queue, tag), pending);
        drop(pad);
        if changes(request.asked) {
            self.writes_left -= 1;
            self.writes += 1;
        }
        self.line(|| format!("app: {volume}.{queue}.{tag} {request:?}"));
        self.fetch((volume, queue, tag));
    }

    fn draw_request(&mut self, volume: usize) -> AppRequest {
        let sectors = self.mix.volumes[volume] as u64;
        let asked = match self.dice.roll(100) {
            0..68 => Asked::Write {
                fua: self.dice.roll(16) == 0,
            },
            68..76 => Asked::Discard,
            76..84 => Asked::Zero,
            84..90 => Asked::Flush,
            _ => Asked::Read,
        };
        let zone = match self.dice.permille(self.mix.hot_permille) {
            true => sectors / 8,
            false => sectors,
        };
        let first = self.dice.roll(zone);
        let most = self.mix.request_sectors_max.min(sectors - first);
        let count = self.dice.between(1, most);
        let (offset_bytes, length_bytes) = match asked {
            Asked::Flush => (0, 0),
            _ => (
                first * SECTOR_BYTES as u64,
                count as u32 * SECTOR_BYTES as u32,
            ),
        };
        AppRequest {
            asked,
            offset_bytes,
            length_bytes,
        }
    }

    fn fetch(&mut self, place: Place) {
        let (volume, queue, tag) = place;
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        tap.volumes[volume].queues[queue].fetched(tag);
        tap.volumes[volume].queues[queue].turn();
        let is_waiting = tap.parking.is_empty()
            && self
                .pad
                .borrow()
                .pending
                .get(&place)
                .is_some_and(|pending| changes(pending.request.asked) && pending.number.is_none());
        if is_waiting {
            self.reached.reach(Probe::WriteWaitedForRange);
        }
        self.touched();
    }

    /// A device is live again: what a dead tap had not answered comes again.
    pub(super) fn fetch_again(&mut self, volume: usize) {
        let pending = self.pad.borrow();
        let of_volume = pending.pending.keys().filter(|place| place.0 == volume);
        let again: Vec<Place> = of_volume.copied().collect();
        drop(pending);
        for place in again {
            self.fetch(place);
        }
    }

    pub(super) fn disk_time(&mut self) -> u64 {
        let spike = if self.dice.roll(200) == 0 { 20 } else { 1 };
        let mean = self.mix.disk_ns * self.source.slowness * spike;
        self.dice.roll(2 * mean) + 10 * US
    }

    /// Workers have been at work: does what they want, and has the shipper look.
    pub(super) fn touched(&mut self) {
        loop {
            let wanted = std::mem::take(&mut self.pad.borrow_mut().wanted);
            if wanted.is_empty() {
                break;
            }
            for wanted in wanted {
                match wanted {
                    Wanted::Disk(place, request) => self.ask_disk(place, request),
                    Wanted::Done(place, result) => self.answered(place, result),
                    Wanted::Pause(volume, queue) => {
                        let life = self.source.life;
                        let pause = Event::Pause {
                            life,
                            volume,
                            queue,
                        };
                        self.after(5 * MS, pause);
                    }
                }
            }
        }
        self.hurry_turn();
        self.wake_shipper(MS / 2);
    }

    fn ask_disk(&mut self, place: Place, request: DiskRequest) {
        if matches!(request.io, Io::Write { .. } | Io::Zero) {
            let end = request.offset_bytes + u64::from(request.length_bytes);
            let overlaps = |(at, other): &&(Place, DiskRequest)| {
                let other_end = other.offset_bytes + u64::from(other.length_bytes);
                at.0 == place.0
                    && matches!(other.io, Io::Write { .. } | Io::Zero)
                    && other.offset_bytes < end
                    && request.offset_bytes < other_end
            };
            self.checks += 1;
            if let Some((other, _)) = self.source.at_disk.values().find(overlaps) {
                let words = format!("P3: {place:?} and {other:?} are at the disk and overlap");
                self.fail(words);
            }
        }
        let ticket = self.source.next_ticket;
        self.source.next_ticket += 1;
        self.source.at_disk.insert(ticket, (place, request));
        let (life, time) = (self.source.life, self.disk_time());
        self.after(time, Event::Disk { life, ticket });
    }

    pub(super) fn disk_event(&mut self, ticket: u64) {
        let Some((place, request)) = self.source.at_disk.remove(&ticket) else {
            return;
        };
        let result = self.serve_disk(place, request);
        let (volume, queue, tag) = place;
        self.line(|| format!("disk: {volume}.{queue}.{tag} {request:?} = {result}"));
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        tap.volumes[volume].queues[queue].answered(tag, result);
        tap.turn_queues();
        self.touched();
    }

    /// The tap is dead: what is at the disk ends all the same, well or not.
    pub(super) fn finish_disk(&mut self) {
        for (place, request) in std::mem::take(&mut self.source.at_disk).into_values() {
            if self.dice.permille(850) {
                self.serve_disk(place, request);
            }
        }
    }

    /// The disk does what it is asked, all of it or not.
    fn serve_disk(&mut self, place: Place, request: DiskRequest) -> i32 {
        let sectors = request.length_bytes as usize / SECTOR_BYTES;
        let mut count = sectors;
        let mut result = request.length_bytes as i32;
        match request.io {
            Io::Sync => {
                if !is(Bug::FlushNotPassedOn) {
                    self.source.disks[place.0].sync();
                }
                return 0;
            }
            Io::Read if self.source.refuses_reads && self.dice.coin() => return -EIO,
            Io::Read => {
                self.read_disk(place, request);
                return result;
            }
            _ if self.source.refuses_writes && self.dice.coin() => {
                count = self.dice.roll(sectors as u64 + 1) as usize;
                result = -EIO;
                self.reached.reach(Probe::WriteRefused);
                if count > 0 {
                    self.reached.reach(Probe::WriteTorn);
                }
            }
            Io::Write { .. } if sectors > 1 && self.dice.roll(50) == 0 => {
                count = self.dice.between(1, sectors as u64 - 1) as usize;
                result = (count * SECTOR_BYTES) as i32;
            }
            _ => {}
        }
        self.write_disk(place, request, count);
        if matches!(request.io, Io::Zero) && result > 0 {
            0
        } else {
            result
        }
    }

    fn read_disk(&mut self, place: Place, request: DiskRequest) {
        let (volume, queue, tag) = place;
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        let memory = tap.volumes[volume].queues[queue].memory(tag);
        self.source.disks[volume].read(request.offset_bytes, memory);
    }

    fn write_disk(&mut self, place: Place, request: DiskRequest, count: usize) {
        let (volume, queue, tag) = place;
        let first = request.offset_bytes as usize / SECTOR_BYTES;
        let number = self
            .pad
            .borrow()
            .pending
            .get(&place)
            .and_then(|it| it.number);
        let number = number.expect("what is at the disk has a number");
        let durable = matches!(request.io, Io::Write { durable: true });
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        let is_write = matches!(request.io, Io::Write { .. });
        let memory: Option<&[u8]> = match is_write {
            true => Some(tap.volumes[volume].queues[queue].memory(tag)),
            false => None,
        };
        let mut trouble = None;
        let mut pad = self.pad.borrow_mut();
        for nth in 0..count {
            let sector = first + nth;
            let content = match memory {
                Some(memory) => read(
                    &memory[nth * SECTOR_BYTES..][..SECTOR_BYTES],
                    volume,
                    sector,
                ),
                None => ZERO,
            };
            if is_write && content != number {
                trouble = Some(format!(
                    "P1: the disk was given {content:#x} for write {number}, its memory was used again"
                ));
            }
            self.source.disks[volume].set(sector, content, durable);
            if let Err(words) = pad.history.note((volume, sector), number, content) {
                trouble = Some(words);
            }
        }
        drop(pad);
        if let Some(words) = trouble {
            self.fail(words);
        }
    }

    /// The application has its answer.
    fn answered(&mut self, place: Place, result: i32) {
        let Some(pending) = self.pad.borrow_mut().pending.remove(&place) else {
            return self.fail(format!("{place:?} was answered twice"));
        };
        let read = std::mem::take(&mut self.pad.borrow_mut().read);
        if result < 0 {
            return;
        }
        self.checks += 1;
        let first = pending.request.offset_bytes as usize / SECTOR_BYTES;
        let count = pending.request.length_bytes as usize / SECTOR_BYTES;
        let sectors = first..first + count;
        let disk = &self.source.disks[place.0];
        let volatile = |sector: &usize| disk.unsynced().any(|it| it == *sector);
        match pending.request.asked {
            Asked::Write { fua: true } if sectors.clone().any(|s| volatile(&s)) => {
                self.fail(format!(
                    "P1: {place:?} was durable when it was answered, it is not"
                ));
            }
            Asked::Write { .. } | Asked::Discard | Asked::Zero => {
                if let Some(number) = pending.number {
                    let at = number as usize;
                    self.done.resize(self.done.len().max(at + 1), u64::MAX);
                    self.done[at] = self.clock.now_ns;
                }
            }
            Asked::Flush => self.check_flush(place.0, pending.since_ns),
            Asked::Read => {
                let held = &disk.contents()[sectors];
                if !read.iter().any(|(at, read)| *at == place && read == held) {
                    self.fail(format!("P1: {place:?} read what the disk does not hold"));
                }
            }
        }
    }

    /// Whatever was answered before the flush came is durable.
    fn check_flush(&mut self, volume: usize, since_ns: u64) {
        let disk = &self.source.disks[volume];
        let unsynced = disk.unsynced().map(|sector| disk.contents()[sector]);
        let is_done = |content: &u64| {
            let done = self.done.get(*content as usize);
            done.is_some_and(|done| *done < since_ns)
        };
        let found = { unsynced }.find(is_done);
        if let Some(number) = found {
            self.fail(format!("P1: write {number} was flushed and is not durable"));
        }
    }
}
