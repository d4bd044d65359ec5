//! Start: the catalog and the journal become running groups again.

use super::begin::{registered, start_group};
use super::combined::groups_of;
use super::group::{Event, Now, Restored};
use super::hub::{Hub, Router};
use super::messages::Told;
use crate::catalog::{Catalog, CatalogError, CutState, Lane, Standing, VolumeRecord};
use crate::config::Settings;
use crate::control::GroupStatus;
use crate::failure::Failure;
use crate::journal::{DirStore, Durable, Found, Journal, Limits, Replay, Writer, recover};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use wire::Name;
use wire::journal::{JournalId, StreamNumber};

/// Opens the journal, restores every group and starts their threads.
pub fn start(settings: &Settings, catalog: &Arc<Catalog>) -> Result<Arc<Hub>, Failure> {
    let mut groups = Groups::registered(catalog)?;
    let dir = settings.journal_dir.clone();
    let mut store = DirStore::open(&dir)?;
    let expected = catalog.journal_id()?.map(JournalId);
    let recovered = recover(&mut store, &dir, expected, &mut groups)?;
    for damage in &recovered.damage {
        tracing::error!(%damage, "the journal is damaged before its tail");
    }
    let told = recovered.damage.len();
    if recovered.damages > told {
        let total = recovered.damages;
        tracing::error!(
            total,
            told,
            "the journal is damaged in more places than are told"
        );
    }
    let next_stream = recovered.next_stream();
    let fresh = crate::secret::random::<16>()
        .map_err(|error| Failure::failed(format!("cannot read random bytes: {error}")))?;
    let fresh = JournalId(u128::from_le_bytes(fresh));
    let limits = Limits::for_bytes(settings.journal_bytes_max);
    let writer = Writer::start(store, dir.clone(), recovered, limits, fresh)?;
    catalog.bind_journal(writer.id().0)?;
    let hub = Arc::new(Hub::new(
        catalog.clone(),
        settings,
        next_stream,
        writer.segment_bytes(),
    ));
    let journal = Journal::start(writer, Box::new(Router(hub.clone())));
    let journal = journal.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    hub.set_journal(journal, dir);
    for stream in groups.strays {
        hub.journal().retire(stream);
    }
    let lanes: Vec<&Name> = groups.by_name.keys().map(|lane| &lane.group).collect();
    for pair in lanes.windows(2) {
        if pair[0] == pair[1] {
            hub.open_meeting(pair[0])?;
        }
    }
    hub.start_keeping()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    for (name, group) in groups.by_name {
        begin(&hub, &name, group, &groups.owners)?;
    }
    Ok(hub)
}

struct Waiting {
    restored: Restored,
    records: Vec<VolumeRecord>,
}

/// The groups of the catalog, being told what the journal holds.
pub(crate) struct Groups {
    by_name: BTreeMap<Lane, Waiting>,
    /// Where those with several sources met.
    cuts: BTreeMap<Name, CutState>,
    owners: BTreeMap<StreamNumber, Lane>,
    /// Streams of no group here.
    strays: Vec<StreamNumber>,
}

impl Groups {
    /// As the catalog has them.
    pub(crate) fn registered(catalog: &Catalog) -> Result<Self, CatalogError> {
        let mut records: BTreeMap<Lane, Vec<VolumeRecord>> = BTreeMap::new();
        for record in catalog.volumes()? {
            records.entry(record.lane()).or_default().push(record);
        }
        let (mut by_name, mut cuts) = (BTreeMap::new(), BTreeMap::new());
        let lanes: Vec<Lane> = records.keys().cloned().collect();
        for (name, records) in records {
            let mut restored = restored(catalog, &name, &records)?;
            if lanes.iter().filter(|lane| lane.group == name.group).count() > 1 {
                let cut = catalog.cut(&name.group)?;
                restored = restored.meeting(cut.as_ref().map(|cut| cut.at));
                let gone =
                    |cut: &CutState| cut.lanes.get(&name.source) == Some(&Standing::Detached);
                if cut.as_ref().is_some_and(gone) {
                    restored = restored.let_go();
                }
                cuts.extend(cut.map(|cut| (name.group.clone(), cut)));
            }
            by_name.insert(name, Waiting { restored, records });
        }
        Ok(Self {
            by_name,
            cuts,
            owners: BTreeMap::new(),
            strays: Vec::new(),
        })
    }

    /// What each would be, if the receiver were started now.
    pub(crate) fn statuses(self, now: Now) -> Vec<GroupStatus> {
        let groups = self.by_name.into_values();
        let status = |group: Waiting| group.restored.finish().0.status(now);
        let cuts = self.cuts;
        let cut = |group: &Name| Ok::<_, Infallible>(cuts.get(group).cloned());
        let Ok(groups) = groups_of(groups.map(status), cut);
        groups
    }
}

