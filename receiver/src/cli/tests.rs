//! `serve --new-journal`: what it gives up, and what it does not.

use super::*;
use crate::journal::{Found, JOURNAL_BYTES_MIN, JournalError, Limits, Writer, recover};
use std::path::PathBuf;
use tempfile::TempDir;
use wire::journal::JournalId;

/// A receiver that is set up, its journal bound.
fn site() -> (TempDir, PathBuf) {
    let site = tempfile::tempdir().unwrap();
    let dir = site.path().join("receiver");
    let init = ["init", "--listen", "127.0.0.1", "--journal-max", "256MiB"];
    verb(&dir, &init, |_, _| Ok(())).unwrap();
    catalog(&dir).bind_journal(7).unwrap();
    (site, dir)
}

fn verb(dir: &Path, args: &[&str], serve: Serve) -> Result<(), Failure> {
    let dir = dir.to_str().unwrap();
    let args = [&["ublk-tap-receiver", "--dir", dir], args].concat();
    run(Args::try_parse_from(args).unwrap(), serve)
}

fn catalog(dir: &Path) -> Catalog {
    Catalog::open(&Settings::load(dir).unwrap().catalog_path()).unwrap()
}

/// Begins the journal the catalog of [`site`] is bound to.
fn begin_journal(dir: &Path) -> Result<(), JournalError> {
    let path = Settings::load(dir).unwrap().journal_dir;
    let mut store = DirStore::open(&path)?;
    let recovered = recover(&mut store, &path, None, &mut |_: Found| {})?;
    let limits = Limits::for_bytes(JOURNAL_BYTES_MIN);
    Writer::start(store, path, recovered, limits, JournalId(7)).map(drop)
}

#[test]
fn a_journal_that_is_missing_is_refused_and_given_up_on_the_operators_word() {
    let (_site, dir) = site();
    let refused = verb(&dir, &["serve"], crate::daemon::run).unwrap_err();
    assert_eq!(refused.exit, Exit::Refused, "{}", refused.text);
    let journal = dir.join("journal");
    for said in [journal.to_str().unwrap(), "mount it", "--new-journal"] {
        assert!(refused.text.contains(said), "{said}: {}", refused.text);
    }
    assert_eq!(refused.text.lines().count(), 1);
    assert_eq!(catalog(&dir).journal_id().unwrap(), Some(7));

    verb(&dir, &["serve", "--new-journal"], |_, catalog| {
        assert_eq!(catalog.journal_id()?, None);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_journal_that_is_there_is_never_given_up() {
    let (_site, dir) = site();
    begin_journal(&dir).unwrap();
    let nobody: Serve = |_, _| panic!("it is not to serve");
    let refused = verb(&dir, &["serve", "--new-journal"], nobody).unwrap_err();
    assert_eq!(refused.exit, Exit::Refused, "{}", refused.text);
    assert!(refused.text.contains("without"), "{}", refused.text);
    assert_eq!(catalog(&dir).journal_id().unwrap(), Some(7));
}
