//! What a group says about itself.

use super::core::Mode;
use super::driver::Driver;
use super::front::FrontKind;
use super::tapped::{Life, Tapped};
use super::volume::Place;
use crate::control::{GroupStatus, VolumeStatus, iso_8601};
use crate::{clock, device};
use std::time::{Duration, Instant};
use wire::{MemberAction, TimeMark, VolumeIndex};

impl Driver {
    /// Where the group stands.
    pub(super) fn status(&self, now: Instant) -> GroupStatus {
        let (lag_bytes, lag) = self.lag(now);
        let usage = self.ring.usage();
        let recoverable = Some(self.progress.recoverable).filter(|mark| mark.0 > 0);
        let volumes = self
            .tapped
            .iter()
            .map(|(index, tapped)| self.volume(now, *index, tapped));
        GroupStatus {
            group: self.group.to_string(),
            source: self.source.to_string(),
            incarnation: self.ring.incarnation().to_string(),
            captured: self.ring.captured().0,
            settled: self.ring.settled_prefix().0,
            sent: self.ring.sent().0,
            durable: self.ring.acked().0,
            applied: self.progress.applied.min(self.ring.acked()).0,
            lag_bytes,
            lag_seconds: lag.as_secs_f64(),
            recoverable_to: recoverable.map(iso_8601),
            recoverable_age_seconds: recoverable.map(|mark| age(mark).as_secs_f64()),
            mode: self.core.mode().to_string(),
            reason: self.core.reason(now),
            link: self.link.word().into(),
            link_reason: self.link.reason(),
            peer: self.link.peer().into(),
            clock_offset_seconds: self.progress.clock_offset_ns as f64 / 1e9,
            ring_bytes: usage.capacity_bytes,
            ring_used_bytes: usage.used_bytes,
            parked: self.parking.len() as u64,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            volumes: volumes.collect(),
        }
    }

    /// Changes not yet durable at the receiver: their bytes, and the age of the oldest.
    pub(super) fn lag(&self, now: Instant) -> (u64, Duration) {
        let (acked, captured) = (self.ring.acked(), self.ring.captured());
        let held = self.ring.payload_bytes_between(acked, captured);
        let oldest = self.ring.oldest_unacked_mark().map_or(Duration::ZERO, age);
        let Some(since) = self.lost_since else {
            return (held, oldest);
        };
        let lost: u64 = self.tapped.values().map(Tapped::lost_bytes).sum();
        (
            held + lost,
            oldest.max(now.saturating_duration_since(since)),
        )
    }

    fn volume(&self, now: Instant, index: VolumeIndex, tapped: &Tapped) -> VolumeStatus {
        let copier = tapped.copier.as_ref();
        let copied_bytes = copier.map_or(0, |copier| copier.copied_bytes());
        let total_bytes = tapped.disk.size_bytes();
        let (state, reason) = self.state_of(now, index, tapped);
        let resized = tapped.size.words(total_bytes);
        let reason = [resized.unwrap_or_default(), reason];
        let reason: Vec<String> = reason.into_iter().filter(|text| !text.is_empty()).collect();
        let is_copying = matches!(self.core.place(index), Some(Place::Copying { .. }));
        let link = match tapped.kind {
            FrontKind::Ublk => device::link::path(&self.dirs.dev, &self.group, &tapped.name),
            FrontKind::Nbd => self.dirs.nbd_socket(&self.group, &tapped.name),
        };
        VolumeStatus {
            name: tapped.name.to_string(),
            device: tapped
                .front()
                .map(|front| front.path().display().to_string()),
            link: link.display().to_string(),
            frontend: tapped.kind.to_string(),
            disk: tapped.path.display().to_string(),
            identity: tapped.disk.identity().into(),
            size_bytes: total_bytes,
            state: state.into(),
            reason: reason.join("; "),
            copies: self.core.copies(index),
            copied_bytes,
            total_bytes,
            rate: if is_copying {
                tapped.rate.bytes_per_second()
            } else {
                0
            },
            eta: tapped
                .rate
                .eta_seconds(total_bytes - copied_bytes)
                .filter(|_| is_copying),
            queues: tapped.front().map_or(0, |front| front.queues() as u64),
            in_flight: tapped.stats.in_flight,
            parked: tapped.stats.parked,
            uncaptured_bytes: tapped.stats.uncaptured_bytes,
            disk_errors: tapped.stats.failed,
            captured_bytes: tapped.stats.captured_bytes,
            memory_copied_bytes: tapped.stats.memory_copied_bytes,
        }
    }

    /// A word from the closed list, and why.
    fn state_of(
        &self,
        now: Instant,
        index: VolumeIndex,
        tapped: &Tapped,
    ) -> (&'static str, String) {
        if tapped.is_gone() {
            let text =
                "the device was deleted by somebody else; remove the volume and add it again";
            return ("gone", text.into());
        }
        let place = self.core.place(index);
        if tapped.is_starting() {
            return ("starting", String::new());
        }
        if matches!(tapped.life, Life::Stopping(_)) {
            return ("leaving", "waits for the disk".into());
        }
        if tapped.front().is_none() || place.is_some_and(Place::is_parting) {
            return (
                "leaving",
                format!("waits for the receiver, link {}", self.link.words()),
            );
        }
        let trouble = tapped.copier.as_ref().and_then(|copier| copier.trouble());
        match (place, trouble) {
            (Some(Place::Copying { .. }), Some(trouble)) => ("unreadable", trouble),
            (Some(place), _) if place.is_copying() => {
                ("copying", self.core.volume_reason(index).into())
            }
            (Some(Place::Ready | Place::Entering(MemberAction::Continue { .. })), _) => {
                ("ready", String::new())
            }
            _ if self.core.mode() == Mode::Broken => ("broken", self.core.reason(now)),
            _ => ("starting", String::new()),
        }
    }
}

/// How long ago a mark was.
fn age(mark: TimeMark) -> Duration {
    Duration::from_nanos(clock::now().0.saturating_sub(mark.0))
}
