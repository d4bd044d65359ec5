//! The verbs. The same whether the daemon runs or not.

use super::daemon::{Daemon, Hold};
use super::message::{Request, Response, TargetInfo, VolumeAdd, VolumeInfo};
use super::points::{At, Cursor};
use super::status::{SourceStatus, Status, exact_time};
use crate::catalog::{Bound, Catalog, Lane, Since, TargetRecord, TokenRecord, VolumeRecord};
use crate::config::Settings;
use crate::failure::{Exit, Failure};
use crate::secret;
use crate::target::{self, LayoutKind, NewVolume, POOL_SEGMENT_BYTES, Place, pool_bytes};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use wire::enrol::SECRET_BYTES;
use wire::{Generation, Name, Token, VolumeName};

/// Longest life of a token, in seconds.
const TOKEN_LIFE_S_MAX: u64 = 7 * 24 * 3600;

/// Carries out verbs over the catalog and the daemon.
pub struct Operator {
    settings: Settings,
    catalog: Arc<Catalog>,
    daemon: Arc<dyn Daemon>,
    /// Verbs that change something run one after the other.
    turn: Mutex<()>,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Operator {
    /// Verbs over an open catalog and the daemon, or what stands in for it.
    pub fn new(settings: Settings, catalog: Arc<Catalog>, daemon: Arc<dyn Daemon>) -> Self {
        Self {
            settings,
            catalog,
            daemon,
            turn: Mutex::new(()),
        }
    }

    /// Carries out a verb. A hold it acquires is put into `hold`, for the caller to keep.
    pub fn answer(&self, request: &Request, hold: &mut Option<Box<dyn Hold>>) -> Response {
        let done = match request {
            Request::Status => self.status(),
            Request::Token { source, expires_s } => self.token(source, *expires_s),
            Request::Revoke { source } => self.revoke(source),
            Request::VolumeAdd(add) => self.volume_add(add),
            Request::VolumeList => self.volume_list(),
            Request::VolumeRemove { volume } => self.volume_remove(volume),
            Request::Detach { group, source } => self.detach(group, source),
            Request::Points { group } => self.points(group),
            Request::Hold { volume, at } => self.hold(volume, at.as_deref(), hold),
            Request::Map { volume, page } => self.map(volume, *page),
            Request::Page { after } => page(hold.as_deref(), *after),
        };
        done.unwrap_or_else(|Failure { exit, text }| Response::Refused { exit, text })
    }

    fn status(&self) -> Result<Response, Failure> {
        let mut status = self.daemon.status();
        status.sources = self.sources()?;
        self.name_targets(&mut status)?;
        Ok(Response::Status(Box::new(status)))
    }

    fn sources(&self) -> Result<Vec<SourceStatus>, Failure> {
        let shown = |source: crate::catalog::SourceRecord| SourceStatus {
            source: source.name.to_string(),
            pin: source.pin.to_hex(),
            state: if source.revoked_unix_s.is_some() {
                "revoked"
            } else {
                "enrolled"
            }
            .into(),
        };
        Ok(self.catalog.sources()?.into_iter().map(shown).collect())
    }

    fn name_targets(&self, status: &mut Status) -> Result<(), Failure> {
        let records = self.catalog.volumes()?;
        for group in &mut status.groups {
            for volume in &mut group.volumes {
                let name = format!("{}/{}", group.group, volume.volume);
                let record = records
                    .iter()
                    .find(|record| record.name.to_string() == name);
                let targets = record
                    .map(|record| record.targets.as_slice())
                    .unwrap_or_default();
                volume.targets = targets
                    .iter()
                    .map(|t| t.path.display().to_string())
                    .collect();
                if let Some(record) = record.filter(|record| record.kind == LayoutKind::Pool) {
                    let used = self.catalog.pool_map(&record.name)?.len() as u64;
                    let bytes = targets.iter().map(|t| pool_bytes(t.identity.size_bytes()));
                    volume.pool_bytes = Some(bytes.sum());
                    volume.pool_used_bytes = Some(used * POOL_SEGMENT_BYTES);
                }
            }
        }
        Ok(())
    }

    fn token(&self, source: &str, expires_s: u64) -> Result<Response, Failure> {
        let source = name(source)?;
        if expires_s == 0 || expires_s > TOKEN_LIFE_S_MAX {
            return Err(Failure::usage("a token expires within 1 s to 7 days"));
        }
        let _turn = self.turn();
        let identity = link::Identity::load(&self.settings.identity_dir())
            .map_err(|error| Failure::failed(error.to_string()))?;
        let secret = random()?;
        let now_unix_s = now_unix_s();
        let expires_unix_s = now_unix_s.saturating_add(expires_s);
        let record = TokenRecord {
            source: source.clone(),
            expires_unix_s,
            used_unix_s: None,
        };
        self.catalog.add_token(&secret, &record, now_unix_s)?;
        let address = self.settings.advertise.clone();
        let token = Token {
            address,
            receiver: identity.pin(),
            secret,
            source,
        };
        Ok(Response::Token {
            token: token.to_string(),
        })
    }

    fn revoke(&self, source: &str) -> Result<Response, Failure> {
        let source = name(source)?;
        let _turn = self.turn();
        let fresh = self.catalog.revoke(&source, now_unix_s())?;
        self.daemon.revoked(&source);
        Ok(Response::Revoked { fresh })
    }

    fn volume_add(&self, add: &VolumeAdd) -> Result<Response, Failure> {
        let (volume, source) = (volume_name(&add.volume)?, name(&add.source)?);
        let VolumeAdd {
            size_bytes,
            sector_bytes,
            layout: kind,
            ..
        } = *add;
        let _turn = self.turn();
        let volumes = self.catalog.volumes()?;
        if volumes.iter().any(|known| known.name == volume) {
            return Err(crate::catalog::CatalogError::VolumeExists(volume).into());
        }
        let new = NewVolume {
            size_bytes,
            sector_bytes,
            kind,
            targets: add.targets.clone(),
        };
        let own = [
            self.settings.journal_dir.clone(),
            self.settings.identity_dir(),
            self.settings.catalog_path(),
        ];
        // Dropped on any error below: undoes what it created.
        let mut provision = target::provision(&new, &volumes, &own)?;
        let targets = provision.targets().to_vec();
        let name = volume;
        let record = VolumeRecord {
            name,
            source,
            size_bytes,
            sector_bytes,
            kind,
            disk: None,
            targets,
        };
        let lineage = u128::from_le_bytes(random()?);
        self.catalog.add_volume(
            &record,
            Generation {
                counter: 1,
                lineage,
            },
        )?;
        provision.unlock();
        if let Err(text) = self.daemon.volume_added(&record) {
            self.catalog.remove_volume(&record.name)?;
            return Err(Failure::refused(text));
        }
        provision.keep();
        Ok(Response::Added(VolumeInfo::new(&record)))
    }

    fn volume_list(&self) -> Result<Response, Failure> {
        let volumes = self
            .catalog
            .volumes()?
            .iter()
            .map(VolumeInfo::new)
            .collect();
        Ok(Response::Volumes { volumes })
    }

    fn volume_remove(&self, volume: &str) -> Result<Response, Failure> {
        let volume = volume_name(volume)?;
        let _turn = self.turn();
        if self.catalog.volume(&volume)?.is_none() {
            return Err(crate::catalog::CatalogError::NoVolume(volume).into());
        }
        self.daemon
            .volume_removing(&volume)
            .map_err(Failure::refused)?;
        let record = self.catalog.remove_volume(&volume)?;
        Ok(Response::Removed(VolumeInfo::new(&record)))
    }

    fn detach(&self, group: &str, source: &str) -> Result<Response, Failure> {
        let (group, source) = (name(group)?, name(source)?);
        let _turn = self.turn();
        self.daemon
            .detach(&Lane { group, source })
            .map_err(Failure::refused)?;
        Ok(Response::Detached)
    }

    fn points(&self, group: &str) -> Result<Response, Failure> {
        let group = name(group)?;
        if self.catalog.group_volumes(&group)?.is_empty() {
            return Err(Failure::refused(format!("there is no group {group} here")));
        }
        let runs = self.daemon.points(&group).map_err(Failure::refused)?;
        Ok(Response::Points { runs })
    }

    fn hold(
        &self,
        volume: &str,
        at: Option<&str>,
        hold: &mut Option<Box<dyn Hold>>,
    ) -> Result<Response, Failure> {
        if hold.is_some() {
            return Err(Failure::usage("this connection holds a volume already"));
        }
        let volume = volume_name(volume)?;
        let record = self.catalog.volume(&volume)?;
        let record = record.ok_or(crate::catalog::CatalogError::NoVolume(volume))?;
        let at = at.map_or(Ok(At::Newest), str::parse);
        let at = at.map_err(Failure::usage)?;
        let held = self.daemon.hold(&record.name, at);
        let held = held.map_err(Failure::refused)?;
        let (point, journal) = (held.point(), held.journal());
        *hold = Some(held);
        Ok(Response::Held {
            stamp: point.stamp.0,
            time: exact_time(point.mark),
            volume: VolumeInfo::new(&record),
            journal,
        })
    }

    fn map(&self, volume: &str, page: u32) -> Result<Response, Failure> {
        let (map, next) = self.catalog.pool_pages(&volume_name(volume)?, page)?;
        let map = map.into_iter();
        Ok(Response::Map {
            map: map
                .map(|(segment, place)| (segment, Place::pack(place)))
                .collect(),
            next,
        })
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VolumeInfo {
    fn new(record: &VolumeRecord) -> Self {
        let targets = record.targets.iter();
        let targets = targets.map(|target| TargetInfo {
            path: target.path.clone(),
            identity: target.identity.clone(),
        });
        Self {
            volume: record.name.to_string(),
            source: record.source.to_string(),
            size_bytes: record.size_bytes,
            sector_bytes: record.sector_bytes,
            layout: record.kind,
            disk: record.disk.as_ref().map(|disk| disk.identity.clone()),
            targets: targets.collect(),
        }
    }

    /// The volume as the catalog holds it.
    pub fn record(&self) -> Result<VolumeRecord, Failure> {
        let targets = self.targets.iter();
        let targets = targets.map(|target| TargetRecord {
            path: target.path.clone(),
            identity: target.identity.clone(),
            known: None,
        });
        Ok(VolumeRecord {
            name: volume_name(&self.volume)?,
            source: name(&self.source)?,
            size_bytes: self.size_bytes,
            sector_bytes: self.sector_bytes,
            kind: self.layout,
            disk: self.disk.clone().map(|identity| Bound {
                identity,
                since: Since::default(),
            }),
            targets: targets.collect(),
        })
    }
}

fn page(hold: Option<&dyn Hold>, after: Option<Cursor>) -> Result<Response, Failure> {
    let hold = hold.ok_or_else(|| Failure::usage("this connection holds no volume"))?;
    let page = hold.page(after).map_err(Failure::failed)?;
    Ok(Response::Page(page))
}

fn name(text: &str) -> Result<Name, Failure> {
    Name::new(text).map_err(|error| Failure::usage(format!("{text:?}: {error}")))
}

fn volume_name(text: &str) -> Result<VolumeName, Failure> {
    text.parse()
        .map_err(|error: wire::NameError| Failure::usage(format!("{text:?}: {error}")))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    const { assert!(N <= SECRET_BYTES) };
    secret::random().map_err(|error| Failure::new(Exit::Failed, format!("/dev/urandom: {error}")))
}

fn now_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
