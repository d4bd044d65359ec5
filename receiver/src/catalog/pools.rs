//! Maps of pools: where the segments of a volume lie. Changed with the applied stamp, never alone.

use super::codec::{MAP_PAGE_SEGMENTS, MapPage};
use super::error::CatalogError;
use super::store::{Catalog, OpenTable, POOLS, store, stored};
use crate::target::{MapChange, POOL_VOLUME_SEGMENTS_MAX};
use redb::ReadableTable;
use std::collections::BTreeMap;
use wire::VolumeName;

/// Pages of the largest volume.
const PAGES_MAX: u64 = POOL_VOLUME_SEGMENTS_MAX / MAP_PAGE_SEGMENTS as u64;

const _: () = assert!(PAGES_MAX <= u32::MAX as u64);

impl Catalog {
    /// The segments of a volume that lie somewhere.
    pub fn pool_map(&self, volume: &VolumeName) -> Result<Vec<MapChange>, CatalogError> {
        let mut map = Vec::new();
        let mut page = 0;
        loop {
            let (changes, next) = self.pool_pages(volume, page)?;
            map.extend(changes);
            match next {
                Some(next) => page = next,
                None => return Ok(map),
            }
        }
    }

    /// The same, from a page on, and the page to go on with.
    pub fn pool_pages(
        &self,
        volume: &VolumeName,
        first: u32,
    ) -> Result<(Vec<MapChange>, Option<u32>), CatalogError> {
        /// So that an answer on the control socket stays small.
        const PAGES: usize = 128;
        let mut map = Vec::new();
        let range = (key(volume, first), key(volume, u32::MAX));
        let rows: Vec<(String, MapPage)> = self.some(POOLS, &range.0, &range.1, PAGES)?;
        let last = rows.last().and_then(|(key, _)| page_of(key));
        let next = last.filter(|_| rows.len() == PAGES).map(|last| last + 1);
        for (key, MapPage(places)) in rows {
            let page = u64::from(page_of(&key).unwrap_or_default());
            let segments = page * MAP_PAGE_SEGMENTS as u64..;
            let places = segments.zip(places);
            map.extend(places.filter(|(_, place)| place.is_some()));
        }
        Ok((map, next))
    }
}

/// Changes the map of a volume.
pub(super) fn change_map(
    table: &mut OpenTable<'_>,
    volume: &VolumeName,
    changes: &[MapChange],
) -> Result<(), CatalogError> {
    let mut by_page: BTreeMap<u32, Vec<MapChange>> = BTreeMap::new();
    for change in changes {
        let page = change.0 / MAP_PAGE_SEGMENTS as u64;
        assert!(page < PAGES_MAX, "segment {} of a pool", change.0);
        by_page.entry(page as u32).or_default().push(*change);
    }
    for (page, changes) in by_page {
        let key = key(volume, page);
        let before: Option<MapPage> = stored(table, &key)?;
        let mut places = before.map_or([None; MAP_PAGE_SEGMENTS], |page| page.0);
        for (segment, place) in changes {
            places[segment as usize % MAP_PAGE_SEGMENTS] = place;
        }
        if places.iter().all(Option::is_none) {
            table.remove(key.as_str())?;
        } else {
            store(table, &key, &MapPage(places))?;
        }
    }
    Ok(())
}

/// Forgets the map of a volume.
pub(super) fn remove_map(
    table: &mut OpenTable<'_>,
    volume: &VolumeName,
) -> Result<(), CatalogError> {
    let (first, last) = (key(volume, 0), key(volume, u32::MAX));
    let mut keys = Vec::new();
    for row in table.range(first.as_str()..=last.as_str())? {
        keys.push(row?.0.value().to_owned());
    }
    for key in keys {
        table.remove(key.as_str())?;
    }
    Ok(())
}

fn key(volume: &VolumeName, page: u32) -> String {
    format!("{volume}/{page:08x}")
}

fn page_of(key: &str) -> Option<u32> {
    u32::from_str_radix(key.rsplit('/').next()?, 16).ok()
}
