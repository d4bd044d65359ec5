//! Combined: the status of a group with several sources, from those of its lanes and the cut. Pure.

use super::group::Now;
use crate::catalog::CutState;
use crate::control::{GroupStatus, PointRun, exact_time, iso_8601};
use crate::points::Cut;
use wire::{Name, TimeMark};

/// Modes, the one that counts for all first.
const MODES: [&str; 8] = [
    "failed",
    "refused",
    "behind",
    "frozen",
    "async",
    "first copy",
    "waiting",
    "stopped",
];

/// What status needs of a cut.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    oldest: Option<TimeMark>,
    newest: Option<TimeMark>,
    /// Whose lane keeps it where it is.
    holder: Option<Name>,
    parts: Vec<Name>,
    detached: Vec<Name>,
}

impl View {
    pub(super) fn of(cut: &Cut, lanes: &[Name]) -> Self {
        let such = |is: &dyn Fn(&Name) -> bool| {
            let lanes = lanes.iter().filter(|source| is(source));
            lanes.cloned().collect()
        };
        let oldest = cut.oldest();
        Self {
            oldest,
            newest: cut.at().filter(|_| oldest.is_some()),
            holder: cut.holder().map(|holder| holder.source),
            parts: such(&|source| cut.holds(source)),
            detached: such(&|source| cut.is_detached(source)),
        }
    }

    /// The points of the group: every time between the two is one, but where a source has none.
    pub(super) fn runs(&self) -> Vec<PointRun> {
        let (Some(oldest), Some(newest)) = (self.oldest, self.newest) else {
            return Vec::new();
        };
        vec![PointRun {
            first: exact_time(oldest),
            last: exact_time(newest),
            ..PointRun::default()
        }]
    }

    fn standing(&self, source: &str) -> &'static str {
        let is = |name: &Name| name.as_str() == source;
        if self.parts.iter().any(is) {
            "part"
        } else if self.detached.iter().any(is) {
            "detached"
        } else {
            "apart"
        }
    }

    /// What keeps the point, in words.
    fn held_by(&self, group: &str, lanes: &[GroupStatus]) -> Option<String> {
        let holder = self.holder.as_ref()?;
        let lane = lanes.iter().find(|lane| lane.source == holder.as_str());
        let why = lane.and_then(|lane| lane.held_by.clone());
        let why = why.unwrap_or_else(|| "nothing newer has come from it".into());
        Some(format!(
            "source {holder}: {why}; `ublk-tap-receiver detach {group} --source {holder}` lets the \
             others go on without it"
        ))
    }
}

/// The groups of lanes in their order; where their sources met last is in the catalog.
pub(crate) fn groups_of<E>(
    lanes: impl Iterator<Item = GroupStatus>,
    cut: impl Fn(&Name) -> Result<Option<CutState>, E>,
) -> Result<Vec<GroupStatus>, E> {
    let mut groups: Vec<Vec<GroupStatus>> = Vec::new();
    for lane in lanes {
        match groups.last_mut() {
            Some(group) if group[0].group == lane.group => group.push(lane),
            _ => groups.push(vec![lane]),
        }
    }
    let whole = |mut lanes: Vec<GroupStatus>| {
        if lanes.len() == 1 {
            return Ok(lanes.remove(0));
        }
        let names = lanes.iter().map(|lane| Name::new(&lane.source));
        let names: Vec<Name> = names.flatten().collect();
        let group = Name::new(&lanes[0].group).ok();
        let kept = group.map(|group| cut(&group)).transpose()?.flatten();
        let view = View::of(&kept.map(Cut::restore).unwrap_or_default(), &names);
        Ok(combine(lanes, &view, Now::default()))
    };
    groups.into_iter().map(whole).collect()
}

/// The group as a whole.
pub(super) fn combine(mut lanes: Vec<GroupStatus>, view: &View, now: Now) -> GroupStatus {
    for lane in &mut lanes {
        lane.standing = Some(view.standing(&lane.source).into());
    }
    let first = lanes.first().cloned().unwrap_or_default();
    let rank = |lane: &&GroupStatus| MODES.iter().position(|mode| *mode == lane.mode);
    let worst = lanes.iter().min_by_key(rank).cloned().unwrap_or_default();
    let seconds = |from: TimeMark, to: TimeMark| to.0.saturating_sub(from.0) as f64 / 1e9;
    let mut volumes: Vec<_> = lanes.iter().flat_map(|lane| lane.volumes.clone()).collect();
    volumes.sort_by(|one, other| one.volume.cmp(&other.volume));
    let sources: Vec<&str> = lanes.iter().map(|lane| lane.source.as_str()).collect();
    let source = sources.join(", ");
    GroupStatus {
        source,
        connected: lanes.iter().all(|lane| lane.connected),
        lag_bytes: lanes.iter().map(|lane| lane.lag_bytes).sum(),
        lag_seconds: lanes
            .iter()
            .map(|lane| lane.lag_seconds)
            .fold(0.0, f64::max),
        recoverable_to: view.newest.map(iso_8601),
        recoverable_age_seconds: view
            .newest
            .filter(|_| now.wall > TimeMark(0))
            .map(|mark| seconds(mark, now.wall)),
        held_by: view.held_by(&first.group, &lanes),
        recoverable_from: view.oldest.map(exact_time),
        window_seconds: view
            .oldest
            .zip(view.newest)
            .map(|(from, to)| seconds(from, to)),
        window_bytes: lanes.iter().map(|lane| lane.window_bytes).sum(),
        reason: worst
            .reason
            .map(|why| format!("source {}: {why}", worst.source)),
        mode: worst.mode,
        group: first.group,
        generation: first.generation,
        retain_seconds: first.retain_seconds,
        volumes,
        sources: lanes,
        ..GroupStatus::default()
    }
}
