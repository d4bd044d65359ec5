//! What status says about a group.

use super::Group;
use super::event::{Now, Registered};
use crate::catalog::VolumeState;
use crate::control::{GroupStatus, UNKNOWN_RANGES_SHOWN, UnknownRange, VolumeStatus};
use wire::{Name, Stamp, TimeMark};

/// Why the points of a source do not go on though it does.
pub(super) const OTHERS_HOLD: &str =
    "another source of the group holds its point back: `ublk-tap-receiver status` names it";

impl Group {
    /// The group as status shows it.
    pub fn status(&self, now: Now) -> GroupStatus {
        let stream = self.current();
        let intake = stream.map(|stream| &stream.intake);
        let here = stream.map(|stream| stream.incarnation()) == Some(self.base.incarnation);
        let known = self.base.incarnation.counter > 0;
        let incarnation = stream.map(|stream| stream.incarnation());
        let incarnation = incarnation.or_else(|| known.then_some(self.base.incarnation));
        let (mode, reason) = self.mode();
        let applied = if here || stream.is_none() {
            self.base.applied
        } else {
            Stamp::ZERO
        };
        let mut status = GroupStatus {
            group: self.name.to_string(),
            source: self.source.to_string(),
            connected: self.session.is_some(),
            generation: self.generation,
            incarnation: incarnation.map(|incarnation| incarnation.to_string()),
            captured: self.session.as_ref().map(|session| session.captured.0),
            sent: intake.map(|intake| intake.received().0),
            settled: intake.map_or(applied, |intake| intake.settled()).0,
            durable: intake.map_or(applied, |intake| intake.durable_prefix()).0,
            applied: applied.0,
            lag_bytes: self.lag_bytes(),
            lag_seconds: self.lag_seconds(now),
            held_by: self.held_by(),
            clock_offset_seconds: self.session.as_ref().and_then(|s| s.clock_offset_s()),
            mode: mode.into(),
            reason,
            window_bytes: self.window_bytes(),
            window_seconds: self.window_span().map(|span| span.as_secs_f64()),
            retain_seconds: self.window.retain.as_secs(),
            volumes: self
                .volumes
                .keys()
                .map(|name| self.volume_status(name))
                .collect(),
            ..GroupStatus::default()
        };
        if let (Some(point), Some(mark)) = (self.points.point(), self.recoverable()) {
            // Where other sources hold the point back it is an earlier one.
            let newest = self.runs().last().copied();
            let newest = newest.filter(|_| self.ceiling().is_some());
            let newest = newest.map_or(point.stamp, |run| run.last.stamp);
            status.set_recoverable(newest, mark, self.source_clock(now));
            let runs = self.retained();
            status.points = runs.iter().map(|run| run.points).sum();
            status.recoverable_from = runs.into_iter().next().map(|run| run.first);
        }
        status
    }

    /// What holds records up, in words.
    pub(super) fn full_text(&self) -> String {
        let frozen = || {
            let why = self.points.frozen()?;
            Some(format!(
                "; the newest complete point is kept while {why}: if the copy does not fit beside \
                 it, raise journal_max in receiver.toml or remove and add the volume"
            ))
        };
        let behind = self.behind().map(|why| format!("; {why}"));
        let held = || "; an export holds what is retained until it ends".to_owned();
        let held = || self.holds.any().then(held);
        let others = || Some(format!("; {OTHERS_HOLD}")).filter(|_| self.waits_for_others());
        let held = || held().or_else(others);
        let kept = behind.or_else(held).or_else(frozen).unwrap_or_default();
        let waiting = self.records_waiting();
        let what = if self.journal_full {
            "the journal is at its bound".into()
        } else {
            format!("{waiting} records wait to be applied")
        };
        format!("receiver full: {what}{kept}")
    }

