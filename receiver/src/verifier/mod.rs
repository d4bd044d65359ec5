//! Verifier: reads journal, catalog and targets, and says what is wrong. Changes nothing.
//!
//! Owned by `fsck`; works while no daemon does, which the journal's lock proves. Every entry of
//! every segment is read, records by the checksum the shipper made (P9), and compared with the
//! indexes; the catalog is read from a copy in memory, every page and row; targets are opened for
//! reading, their identity and known blocks compared (P13).
//!
//! Does not: repair, read the whole of a target (nothing says what it should hold), reach sources.

mod report;

pub use report::{Finding, JournalReport, Report, VolumeReport};

use crate::catalog::{Catalog, CatalogError, VolumeRecord};
use crate::config::Settings;
use crate::failure::Failure;
use crate::journal::{DirStore, Durable, Found, JournalError, Replay, examine};
use crate::serve::Groups;
use crate::serve::group::Now;
use crate::target::examine_volume;
use std::fs;
use std::io;
use std::path::Path;
use wire::journal::JournalId;

/// How often the catalog is read until it is found the same twice: a verb may be at it.
const CATALOG_READS: usize = 10;

/// Looks at everything of the receiver. Fails if it cannot be looked at: it runs, or is not there.
pub fn verify(settings: &Settings) -> Result<Report, Failure> {
    let store = match DirStore::open_read_only(&settings.journal_dir) {
        Ok(store) => Some(store),
        Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let mut report = Report::default();
    let catalog = look_at_catalog(&settings.catalog_path(), &mut report)?;
    let groups = catalog.as_ref().map(Groups::registered).transpose();
    let groups = report.note("catalog", groups).flatten();
    let expected = catalog.as_ref().map(Catalog::journal_id).transpose();
    let expected = report.note("catalog", expected).flatten().flatten();
    look_at_journal(settings, store.as_ref(), expected, groups, &mut report);
    if let Some(catalog) = &catalog {
        look_at_rows(catalog, &mut report);
        let volumes = report.note("catalog", catalog.volumes());
        for volume in volumes.unwrap_or_default() {
            look_at_volume(&volume, &mut report);
        }
    }
    Ok(report)
}

fn look_at_catalog(path: &Path, report: &mut Report) -> Result<Option<Catalog>, Failure> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => CatalogError::Missing(path.to_owned()).into(),
        _ => Failure::new(
            crate::failure::io_exit(&error),
            format!("cannot read {}: {error}", path.display()),
        ),
    };
    let mut bytes = fs::read(path).map_err(missing)?;
    for _ in 0..CATALOG_READS {
        let again = fs::read(path).map_err(missing)?;
        if again == bytes {
            return Ok(report.note("catalog", Catalog::of_bytes(&bytes)));
        }
        bytes = again;
    }
    Err(CatalogError::InUse.into())
}

/// Rows nothing else here reads.
fn look_at_rows(catalog: &Catalog, report: &mut Report) {
    report.note("catalog", catalog.sources());
    report.note("catalog", catalog.tokens());
}

/// Counts what it passes on.
struct Counted<'a> {
    groups: Option<Groups>,
    report: &'a mut JournalReport,
}

impl Replay for Counted<'_> {
    fn found(&mut self, found: Found) {
        self.report.entries += 1;
        self.report.records += u64::from(matches!(found.durable, Durable::Record { .. }));
        if let Some(groups) = &mut self.groups {
            groups.found(found);
        }
    }
}

fn look_at_journal(
    settings: &Settings,
    store: Option<&DirStore>,
    expected: Option<u128>,
    groups: Option<Groups>,
    report: &mut Report,
) {
    let path = &settings.journal_dir;
    let Some(store) = store else {
        if expected.is_some() {
            report.wrong("journal", JournalError::Missing(path.clone()));
        }
        return;
    };
    let mut journal = JournalReport::default();
    let mut counted = Counted {
        groups,
        report: &mut journal,
    };
    let examined = examine(store, path, expected.map(JournalId), &mut counted);
    let groups = counted.groups;
    if let Some(recovered) = report.note("journal", examined) {
        (journal.segments, journal.bytes) = recovered.size();
        for damage in &recovered.damage {
            report.wrong("journal", damage);
        }
        let untold = recovered.damages - recovered.damage.len();
        if untold > 0 {
            report.wrong("journal", format!("{untold} more places are damaged"));
        }
    }
    report.journal = journal;
    report.groups = groups.map_or_else(Vec::new, |groups| groups.statuses(Now::default()));
    for group in &report.groups {
        let doubted = group
            .volumes
            .iter()
            .filter(|volume| volume.state == "doubt");
        for volume in doubted {
            let why = volume.reason.as_deref().unwrap_or("it is in doubt");
            let text = format!(
                "{}/{}: {why}; it will be copied again",
                group.group, volume.volume
            );
            report.wrong.push(Finding::new("base", text));
        }
    }
}

fn look_at_volume(record: &VolumeRecord, report: &mut Report) {
    let targets = record.targets.iter();
    report.volumes.push(VolumeReport {
        volume: record.name.to_string(),
        targets: targets
            .map(|target| target.path.display().to_string())
            .collect(),
    });
    let wrong = examine_volume(record).unwrap_or_else(|error| vec![error]);
    for error in wrong {
        report.wrong("base", format!("{}: {error}", record.name));
    }
}
