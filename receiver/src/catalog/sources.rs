//! Tokens and sources: who may connect.

use super::error::{CatalogError, RedeemError};
use super::records::{SourceRecord, TokenRecord};
use super::store::{Catalog, OpenTable, SOURCES, TOKENS, decode, store, stored};
use super::{SOURCES_MAX, TOKENS_MAX};
use crate::secret;
use redb::{ReadableTable, ReadableTableMetadata};
use wire::enrol::SECRET_BYTES;
use wire::{Name, Pin};

impl Catalog {
    /// Remembers a token under the digest of its secret. Tokens that have expired at `now_unix_s`
    /// are forgotten; a used one, if its place is needed.
    pub fn add_token(
        &self,
        secret: &[u8; SECRET_BYTES],
        token: &TokenRecord,
        now_unix_s: u64,
    ) -> Result<(), CatalogError> {
        self.change(|write| {
            let mut table = write.open_table(TOKENS)?;
            let expired = |token: &TokenRecord| token.expires_unix_s <= now_unix_s;
            forget(&mut table, expired, usize::MAX)?;
            if table.len()? >= TOKENS_MAX as u64 {
                forget(&mut table, |token| token.used_unix_s.is_some(), 1)?;
            }
            if table.len()? >= TOKENS_MAX as u64 {
                return Err(CatalogError::Full {
                    what: "open tokens",
                    limit: TOKENS_MAX,
                });
            }
            store(&mut table, &key_of(secret), token)
        })
    }

    /// Redeems a token: marks it used and enrols `pin` as its source, in one transaction.
    ///
    /// A source that is enrolled again has the new pin only, and is no longer revoked.
    pub fn redeem(
        &self,
        secret: &[u8; SECRET_BYTES],
        source: &Name,
        pin: Pin,
        now_unix_s: u64,
    ) -> Result<SourceRecord, RedeemError> {
        self.change(|write| {
            let mut tokens = write.open_table(TOKENS).map_err(CatalogError::from)?;
            let key = key_of(secret);
            let mut token: TokenRecord = stored(&tokens, &key)?.ok_or(RedeemError::Unknown)?;
            token.redeemable(source, now_unix_s)?;
            token.used_unix_s = Some(now_unix_s);
            store(&mut tokens, &key, &token)?;

            let mut sources = write.open_table(SOURCES).map_err(CatalogError::from)?;
            pin_is_free(&sources, source, pin)?;
            let record = SourceRecord {
                name: source.clone(),
                pin,
                enrolled_unix_s: now_unix_s,
                revoked_unix_s: None,
            };
            store(&mut sources, source.as_str(), &record)?;
            if sources.len().map_err(CatalogError::from)? > SOURCES_MAX as u64 {
                return Err(CatalogError::Full {
                    what: "sources",
                    limit: SOURCES_MAX,
                }
                .into());
            }
            Ok(record)
        })
    }

    /// One source.
    pub fn source(&self, name: &Name) -> Result<Option<SourceRecord>, CatalogError> {
        self.one(SOURCES, name.as_str())
    }

    /// The source with this certificate: the enrolled one, else one that was revoked.
    pub fn source_by_pin(&self, pin: Pin) -> Result<Option<SourceRecord>, CatalogError> {
        let mut found: Vec<SourceRecord> = self.sources()?;
        found.retain(|source| source.pin == pin);
        found.sort_by_key(|source| source.revoked_unix_s.is_some());
        Ok(found.into_iter().next())
    }

    /// All tokens there are.
    pub fn tokens(&self) -> Result<Vec<TokenRecord>, CatalogError> {
        self.all(TOKENS)
    }

    /// All sources, by name.
    pub fn sources(&self) -> Result<Vec<SourceRecord>, CatalogError> {
        self.all(SOURCES)
    }

    /// Revokes a source and every token for it that is still open. False if it was revoked before.
    pub fn revoke(&self, name: &Name, now_unix_s: u64) -> Result<bool, CatalogError> {
        self.change(|write| {
            let mut tokens = write.open_table(TOKENS)?;
            forget(&mut tokens, |token| token.source == *name, usize::MAX)?;
            let mut sources = write.open_table(SOURCES)?;
            let found: Option<SourceRecord> = stored(&sources, name.as_str())?;
            let mut record = found.ok_or_else(|| CatalogError::NoSource(name.clone()))?;
            let fresh = record.revoked_unix_s.is_none();
            record.revoked_unix_s = record.revoked_unix_s.or(Some(now_unix_s));
            store(&mut sources, name.as_str(), &record)?;
            Ok(fresh)
        })
    }
}

/// Removes at most `most` of the tokens that are such.
fn forget(
    tokens: &mut OpenTable<'_>,
    such: impl Fn(&TokenRecord) -> bool,
    most: usize,
) -> Result<(), CatalogError> {
    let mut found = Vec::new();
    for row in tokens.iter()? {
        let (key, bytes) = row?;
        if such(&decode(key.value(), bytes.value())?) {
            found.push(key.value().to_owned());
        }
    }
    for key in found.into_iter().take(most) {
        tokens.remove(key.as_str())?;
    }
    Ok(())
}

impl TokenRecord {
    fn redeemable(&self, source: &Name, now_unix_s: u64) -> Result<(), RedeemError> {
        if self.source != *source {
            return Err(RedeemError::Unknown);
        }
        if self.used_unix_s.is_some() {
            return Err(RedeemError::Used);
        }
        if self.expires_unix_s <= now_unix_s {
            return Err(RedeemError::Expired);
        }
        Ok(())
    }
}

/// One certificate is one source: authorisation goes by the pin.
fn pin_is_free(sources: &OpenTable<'_>, source: &Name, pin: Pin) -> Result<(), RedeemError> {
    for row in sources.iter().map_err(CatalogError::from)? {
        let (key, bytes) = row.map_err(CatalogError::from)?;
        let other: SourceRecord = decode(key.value(), bytes.value())?;
        if other.pin == pin && other.name != *source && other.revoked_unix_s.is_none() {
            return Err(RedeemError::PinTaken(other.name));
        }
    }
    Ok(())
}

fn key_of(secret: &[u8; SECRET_BYTES]) -> String {
    Pin(secret::digest(secret)).to_hex()
}
