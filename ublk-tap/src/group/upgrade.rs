//! Handing over to another program of the tap, while its volumes are in use.
//!
//! The process becomes that program, and keeps its number. What it held it lets go of as one that
//! is killed does: the kernel keeps the devices and their requests, the tmpfs keeps the ring, and
//! the successor goes on with both (docs/decisions/upgrade.md). So nothing is written down here, and
//! a successor that cannot start costs no more than a kill.

use super::driver::Driver;
use super::tapped::Tapped;
use super::volume::Place;
use crate::control::{ReplyTo, UpgradeRequest};
use crate::failure::Failure;
use std::path::Path;

/// Becomes another program; returns only if it cannot, with everything as it was.
pub type Become = Box<dyn Fn(&Path) -> Failure + Send>;

impl Driver {
    /// An operator wants another program to go on. Who asks hears nothing but the end of this one.
    pub(super) fn upgrade(&mut self, request: &UpgradeRequest, reply: ReplyTo) {
        if let Some(failure) = self.not_now(request.force) {
            return reply.fail(failure);
        }
        let program = request.program.display();
        tracing::info!(%program, "handing over");
        let failure = (self.becomes)(&request.program);
        tracing::error!("not handed over: {failure}");
        reply.fail(failure);
    }

    /// Why it would cost more than a pause.
    fn not_now(&self, force: bool) -> Option<Failure> {
        let group = &self.group;
        if !self.removals.is_empty() {
            let text = format!("volumes of {group} are being removed; try again afterwards");
            return Some(Failure::refused(text));
        }
        let mut tapped = self.tapped.values();
        let is_coming = tapped.any(Tapped::is_starting);
        if is_coming || !self.adding.is_empty() {
            let text = format!("a volume of {group} is being added; try again when it is there");
            return Some(Failure::refused(text));
        }
        let is_cut_off = |tapped: &&Tapped| {
            let front = tapped.front();
            front.is_some_and(|front| front.has_clients())
        };
        let cut_off = self.tapped.values().find(is_cut_off).filter(|_| !force);
        if let Some((tapped, front)) = cut_off.and_then(|it| Some((it, it.front()?))) {
            let (name, words) = (&tapped.name, front.in_use_words());
            let text = format!("{group}/{name}: {words}, or cut it off with --force");
            return Some(Failure::refused(text));
        }
        let is_copied = |index| self.core.place(index).is_some_and(Place::is_copying);
        let mut tapped = self.tapped.iter();
        let copied = tapped.find(|(index, _)| is_copied(**index));
        let (_, copied) = copied.filter(|_| !force)?;
        Some(Failure::refused(format!(
            "{group}/{} is being copied, and its copy would begin again; wait for it, or use --force",
            copied.name
        )))
    }
}
