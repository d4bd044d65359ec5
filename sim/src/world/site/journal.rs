//! The turns of the journal's thread.

use super::super::World;
use super::super::events::Event;
use crate::faults::{MS, S, US};
use crate::probes::Probe;
use receiver::journal::Durable;
use receiver::serve::group::Event as Told;
use wire::journal::StreamNumber;

impl World {
    /// Has the journal write soon.
    pub(in crate::world) fn wake_journal(&mut self) {
        let time = self.dice.roll(2 * self.mix.journal_ns) * self.site.slowness + 10 * US;
        let life = self.site.life;
        let Some(daemon) = &mut self.site.daemon else {
            return;
        };
        if !daemon.commit_scheduled && !daemon.has_failed {
            daemon.commit_scheduled = true;
            self.after(time, Event::Commit { life });
        }
    }

    /// The journal's thread has its turn.
    pub(in crate::world) fn commit_event(&mut self) {
        let Some(daemon) = &mut self.site.daemon else {
            return;
        };
        daemon.commit_scheduled = false;
        for (stream, applied) in std::mem::take(&mut daemon.applied) {
            daemon.writer.applied(stream, applied);
        }
        for stream in std::mem::take(&mut daemon.retired) {
            daemon.writer.retire(stream);
        }
        let segments = daemon.writer.segments();
        let committed = daemon.writer.commit(&mut daemon.queue);
        let committed = committed.and_then(|done| daemon.writer.maintain().map(|()| done));
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => return self.journal_failed(&error.to_string()),
        };
        if daemon.writer.segments() < segments {
            self.reached.reach(Probe::SegmentFreed);
        }
        if daemon.writer.segments() > daemon.writer.segments_max() {
            self.fail("P11: the journal is larger than its bound".into());
        }
        let Some(daemon) = &mut self.site.daemon else {
            return;
        };
        let is_stuck = committed.no_room && daemon.writer.is_full();
        let (is_full, pressed) = (daemon.writer.is_full(), daemon.writer.wanted_back());
        let room = (is_full != daemon.is_full).then_some(!is_full);
        let is_pressed = pressed != daemon.pressed;
        (daemon.is_full, daemon.pressed) = (is_full, pressed);
        self.deliver(committed.entries);
        if let Some(room) = room {
            if !room {
                self.reached.reach(Probe::JournalFull);
            }
            self.tell_group(Told::JournalRoom(room));
        }
        if is_pressed {
            self.tell_group(Told::JournalPressed(pressed));
        }
        let Some(daemon) = &self.site.daemon else {
            return;
        };
        if !daemon.queue.is_empty() && !is_stuck {
            self.wake_journal();
        }
    }

    fn deliver(&mut self, entries: Vec<(StreamNumber, Durable)>) {
        let mut by_stream: Vec<(StreamNumber, Vec<Durable>)> = Vec::new();
        for (stream, durable) in entries {
            self.site.note_durable(stream, &durable);
            if matches!(durable, Durable::Close(_)) {
                self.reached.reach(Probe::IncarnationClosed);
            }
            match by_stream.last_mut().filter(|last| last.0 == stream) {
                Some(last) => last.1.push(durable),
                None => by_stream.push((stream, vec![durable])),
            }
        }
        for (stream, durables) in by_stream {
            self.tell_group(Told::Durable(stream, durables));
        }
    }

    fn journal_failed(&mut self, reason: &str) {
        if self.site.store.is_off() {
            self.reached.reach(Probe::CutInCommit);
            return self.kill_site(true);
        }
        self.reached.reach(Probe::JournalFailed);
        self.line(|| format!("site: journal failed: {reason}"));
        if let Some(daemon) = &mut self.site.daemon {
            daemon.has_failed = true;
            daemon.queue.clear();
        }
        self.tell_group(Told::JournalFailed(reason.into()));
        // An operator sees to it.
        let wait = self.dice.between(100 * MS, 5 * S);
        self.restart_site_in(wait);
    }
}
