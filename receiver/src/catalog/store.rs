//! The file: opening, tables, and typed reading and writing for the other parts of the catalog.

use super::codec::Value;
use super::error::CatalogError;
use redb::backends::InMemoryBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};
use std::path::Path;
use wire::DecodeError;

/// A table of versioned values by name.
pub(super) type Table = TableDefinition<'static, &'static str, &'static [u8]>;
/// The same, open for writing.
pub(super) type OpenTable<'txn> = redb::Table<'txn, &'static str, &'static [u8]>;

/// Tokens, by the digest of their secret in hexadecimal.
pub(super) const TOKENS: Table = TableDefinition::new("tokens");
/// Sources, by name.
pub(super) const SOURCES: Table = TableDefinition::new("sources");
/// Groups, by name.
pub(super) const GROUPS: Table = TableDefinition::new("groups");
/// Volumes, by GROUP/VOLUME.
pub(super) const VOLUMES: Table = TableDefinition::new("volumes");
/// Stream states, by GROUP/SOURCE.
pub(super) const STREAMS: Table = TableDefinition::new("streams");
/// Where the sources of a group meet, by group.
pub(super) const CUTS: Table = TableDefinition::new("cuts");
/// Known blocks, by GROUP/VOLUME.
pub(super) const KNOWN: Table = TableDefinition::new("known");
/// Maps of pools, by GROUP/VOLUME/PAGE.
pub(super) const POOLS: Table = TableDefinition::new("pools");
/// The journal, by a fixed key.
pub(super) const JOURNAL: Table = TableDefinition::new("journal");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

const VERSION: u64 = 1;
const VERSION_KEY: &str = "version";
const CACHE_BYTES_MAX: usize = 8 << 20;

/// The open catalog.
#[derive(Debug)]
pub struct Catalog {
    database: Database,
}

impl Catalog {
    /// Makes a new catalog; an existing file is refused.
    pub fn create(path: &Path) -> Result<Self, CatalogError> {
        if path.exists() {
            return Err(CatalogError::Exists(path.to_owned()));
        }
        let database = builder().create(path).map_err(open_error)?;
        let write = database.begin_write()?;
        let tables = [
            TOKENS, SOURCES, GROUPS, VOLUMES, STREAMS, CUTS, KNOWN, POOLS, JOURNAL,
        ];
        for table in tables {
            write.open_table(table)?;
        }
        write.open_table(META)?.insert(VERSION_KEY, VERSION)?;
        write.commit()?;
        Ok(Self { database })
    }

    /// Opens the catalog; its pages are checked first.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        if !path.exists() {
            return Err(CatalogError::Missing(path.to_owned()));
        }
        Self::checked(builder().open(path).map_err(open_error)?)
    }

    /// The catalog as its file's bytes are: all in memory, the file is not touched. What a crash
    /// left to be repaired is repaired in memory.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, CatalogError> {
        let memory = InMemoryBackend::new();
        let filled = memory
            .set_len(bytes.len() as u64)
            .and_then(|()| memory.write(0, bytes));
        filled.map_err(|error| CatalogError::Storage(error.into()))?;
        if bytes.is_empty() {
            // Which would be taken for one that is to be made.
            let none = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(CatalogError::Storage(none.into()));
        }
        let opened = builder().create_with_backend(memory);
        Self::checked(opened.map_err(open_error)?)
    }

    fn checked(database: Database) -> Result<Self, CatalogError> {
        let version = database.begin_read()?.open_table(META)?.get(VERSION_KEY)?;
        let version = version.map_or(0, |found| found.value());
        if version != VERSION {
            return Err(CatalogError::Version(version));
        }
        Ok(Self { database })
    }

    /// One value.
    pub(super) fn one<V: Value>(&self, table: Table, key: &str) -> Result<Option<V>, CatalogError> {
        let table = self.database.begin_read()?.open_table(table)?;
        let found = table.get(key)?;
        found.map(|bytes| decode(key, bytes.value())).transpose()
    }

    /// All values, by key.
    pub(super) fn all<V: Value>(&self, table: Table) -> Result<Vec<V>, CatalogError> {
        let table = self.database.begin_read()?.open_table(table)?;
        let mut values = Vec::new();
        for row in table.iter()? {
            let (key, bytes) = row?;
            values.push(decode(key.value(), bytes.value())?);
        }
        Ok(values)
    }

    /// The first `count` values from one key to another, with their keys.
    pub(super) fn some<V: Value>(
        &self,
        table: Table,
        first: &str,
        last: &str,
        count: usize,
    ) -> Result<Vec<(String, V)>, CatalogError> {
        let table = self.database.begin_read()?.open_table(table)?;
        let mut values = Vec::new();
        for row in table.range(first..=last)?.take(count) {
            let (key, bytes) = row?;
            let value = decode(key.value(), bytes.value())?;
            values.push((key.value().to_owned(), value));
        }
        Ok(values)
    }

    /// Runs `change` in one durable transaction; an error changes nothing.
    pub(super) fn change<T, E: From<CatalogError>>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let write = self.database.begin_write().map_err(CatalogError::from)?;
        // Dropped without commit on an error: aborted.
        let outcome = change(&write)?;
        write.commit().map_err(CatalogError::from)?;
        Ok(outcome)
    }
}

/// One value of a table that is open for writing.
pub(super) fn stored<V: Value>(
    table: &OpenTable<'_>,
    key: &str,
) -> Result<Option<V>, CatalogError> {
    let found = table.get(key)?;
    found.map(|bytes| decode(key, bytes.value())).transpose()
}

/// Puts a value.
pub(super) fn store<V: Value>(
    table: &mut OpenTable<'_>,
    key: &str,
    value: &V,
) -> Result<(), CatalogError> {
    table.insert(key, value.encode().as_slice())?;
    Ok(())
}

/// Decodes a value read under `key`.
pub(super) fn decode<V: Value>(key: &str, bytes: &[u8]) -> Result<V, CatalogError> {
    let (what, key_of) = (V::WHAT, || key.to_owned());
    V::decode(key, bytes).map_err(|reason| match reason {
        DecodeError::UnknownVersion(_) => CatalogError::RowVersion {
            what,
            key: key_of(),
            reason,
        },
        _ => CatalogError::Damaged {
            what,
            key: key_of(),
            reason,
        },
    })
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder
        .set_cache_size(CACHE_BYTES_MAX)
        .set_check_integrity_on_open(true);
    builder
}

fn open_error(error: DatabaseError) -> CatalogError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => CatalogError::InUse,
        other => CatalogError::Storage(other.into()),
    }
}
