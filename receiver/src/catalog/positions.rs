//! Stream states: how far each group has come, and in which journal.

use super::codec::{JournalId, KnownRow};
use super::error::CatalogError;
use super::pools::change_map;
use super::records::{CutState, Lane, StreamState};
use super::store::{CUTS, Catalog, JOURNAL, KNOWN, OpenTable, POOLS, STREAMS, store, stored};
use crate::apply::Applied;
use wire::{Name, VolumeName};

impl Catalog {
    /// State of the stream of a source; none before its first session.
    pub fn stream(&self, lane: &Lane) -> Result<Option<StreamState>, CatalogError> {
        self.one(STREAMS, &lane.to_string())
    }

    /// Where the sources of the group met last; none if it has one, or they have not yet.
    pub fn cut(&self, group: &Name) -> Result<Option<CutState>, CatalogError> {
        self.one(CUTS, group.as_str())
    }

    /// Commits where the sources of the group meet.
    pub fn commit_cut(&self, group: &Name, cut: &CutState) -> Result<(), CatalogError> {
        self.change(|write| store(&mut write.open_table(CUTS)?, group.as_str(), cut))
    }

    /// Commits a state: a new horizon before a step is written, a new incarnation, other volumes.
    ///
    /// With it goes the cut that lets the base of a group with several sources go there.
    pub fn commit_stream(
        &self,
        lane: &Lane,
        state: &StreamState,
        cut: Option<&CutState>,
    ) -> Result<(), CatalogError> {
        self.change(|write| {
            if let Some(cut) = cut {
                store(&mut write.open_table(CUTS)?, lane.group.as_str(), cut)?;
            }
            advance(&mut write.open_table(STREAMS)?, lane, state)
        })
    }

    /// Commits a state whose step has been written and synced, with what the targets are known by
    /// and where the segments of pools lie.
    pub fn commit_applied(
        &self,
        lane: &Lane,
        state: &StreamState,
        applied: &Applied,
    ) -> Result<(), CatalogError> {
        self.change(|write| {
            let group = &lane.group;
            advance(&mut write.open_table(STREAMS)?, lane, state)?;
            let mut known = write.open_table(KNOWN)?;
            for (volume, blocks) in &applied.known {
                let name = VolumeName {
                    group: group.clone(),
                    volume: volume.clone(),
                };
                store(&mut known, &name.to_string(), &KnownRow(blocks.clone()))?;
            }
            let mut pools = write.open_table(POOLS)?;
            for (volume, changes) in &applied.maps {
                let name = VolumeName {
                    group: group.clone(),
                    volume: volume.clone(),
                };
                change_map(&mut pools, &name, changes)?;
            }
            Ok(())
        })
    }

    /// The journal this catalog belongs to; none before the first start.
    pub fn journal_id(&self) -> Result<Option<u128>, CatalogError> {
        let found: Option<JournalId> = self.one(JOURNAL, JOURNAL_KEY)?;
        Ok(found.map(|found| found.0))
    }

    /// Binds the catalog to a journal. One that is bound to another is refused: what it says holds
    /// only together with that one (P13).
    pub fn bind_journal(&self, id: u128) -> Result<(), CatalogError> {
        self.change(|write| {
            let mut table = write.open_table(JOURNAL)?;
            let bound: Option<JournalId> = stored(&table, JOURNAL_KEY)?;
            if bound.is_some_and(|bound| bound.0 != id) {
                return Err(CatalogError::OtherJournal);
            }
            store(&mut table, JOURNAL_KEY, &JournalId(id))
        })
    }

    /// Gives the journal up: the next start takes the one it finds, or begins one. What the
    /// catalog says of the base goes on to hold; what lay in the journal alone is gone.
    pub fn release_journal(&self) -> Result<(), CatalogError> {
        self.change(|write| {
            write.open_table(JOURNAL)?.remove(JOURNAL_KEY)?;
            Ok(())
        })
    }
}

const JOURNAL_KEY: &str = "id";

/// Replaces the state. Incarnations and time marks never go back, stamps not within an
/// incarnation.
fn advance(
    table: &mut OpenTable<'_>,
    lane: &Lane,
    state: &StreamState,
) -> Result<(), CatalogError> {
    let (applied, key) = (state.applied, lane.to_string());
    assert!(
        applied <= state.horizon,
        "applied {applied} past the horizon"
    );
    if let Some(before) = stored::<StreamState>(table, &key)? {
        let (old, new) = (before.incarnation, state.incarnation);
        assert!(
            old.counter <= new.counter,
            "incarnation {new} of {lane} after {old}"
        );
        assert!(
            before.last_mark <= state.last_mark,
            "the time mark of {lane} goes back"
        );
        if old == new {
            assert!(
                before.horizon <= state.horizon,
                "the horizon of {lane} goes back"
            );
            assert!(
                before.applied <= applied,
                "the applied stamp of {lane} goes back"
            );
        }
    }
    store(table, &key, state)
}