impl Replay for Groups {
    fn found(&mut self, found: Found) {
        let Found { stream, durable } = found;
        if let Durable::Open(open) = &durable {
            let lane = Lane {
                group: open.group.clone(),
                source: open.source.clone(),
            };
            self.owners.insert(stream, lane);
        }
        let owner = self.owners.get(&stream);
        match owner.and_then(|owner| self.by_name.get_mut(owner)) {
            Some(group) => group.restored.found(stream, durable),
            None if !self.strays.contains(&stream) => self.strays.push(stream),
            None => {}
        }
    }
}

/// A group as the catalog has it, nothing read from the journal yet.
fn restored(
    catalog: &Catalog,
    lane: &Lane,
    records: &[VolumeRecord],
) -> Result<Restored, CatalogError> {
    let base = catalog.stream(lane)?;
    let generation = catalog
        .group(&lane.group)?
        .map_or(0, |group| group.generation.counter);
    let volumes = records
        .iter()
        .map(|record| (record.name.volume.clone(), registered(record)));
    Ok(Restored::new(
        (lane.group.clone(), lane.source.clone()),
        volumes.collect(),
        base,
        generation,
    ))
}

fn begin(
    hub: &Arc<Hub>,
    name: &Lane,
    waiting: Waiting,
    owners: &BTreeMap<StreamNumber, Lane>,
) -> Result<(), Failure> {
    let (group, retired) = waiting.restored.retaining(hub.retain).finish();
    let mine = owners
        .iter()
        .filter(|(stream, owner)| *owner == name && !retired.contains(stream));
    for (stream, _) in mine {
        hub.own(*stream, name);
    }
    for stream in &retired {
        hub.journal().retire(*stream);
    }
    let begun = start_group(hub, group, &waiting.records);
    begun.map_err(|error| Failure::failed(format!("cannot start group {name}: {error}")))?;
    Ok(())
}

/// Starts the group of a volume that was registered just now.
pub(super) fn begin_fresh(hub: &Arc<Hub>, record: &VolumeRecord) -> Result<(), String> {
    let records = std::slice::from_ref(record);
    let lane = record.lane();
    let restored = restored(&hub.catalog, &lane, records);
    let mut restored = restored.map_err(|error| error.to_string())?;
    if hub
        .handles()
        .iter()
        .any(|(other, _)| other.group == lane.group)
    {
        let cut = hub.open_meeting(&lane.group);
        restored = restored.meeting(cut.map_err(|error| error.to_string())?);
    }
    let (group, _) = restored.retaining(hub.retain).finish();
    let handle = start_group(hub, group, &[]).map_err(|error| error.to_string())?;
    handle.open(record).map_err(|unopened| {
        // The registration is undone: the group stays, without the volume.
        let gone = Event::Removing(record.name.volume.clone());
        hub.tell(&lane, Told::Event(gone));
        unopened.reason
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use std::path::Path;

    fn site(dir: &Path) -> (Settings, Arc<Catalog>) {
        let settings = Settings {
            dir: dir.to_owned(),
            listen: "127.0.0.1:7800".parse().unwrap(),
            advertise: "a:1".into(),
            journal_dir: dir.join("journal"),
            journal_bytes_max: crate::journal::JOURNAL_BYTES_MIN,
            retain: std::time::Duration::ZERO,
            steps_bytes_max: crate::apply::STEPS_BYTES_MIN,
        };
        let catalog = Catalog::create(&settings.catalog_path()).unwrap();
        (settings, Arc::new(catalog))
    }

    #[test]
    fn a_journal_that_is_not_there_is_not_begun_anew_without_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let (settings, catalog) = site(dir.path());
        start(&settings, &catalog).unwrap().stop();
        let first = catalog.journal_id().unwrap();
        start(&settings, &catalog).unwrap().stop();
        assert_eq!(catalog.journal_id().unwrap(), first);

        std::fs::rename(&settings.journal_dir, dir.path().join("away")).unwrap();
        let refused = start(&settings, &catalog).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused, "{}", refused.text);
        assert!(refused.text.contains("--new-journal"), "{}", refused.text);
        let left = std::fs::read_dir(&settings.journal_dir).unwrap().count();
        assert_eq!((left, catalog.journal_id().unwrap()), (0, first));

        catalog.release_journal().unwrap();
        start(&settings, &catalog).unwrap().stop();
        let second = catalog.journal_id().unwrap();
        assert!(second.is_some() && second != first);
        start(&settings, &catalog).unwrap().stop();
    }
}
