//! Giving a new volume its targets: check everything first, then create what is missing.
//!
//! A [`Provision`] that is dropped without [`Provision::keep`] undoes what it created.

use super::error::TargetError;
use super::identity::{TargetIdentity, block_of, size_of};
use super::need::{Need, needs};
use super::open::{OpenTarget, open_exclusive};
use super::placement::LayoutKind;
use crate::catalog::{TargetRecord, VolumeRecord};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A volume to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its size.
    pub size_bytes: u64,
    /// Its logical sector.
    pub sector_bytes: u32,
    /// How it is to lie on them.
    pub kind: LayoutKind,
    /// Its targets, in layout order.
    pub targets: Vec<NewTarget>,
}

/// A target of a volume to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTarget {
    /// Where it is; absolute.
    pub path: PathBuf,
    /// How large to make it: a file of a pool that is not there.
    pub size_bytes: Option<u64>,
}

impl From<PathBuf> for NewTarget {
    fn from(path: PathBuf) -> Self {
        Self {
            path,
            size_bytes: None,
        }
    }
}

/// Targets checked and created, locked until this is dropped.
#[derive(Debug)]
pub struct Provision {
    targets: Vec<TargetRecord>,
    open: Vec<OpenTarget>,
    undo: Vec<Undo>,
}

/// What to do if the volume does not come to be.
#[derive(Debug)]
enum Undo {
    Remove(PathBuf),
    Empty(PathBuf),
}

/// A target that passed its checks.
enum Candidate {
    /// A file to be created.
    New { path: PathBuf, size_bytes: u64 },
    /// An empty file to be given its size.
    Empty { open: OpenTarget, size_bytes: u64 },
    /// A disk or file that is as it must be.
    Ready(OpenTarget),
}

/// Checks the targets of a new volume against the system and all `volumes` there are, keeping
/// out of the receiver's `own` directories; then creates the files that do not exist.
pub fn provision(
    new: &NewVolume,
    volumes: &[VolumeRecord],
    own: &[PathBuf],
) -> Result<Provision, TargetError> {
    let NewVolume {
        size_bytes,
        sector_bytes,
        kind,
        targets,
    } = new;
    let (size_bytes, sector_bytes) = (*size_bytes, *sector_bytes);
    if ![512, 4096].contains(&sector_bytes) {
        return Err(TargetError::Sector(sector_bytes));
    }
    let whole = size_bytes > 0 && size_bytes.is_multiple_of(u64::from(sector_bytes));
    if !whole || i64::try_from(size_bytes).is_err() {
        return Err(TargetError::Size {
            size_bytes,
            sector_bytes,
        });
    }
    let needs = needs(*kind, size_bytes, targets)?;
    let mut candidates: Vec<Candidate> = Vec::with_capacity(targets.len());
    for (NewTarget { path, .. }, need) in targets.iter().zip(needs) {
        refuse_own(path, own)?;
        refuse_taken(path, volumes)?;
        if candidates.iter().any(|other| overlap(path, other.path())) {
            return Err(TargetError::Twice(path.clone()));
        }
        candidates.push(candidate(path, need, sector_bytes)?);
    }
    create(candidates)
}

impl Provision {
    /// The targets, as the catalog is to hold them.
    pub fn targets(&self) -> &[TargetRecord] {
        &self.targets
    }

    /// Lets go of the locks, so that the daemon can open the targets.
    pub fn unlock(&mut self) {
        self.open.clear();
    }

    /// The volume is registered: keeps what was created.
    pub fn keep(mut self) {
        self.undo.clear();
    }
}

impl Drop for Provision {
    fn drop(&mut self) {
        self.open.clear();
        for undo in self.undo.drain(..) {
            let undone = match &undo {
                Undo::Remove(path) => fs::remove_file(path),
                Undo::Empty(path) => OpenOptions::new()
                    .write(true)
                    .open(path)
                    .and_then(|file| file.set_len(0)),
            };
            if let Err(error) = undone {
                tracing::warn!(?undo, %error, "cannot undo the creation of a target");
            }
        }
    }
}

impl Candidate {
    fn path(&self) -> &Path {
        match self {
            Self::New { path, .. } => path,
            Self::Empty { open, .. } | Self::Ready(open) => &open.path,
        }
    }
}

