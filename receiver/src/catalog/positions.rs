//! Stream states: how far each group has come.

use super::codec::KnownRow;
use super::error::CatalogError;
use super::records::StreamState;
use super::store::{Catalog, KNOWN, OpenTable, STREAMS, store, stored};
use crate::apply::Applied;
use wire::{Name, VolumeName};

impl Catalog {
    /// State of the stream of a group; none before its first session.
    pub fn stream(&self, group: &Name) -> Result<Option<StreamState>, CatalogError> {
        self.one(STREAMS, group.as_str())
    }

    /// Commits a state: a new horizon before a step is written, a new incarnation, other volumes.
    pub fn commit_stream(&self, group: &Name, state: &StreamState) -> Result<(), CatalogError> {
        self.change(|write| advance(&mut write.open_table(STREAMS)?, group, state))
    }

    /// Commits a state whose step has been written and synced, with what the targets are known by.
    pub fn commit_applied(
        &self,
        group: &Name,
        state: &StreamState,
        applied: &Applied,
    ) -> Result<(), CatalogError> {
        self.change(|write| {
            advance(&mut write.open_table(STREAMS)?, group, state)?;
            let mut known = write.open_table(KNOWN)?;
            for (volume, blocks) in &applied.known {
                let name = VolumeName {
                    group: group.clone(),
                    volume: volume.clone(),
                };
                store(&mut known, &name.to_string(), &KnownRow(blocks.clone()))?;
            }
            Ok(())
        })
    }
}

/// Replaces the state; within an incarnation nothing goes back, and incarnations do not either.
fn advance(
    table: &mut OpenTable<'_>,
    group: &Name,
    state: &StreamState,
) -> Result<(), CatalogError> {
    assert!(
        state.applied <= state.horizon,
        "applied {} past the horizon",
        state.applied
    );
    if let Some(before) = stored::<StreamState>(table, group.as_str())? {
        let (old, new) = (before.incarnation, state.incarnation);
        assert!(
            old.counter <= new.counter,
            "incarnation {new} of {group} after {old}"
        );
        if old == new {
            assert!(
                before.horizon <= state.horizon,
                "the horizon of {group} goes back"
            );
            assert!(
                before.applied <= state.applied,
                "the applied stamp of {group} goes back"
            );
            assert!(
                before.last_mark <= state.last_mark,
                "the time mark of {group} goes back"
            );
        }
    }
    store(table, group.as_str(), state)
}
