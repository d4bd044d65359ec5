//! The receiver's host: what survives a receiver, and what one at work holds.

use super::super::source::{group_name, volume_name};
use super::super::tap::garbage;
use crate::disk::{SimStore, Target};
use crate::faults::Mix;
use bytes::Bytes;
use receiver::apply::Applier;
use receiver::catalog::StreamState;
use receiver::journal::{Durable, Entry, Writer};
use receiver::serve::group::{Group, Job, Output, SessionId};
use receiver::target::Layout;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::journal::StreamNumber;
use wire::{RecordHeader, Stamp, VolumeName};

/// The receiver's host.
pub(in crate::world) struct Site {
    /// Files of the journal.
    pub(in crate::world) store: SimStore,
    /// Its targets.
    pub(in crate::world) targets: Vec<Target>,
    /// What the catalog says of the group.
    pub(in crate::world) catalog: Option<StreamState>,
    /// Whether the catalog is bound to the journal.
    pub(in crate::world) is_bound: bool,
    /// How often a receiver has begun.
    pub(in crate::world) life: u64,
    /// The receiver, while it runs.
    pub(in crate::world) daemon: Option<Daemon>,
    /// How much slower the journal is.
    pub(in crate::world) slowness: u64,
    /// The receiver dies in the next step, there.
    pub(in crate::world) cut_in_step: Option<u64>,
    /// There is no room for the next step, which is found before it is begun.
    pub(in crate::world) is_pool_full: bool,
    /// Lowest free numbers.
    pub(in crate::world) next_session: SessionId,
    pub(in crate::world) next_stream: u64,
    /// Per incarnation counter: contiguous durable stamps, and those beyond.
    pub(in crate::world) durable: BTreeMap<u64, (u64, BTreeSet<u64>)>,
    pub(in crate::world) owners: BTreeMap<StreamNumber, u64>,
}

/// A receiver at work.
pub(in crate::world) struct Daemon {
    /// What decides.
    pub(in crate::world) group: Group,
    pub(in crate::world) writer: Writer<SimStore>,
    pub(in crate::world) applier: Applier,
    pub(in crate::world) queue: VecDeque<Entry>,
    pub(in crate::world) applied: BTreeMap<StreamNumber, Stamp>,
    pub(in crate::world) retired: Vec<StreamNumber>,
    pub(in crate::world) sessions: BTreeMap<SessionId, u64>,
    pub(in crate::world) waiting: VecDeque<(SessionId, Vec<(RecordHeader, Bytes)>)>,
    pub(in crate::world) job: Option<Job>,
    /// What holds are answered with.
    pub(in crate::world) held: Vec<Output>,
    pub(in crate::world) is_full: bool,
    pub(in crate::world) pressed: Option<u64>,
    pub(in crate::world) begun_ns: u64,
    pub(in crate::world) commit_scheduled: bool,
    pub(in crate::world) tick_ns: u64,
    pub(in crate::world) has_failed: bool,
}

impl Site {
    /// A host with empty journal and garbage on its targets.
    pub(in crate::world) fn new(mix: &Mix) -> Self {
        let volumes = mix.volumes.iter().enumerate();
        let targets = volumes.map(|(n, sectors)| Target::new(garbage(n, *sectors)));
        Self {
            store: SimStore::default(),
            targets: targets.collect(),
            catalog: None,
            is_bound: false,
            life: 0,
            daemon: None,
            slowness: 1,
            cut_in_step: None,
            is_pool_full: false,
            next_session: 0,
            next_stream: 1,
            durable: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// Whether somebody answers there.
    pub(in crate::world) fn is_up(&self) -> bool {
        self.daemon.is_some()
    }

    /// Contiguous records of an incarnation that were written and synced.
    pub(in crate::world) fn durable_prefix(&self, counter: u64) -> Stamp {
        Stamp(self.durable.get(&counter).map_or(0, |(prefix, _)| *prefix))
    }

    pub(in crate::world) fn note_durable(&mut self, stream: StreamNumber, durable: &Durable) {
        if let Durable::Open(open) = durable {
            self.owners.insert(stream, open.incarnation.counter);
        }
        let (Durable::Record { header, .. }, Some(counter)) = (durable, self.owners.get(&stream))
        else {
            return;
        };
        let (prefix, beyond) = self.durable.entry(*counter).or_default();
        beyond.insert(header.stamp.0);
        while beyond.remove(&(*prefix + 1)) {
            *prefix += 1;
        }
    }
}

impl Daemon {
    pub(in crate::world) fn open_targets(applier: &mut Applier, targets: &[Target], mix: &Mix) {
        for (volume, target) in targets.iter().enumerate() {
            let name = VolumeName {
                group: group_name(),
                volume: volume_name(volume),
            };
            applier.remove(&name);
            let size_bytes = mix.volumes[volume] as u64 * 512;
            let layout = Layout::new(size_bytes, 1).expect("one target");
            applier.add_disks(name, layout, 512, vec![Box::new(target.disk())]);
        }
    }
}
