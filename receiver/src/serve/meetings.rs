//! Meetings: the cuts of the groups with several sources, between the actors of their lanes.
//!
//! Owned by the hub. An actor reports how far its lane reaches; all lanes of the group are told
//! when the cut has moved, in that order. The cut is kept in the catalog with every horizon that
//! it allowed, and once a second by a thread of its own, for heartbeats are in no journal.
//!
//! Promises: what is in the catalog is never newer than what was decided; of two commits of a cut
//! the later one is the newer.

use super::group::Event;
use super::hub::{Hub, lock};
use super::messages::Told;
use crate::catalog::{Catalog, CatalogError, CutState, Lane};
use crate::points::{Cut, Reach};
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::{Name, TimeMark};

/// How often a cut that has moved is kept.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    open: Mutex<BTreeMap<Name, Meeting>>,
    /// Held while a cut is committed.
    keeping: Mutex<()>,
    keeper: Mutex<Option<Sender<()>>>,
}

#[derive(Debug, Default)]
struct Meeting {
    cut: Cut,
    kept: Option<CutState>,
    /// The receiver stops: the cut stays where it is, so that all come to rest at it.
    over: bool,
}

impl Hub {
    /// The group has several sources, and its lanes meet; says where they met last.
    pub(super) fn open_meeting(&self, group: &Name) -> Result<Option<TimeMark>, CatalogError> {
        let mut open = lock(&self.meetings.open);
        if let Some(meeting) = open.get(group) {
            return Ok(meeting.cut.at());
        }
        let mut kept = self.catalog.cut(group)?;
        if let Some(kept) = &mut kept {
            // Of a source without volumes here nothing will be heard.
            let volumes = self.catalog.group_volumes(group)?;
            let known = |source: &Name| volumes.iter().any(|volume| volume.source == *source);
            kept.lanes.retain(|source, _| known(source));
        }
        let cut = kept.clone().map(Cut::restore).unwrap_or_default();
        let (at, over) = (cut.at(), false);
        open.insert(group.clone(), Meeting { cut, kept, over });
        self.tell_lanes(group, at);
        Ok(at)
    }

    /// The lane can be told from now on: what it may have missed while it began is said again.
    pub(super) fn join_meeting(&self, lane: &Lane) {
        let open = lock(&self.meetings.open);
        if let Some(meeting) = open.get(&lane.group) {
            let at = meeting.cut.at();
            self.tell(lane, Told::Event(Event::Cut(at)));
        }
    }

    /// A lane reaches this far.
    pub(super) fn report(&self, lane: &Lane, reach: Reach) {
        self.at_meeting(&lane.group, |cut| cut.report(&lane.source, reach));
    }

    /// The points go on without the source; kept when this returns.
    pub(super) fn detach(&self, lane: &Lane, reason: &str) -> Result<(), String> {
        let known = self.group(lane).is_some();
        let holds =
            known && self.look_at_cut(&lane.group, |cut| cut.holds(&lane.source)) == Some(true);
        if !holds {
            return Err(format!(
                "source {} holds no point of group {} back: it is no part of its points; see \
                 status",
                lane.source, lane.group
            ));
        }
        let others = |cut: &Cut| cut.state().is_some_and(|state| state.parts() > 1);
        if self.look_at_cut(&lane.group, others) != Some(true) {
            return Err(format!(
                "no other source is part of the points of group {}; there is nothing to go on \
                 without {}",
                lane.group, lane.source
            ));
        }
        let reason = reason.to_owned();
        self.tell(lane, Told::Event(Event::LetGo(reason)));
        self.at_meeting(&lane.group, |cut| cut.detach(&lane.source));
        let kept = self.keep_cut(&lane.group);
        kept.map_err(|error| error.to_string())
    }

    /// Looks at the cut of a group with several sources.
    pub(super) fn look_at_cut<T>(&self, group: &Name, look: impl FnOnce(&Cut) -> T) -> Option<T> {
        let open = lock(&self.meetings.open);
        open.get(group).map(|meeting| look(&meeting.cut))
    }

    /// Commits what goes with the cut of the group, if it has several sources.
    pub(super) fn with_cut<T>(
        &self,
        group: &Name,
        commit: impl FnOnce(&Catalog, Option<&CutState>) -> T,
    ) -> T {
        let _turn = lock(&self.meetings.keeping);
        let state = self.look_at_cut(group, Cut::state).flatten();
        commit(&self.catalog, state.as_ref())
    }

    /// No cut moves any more.
    pub(super) fn end_meetings(&self) {
        lock(&self.meetings.keeper).take();
        for meeting in lock(&self.meetings.open).values_mut() {
            meeting.over = true;
        }
        self.keep_cuts();
    }

    /// Starts the thread that keeps the cuts.
    pub(super) fn start_keeping(self: &Arc<Self>) -> io::Result<()> {
        let (stop, stopped) = mpsc::channel::<()>();
        *lock(&self.meetings.keeper) = Some(stop);
        let hub = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("cuts".into());
        thread.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(KEEP_INTERVAL) {
                let Some(hub) = hub.upgrade() else { return };
                hub.keep_cuts();
            }
        })?;
        Ok(())
    }

    fn keep_cuts(&self) {
        let groups: Vec<Name> = lock(&self.meetings.open).keys().cloned().collect();
        for group in groups {
            if let Err(error) = self.keep_cut(&group) {
                tracing::error!(%group, %error, "cannot keep where the sources meet");
            }
        }
    }

    fn keep_cut(&self, group: &Name) -> Result<(), CatalogError> {
        let kept = self.with_cut(group, |catalog, state| {
            let state = state.cloned();
            let before = lock(&self.meetings.open)
                .get(group)
                .and_then(|m| m.kept.clone());
            if let Some(state) = state
                .as_ref()
                .filter(|state| Some(*state) != before.as_ref())
            {
                catalog.commit_cut(group, state)?;
            }
            Ok::<_, CatalogError>(state)
        })?;
        if let Some(meeting) = lock(&self.meetings.open).get_mut(group) {
            meeting.kept = kept;
        }
        Ok(())
    }

    fn at_meeting(&self, group: &Name, change: impl FnOnce(&mut Cut)) {
        let mut open = lock(&self.meetings.open);
        let Some(meeting) = open.get_mut(group).filter(|meeting| !meeting.over) else {
            return;
        };
        let before = meeting.cut.at();
        change(&mut meeting.cut);
        let at = meeting.cut.at();
        if at != before {
            // Under the lock: what is told later is newer.
            self.tell_lanes(group, at);
        }
    }

    fn tell_lanes(&self, group: &Name, at: Option<TimeMark>) {
        for (lane, handle) in self.handles() {
            if lane.group == *group {
                // Nobody to tell is a lane that has ended already.
                let _ = handle.tell.send(Told::Event(Event::Cut(at)));
            }
        }
    }
}
