//! Why a removal is not done, or what it has cost, in words.

use super::core::Mode;
use super::departure::Why;
use super::driver::Driver;
use super::removal::Removal;
use crate::control::Removed;
use crate::failure::{Exit, Failure};
use crate::settings::{ByteSize, Span};
use std::time::Instant;
use wire::VolumeIndex;

impl Driver {
    /// What would be lost now, in seconds and bytes.
    pub(super) fn stake(&self, now: Instant) -> String {
        let (bytes, age) = self.lag(now);
        format!(
            "{} of changes, the oldest {} old",
            ByteSize(bytes),
            Span(age)
        )
    }

    pub(super) fn refusal(&self, now: Instant, why: Why, removal: &Removal) -> Failure {
        let group = &self.group;
        let what = self.names(&removal.volumes);
        let stake = self.stake(now);
        let link = self.link.words();
        match why {
            Why::NotWhole => {
                let mode = self.core.mode();
                let reason = self.core.reason(now);
                let stake = match mode {
                    Mode::Broken => format!("{stake} are not at the receiver"),
                    _ => "the copy is not complete".to_owned(),
                };
                let text = format!(
                    "{what}: {stake} (mode {mode}: {reason}); wait for it, or give it up with \
                     --abandon"
                );
                Failure::refused(text)
            }
            Why::NotDrained if self.ring.acked() == self.ring.captured() => Failure::late(format!(
                "{what}: the receiver cannot confirm it (link {link}); wait for it, or remove \
                     with --abandon"
            )),
            Why::NotDrained => Failure::late(format!(
                "{what}: {stake}, are not at the receiver (link {link}); wait for it, or give \
                 them up with --abandon"
            )),
            Why::NotWritten => Failure::late(format!(
                "{what}: what is cached for it is still being written to the disk; nothing has \
                 changed, try again"
            )),
            Why::Busy => Failure::late(format!(
                "{what}: requests are still waiting for the disk; it goes on, see `ublk-tap status \
                 {group}`"
            )),
            Why::LeftBehind => Failure::late(format!(
                "{what}: the device is gone, but {stake}, are not at the receiver (link {link}); \
                 run it again to wait, or give them up with --abandon"
            )),
        }
    }

    pub(super) fn broke_meanwhile(&self, now: Instant, removed: &Removed) -> Failure {
        let names = removed.volumes.join(", ");
        let why = match self.core.reason(now) {
            reason if reason.is_empty() => "the last writes failed".to_owned(),
            reason => reason,
        };
        let text = format!("{names}: removed, but not clean ({why}); the next add copies it again");
        Failure::new(Exit::Failed, text)
    }

    pub(super) fn names(&self, volumes: &[VolumeIndex]) -> String {
        let name = |index| Some(format!("{}/{}", self.group, self.members.name(index)?));
        let names: Vec<String> = volumes.iter().filter_map(|index| name(*index)).collect();
        names.join(", ")
    }
}
