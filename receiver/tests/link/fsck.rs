//! `fsck`: finds what is wrong, changes nothing, and keeps off a receiver that runs.

use crate::damage::spoil;
use crate::run;
use crate::site::Site;
use crate::source::Source;
use crate::talk::open;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Every file below `dir`, and what it holds.
fn bytes_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(bytes_of(&path));
        } else {
            // A socket left behind has only its name.
            let bytes = if path.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            found.insert(path, bytes);
        }
    }
    found
}

/// Runs it, changing nothing: its exit code, its JSON.
fn fsck(site: &Site) -> (i32, serde_json::Value) {
    let before = bytes_of(&site.path(""));
    let output = site.command(&["fsck", "--json"]).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert!(bytes_of(&site.path("")) == before, "fsck changed something");
    (output.status.code().unwrap(), json)
}

/// A receiver that was killed with some records applied and some in its journal.
async fn killed() -> (Site, Source) {
    let mut site = Site::serving();
    let identity = site.enrol("db1").await;
    let mut source = Source::new(1);
    source.copy();
    let mut talk = open(&site, &identity, &source).await;
    talk.catch_up(&source).await;
    let before = source.last();
    for at in [1, 2, 3] {
        source.write(at);
    }
    let last = source.last();
    talk.batch(source.records(before, last)).await;
    talk.until(|ack| ack.durable == last).await;
    source.write(4);
    talk.batch(source.records(last, source.last())).await;
    talk.until(|ack| ack.durable == source.last()).await;
    site.kill();
    (site, source)
}

#[test]
fn a_sound_receiver_is_found_sound_after_a_kill_and_after_a_stop() {
    run(async {
        let (mut site, source) = killed().await;
        let (code, report) = fsck(&site);
        assert_eq!(
            (code, &report["wrong"]),
            (0, &serde_json::json!([])),
            "{report:#}"
        );
        assert_eq!(report["journal"]["records"], source.last().0);
        assert_eq!(report["groups"][0]["durable"], source.last().0);
        assert_eq!(report["volumes"][0]["volume"], "pg/data");
        site.start();
        site.stop();
        assert_eq!(fsck(&site).0, 0);
        let text = site.ok(&["fsck"]);
        assert!(text.ends_with("nothing is wrong\n"), "{text}");
    });
}

#[test]
fn a_receiver_that_runs_is_not_verified() {
    run(async {
        let site = Site::serving();
        let output = site.command(&["fsck"]).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("stop it first"), "{error}");
    });
}

#[test]
fn damage_of_journal_target_and_catalog_is_named_and_left_as_it_is() {
    run(async {
        let (site, source) = killed().await;
        let last = source.last();
        spoil(
            &site,
            &source.records(Default::default(), last)[last.0 as usize - 2],
        );
        let (code, report) = fsck(&site);
        assert_eq!(code, 1);
        let text = report["wrong"][0]["text"].as_str().unwrap();
        assert!(text.starts_with("journal segment 1 offset "), "{text}");

        // The block at 64 KiB is one the target is known by.
        let target = fs::OpenOptions::new()
            .write(true)
            .open(site.path("data.img"));
        target.unwrap().write_all_at(b"theirs", 64 << 10).unwrap();
        let (code, report) = fsck(&site);
        assert_eq!(
            (code, &report["wrong"][1]["part"]),
            (1, &"base".into()),
            "{report:#}"
        );

        let catalog = site.path("receiver/catalog.redb");
        let whole = fs::read(&catalog).unwrap();
        fs::write(&catalog, &whole[..whole.len() / 2]).unwrap();
        let (code, report) = fsck(&site);
        assert_eq!(
            (code, &report["wrong"][0]["part"]),
            (1, &"catalog".into()),
            "{report:#}"
        );

        fs::write(&catalog, &whole).unwrap();
        fs::rename(site.path("receiver/journal"), site.path("away")).unwrap();
        let (code, report) = fsck(&site);
        let text = report["wrong"][0]["text"].as_str().unwrap();
        assert!(code == 1 && text.contains("is not in"), "{text}");
    });
}