    fn mode(&self) -> (&'static str, Option<String>) {
        if let Some(text) = self.journal_failed.as_ref().or(self.failed.as_ref()) {
            return ("failed", Some(text.clone()));
        }
        let foreign = |volume: &Registered| volume.refused.as_ref().is_some_and(|it| !it.away);
        if let Some(text) = self
            .refused()
            .filter(|_| self.volumes.values().any(foreign))
        {
            return ("refused", Some(text));
        }
        let full = (!self.takes_records()).then(|| self.full_text());
        if let Some(why) = self.behind() {
            return ("behind", Some(full.unwrap_or(why)));
        }
        let full = full.or_else(|| self.window_text());
        if let Some(why) = self.points.frozen() {
            return ("frozen", full.or_else(|| Some(why.to_owned())));
        }
        if self.points.point().is_some() {
            return ("async", full);
        }
        let copying = |name| matches!(self.points.state(name), VolumeState::Copying { .. });
        if self.volumes.keys().any(copying) {
            return ("first copy", full);
        }
        let waits = "no volume has been copied yet; add it at its source with `ublk-tap add`";
        ("waiting", full.or_else(|| Some(waits.into())))
    }

    fn volume_status(&self, name: &Name) -> VolumeStatus {
        let registered = self.volumes.get(name).cloned().unwrap_or_default();
        let state = match self.points.state(name) {
            _ if registered.refused.is_some() => "refused",
            VolumeState::Absent => "absent",
            VolumeState::Copying { .. } => "copying",
            VolumeState::Ready if self.points.is_unknown(name) => "unknown",
            VolumeState::Ready => "ready",
            VolumeState::Left { .. } => "left",
            VolumeState::Doubt => "doubt",
        };
        let copied = self
            .current()
            .map_or(0, |stream| stream.intake.copied_bytes(name));
        let unknown: Vec<UnknownRange> = self
            .current()
            .into_iter()
            .flat_map(|stream| stream.intake.unknown(name))
            .map(|range| UnknownRange {
                offset_bytes: range.offset_bytes,
                length_bytes: range.len_bytes,
            })
            .collect();
        VolumeStatus {
            volume: name.to_string(),
            size_bytes: registered.size_bytes,
            sector_bytes: registered.sector_bytes,
            state: state.into(),
            reason: registered.refused.map(|refused| refused.reason),
            copied_bytes: copied.min(registered.size_bytes),
            unknown_bytes: unknown.iter().map(|range| range.length_bytes).sum(),
            unknown: unknown.into_iter().take(UNKNOWN_RANGES_SHOWN).collect(),
            ..VolumeStatus::default()
        }
    }

    /// Bytes received and not durable, and an estimate of those captured and not received.
    fn lag_bytes(&self) -> u64 {
        let (Some(session), Some(stream)) = (&self.session, self.current()) else {
            return 0;
        };
        let missing = session
            .captured
            .records_since(stream.intake.durable_prefix());
        missing.saturating_mul(stream.intake.record_bytes_mean())
    }

    /// What keeps the newest point from moving on.
    fn held_by(&self) -> Option<String> {
        if let Some(why) = self.points.frozen() {
            return Some(why.to_owned());
        }
        if let Some(why) = self.clock_is_off() {
            return Some(why);
        }
        let away = self.session.is_none() && self.current().is_some();
        away.then(|| format!("source {} is not connected", self.source))
    }

    /// Age of the oldest write that is not durable here, by the source's clock.
    fn lag_seconds(&self, now: Now) -> f64 {
        let (Some(session), Some(stream)) = (&self.session, self.current()) else {
            // Nobody knows what it has written since.
            let heard = self.recoverable().unwrap_or(now.wall).max(self.heard);
            return now.wall.0.saturating_sub(heard.0) as f64 / 1e9;
        };
        let intake = &stream.intake;
        if session.captured <= intake.durable_prefix() {
            return 0.0;
        }
        session.clock.0.saturating_sub(intake.last_mark().0) as f64 / 1e9
    }

    /// The source's clock, as far as it is known.
    fn source_clock(&self, now: Now) -> TimeMark {
        let last = self.session.as_ref().map(|session| session.clock);
        last.filter(|clock| clock.0 > 0).unwrap_or(now.wall)
    }
}