fn candidate(path: &Path, need: Need, sector_bytes: u32) -> Result<Candidate, TargetError> {
    let Some(metadata) = existing(path)? else {
        let parent = parent_of(path);
        if !parent.is_dir() {
            return Err(TargetError::NoDirectory(parent.to_owned()));
        }
        return Ok(Candidate::New {
            path: path.to_owned(),
            size_bytes: need.made_bytes(path)?,
        });
    };
    let open = open_exclusive(path, sector_bytes)?;
    let io = |error| TargetError::io("read", path, error);
    let found_bytes = size_of(&open.file).map_err(io)?;
    let path = path.to_owned();
    let needed_bytes = need.least_bytes();
    if block_of(&metadata).is_some() {
        let sector = rustix::fs::ioctl_blksszget(&open.file).map_err(|error| io(error.into()))?;
        if sector > sector_bytes {
            return Err(TargetError::CoarseSector {
                path,
                found_bytes: sector,
                sector_bytes,
            });
        }
        if found_bytes < needed_bytes {
            return Err(TargetError::Small {
                path,
                found_bytes,
                needed_bytes,
            });
        }
    } else if found_bytes == 0 {
        let size_bytes = need.made_bytes(&path)?;
        return Ok(Candidate::Empty { open, size_bytes });
    } else if !need.takes_file(found_bytes) {
        return Err(TargetError::OtherSize {
            path,
            found_bytes,
            needed_bytes,
        });
    }
    Ok(Candidate::Ready(open))
}

/// Creates and sizes the files, then reads all identities.
fn create(candidates: Vec<Candidate>) -> Result<Provision, TargetError> {
    let mut made = Provision {
        targets: Vec::new(),
        open: Vec::new(),
        undo: Vec::new(),
    };
    for candidate in candidates {
        let open = match candidate {
            Candidate::Ready(open) => open,
            Candidate::Empty { open, size_bytes } => {
                made.undo.push(Undo::Empty(open.path.clone()));
                set_size(&open.file, &open.path, size_bytes)?;
                open
            }
            Candidate::New { path, size_bytes } => {
                let file =
                    new_file(&path).map_err(|error| TargetError::io("create", &path, error))?;
                made.undo.push(Undo::Remove(path.clone()));
                set_size(&file, &path, size_bytes)?;
                OpenTarget {
                    file,
                    path,
                    used_bytes: 0,
                    direct: false,
                }
            }
        };
        let identity = TargetIdentity::of(&open.file);
        let identity = identity.map_err(|error| TargetError::io("read", &open.path, error))?;
        let identity = identity.ok_or_else(|| TargetError::Kind(open.path.clone()))?;
        if identity.is_weak() {
            let path = open.path.display();
            tracing::warn!(%path, "disk has no WWN, serial or UUID: bound by name and size");
        }
        made.targets.push(TargetRecord {
            path: open.path.clone(),
            identity,
            known: None,
        });
        made.open.push(open);
    }
    Ok(made)
}

fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Gives a file its size, durably, with its name.
fn set_size(file: &File, path: &Path, size_bytes: u64) -> Result<(), TargetError> {
    let done = file.set_len(size_bytes).and_then(|()| file.sync_all());
    let parent = parent_of(path);
    let synced = done.and_then(|()| File::open(parent)?.sync_all());
    synced.map_err(|error| TargetError::io("size", path, error))
}

fn refuse_own(path: &Path, own: &[PathBuf]) -> Result<(), TargetError> {
    let parent = path.parent().map(resolved);
    let inside = |own: &PathBuf| {
        let own = resolved(own);
        *path == own
            || parent
                .as_ref()
                .is_some_and(|parent| parent.starts_with(&own))
    };
    if own.iter().any(inside) {
        Err(TargetError::Own(path.to_owned()))
    } else {
        Ok(())
    }
}

fn refuse_taken(path: &Path, volumes: &[VolumeRecord]) -> Result<(), TargetError> {
    for volume in volumes {
        for target in &volume.targets {
            if overlap(path, &target.path) || is_bound(path, target)? {
                let volume = volume.name.clone();
                return Err(TargetError::Taken {
                    path: path.to_owned(),
                    volume,
                });
            }
        }
    }
    Ok(())
}

/// Whether what lies at `path` is the bound target, moved.
fn is_bound(path: &Path, target: &TargetRecord) -> Result<bool, TargetError> {
    let identity = match existing(path)? {
        Some(metadata) if metadata.is_file() || block_of(&metadata).is_some() => {
            File::open(path).and_then(|file| TargetIdentity::of(&file))
        }
        _ => return Ok(false),
    };
    let identity = identity.map_err(|error| TargetError::io("open", path, error))?;
    Ok(identity.is_some_and(|found| target.identity.is_same_object(&found)))
}

/// Whether two paths name the same file, or disks that share bytes.
fn overlap(one: &Path, other: &Path) -> bool {
    let both = (fs::metadata(one), fs::metadata(other));
    match (&both.0, &both.1) {
        (Ok(a), Ok(b)) => match (block_of(a), block_of(b)) {
            (Some(a), Some(b)) => a.overlaps(b),
            (None, None) => {
                use std::os::unix::fs::MetadataExt;
                (a.dev(), a.ino()) == (b.dev(), b.ino())
            }
            _ => false,
        },
        _ => normal(one) == normal(other),
    }
}

/// The path with its directory resolved: two spellings of a file that does not exist yet.
fn normal(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .and_then(|parent| fs::canonicalize(parent).ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn existing(path: &Path) -> Result<Option<fs::Metadata>, TargetError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TargetError::io("open", path, error)),
    }
}
