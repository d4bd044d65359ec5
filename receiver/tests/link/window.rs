//! The retention window: every point in it can be had, whatever happens to the receiver (P4, P7).

use crate::site::Site;
use crate::source::Source;
use crate::talk::{assert_image, open};
use crate::{Dice, run};
use receiver::control::{Client, Request, Response};
use std::path::Path;
use std::time::Duration;
use wire::Stamp;

/// A receiver that keeps points for an hour, and a source that is copied.
async fn begun(site: &Site) -> (link::Identity, Source) {
    let identity = site.enrol("db1").await;
    let mut source = Source::new(1);
    source.copy();
    open(site, &identity, &source).await.catch_up(&source).await;
    (identity, source)
}

fn runs(site: &Site) -> Vec<(u64, u64)> {
    let said = site.ok(&["points", "pg", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let stamp = |run: &serde_json::Value, name: &str| run[name].as_u64().unwrap();
    let runs = said["runs"].as_array().unwrap().iter();
    let runs: Vec<_> = runs
        .map(|run| (stamp(run, "first_stamp"), stamp(run, "last_stamp")))
        .collect();
    let points: u64 = runs.iter().map(|(first, last)| last - first + 1).sum();
    assert_eq!(said["points"], points);
    runs
}

/// Exports `pg/data` at a point; what the file holds.
fn export(site: &Site, at: &str) -> Vec<u8> {
    let file = "exported.img";
    site.ok(&["volume", "export", "pg/data", file, "--at", at]);
    let image = site.image(file);
    std::fs::remove_file(site.path(file)).unwrap();
    image
}

fn assert_export(site: &Site, source: &Source, at: &str, stamp: u64) {
    let (found, expected) = (export(site, at), source.image_at(Stamp(stamp)));
    assert!(
        found == expected,
        "exported at {at}: not that of record {stamp}"
    );
}

#[test]
fn every_point_in_the_window_can_be_exported_also_after_a_kill_and_the_targets_trail() {
    run(async {
        let mut site = Site::retaining("1h");
        let (identity, mut source) = begun(&site).await;
        let first = source.last();
        let mut dice = Dice::new(7);
        // None is refused: between one that is and the record that covers it there is no point.
        for _ in 0..60 {
            source.write(dice.roll(16));
        }
        let mut talk = open(&site, &identity, &source).await;
        talk.send_rest(&source).await;
        let last = source.last();
        talk.until(|ack| ack.settled == last && ack.durable == last)
            .await;
        let all = [(first.0, last.0)];
        site.eventually("all are points", || runs(&site) == all)
            .await;
        assert_image(&site, &source, first, "the targets hold the oldest");
        assert_export(&site, &source, "newest", last.0);
        assert_export(&site, &source, "oldest", first.0);
        let status = site.group();
        assert_eq!(status["applied"], first.0);
        assert_eq!(status["recoverable_stamp"], last.0);
        assert_eq!(status["points"], last.0 - first.0 + 1);
        assert_eq!(status["retain_seconds"], 3600);
        site.kill();
        site.start();
        assert_eq!(runs(&site), all);
        for stamp in [first.0 + 1, first.0 + 30, last.0 - 1] {
            assert_export(&site, &source, &stamp.to_string(), stamp);
        }
        let refused = site
            .command(&["volume", "export", "pg/data", "f", "--at", "1"])
            .output();
        let refused = refused.unwrap();
        assert_eq!(refused.status.code(), Some(3));
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(
            said.contains("points pg") && said.lines().count() == 1,
            "{said}"
        );
        assert!(!Path::new(&site.path("f")).exists());

        drop(talk);
        site.stop();
        assert_image(
            &site,
            &source,
            first,
            "stopped, the targets hold the oldest",
        );
        let refused = site
            .command(&["volume", "export", "pg/data", "f"])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert_export(&site, &source, "oldest", first.0);
    });
}

#[test]
fn a_point_is_found_by_its_time() {
    run(async {
        let site = Site::retaining("1h");
        let (identity, mut source) = begun(&site).await;
        for at in 0..20 {
            source.write(at);
        }
        let mut talk = open(&site, &identity, &source).await;
        talk.send_rest(&source).await;
        let last = source.last();
        talk.until(|ack| ack.settled == last && ack.durable == last)
            .await;
        site.eventually("the points", || {
            runs(&site).last().is_some_and(|run| run.1 == last.0)
        })
        .await;
        // The source's marks are a millisecond apart, from 1,700,000,000 s on.
        let at = format!("2023-11-14T22:13:20.{:03}5Z", last.0 - 7);
        assert_export(&site, &source, &at, last.0 - 7);
    });
}

#[test]
fn a_journal_that_fills_lets_the_oldest_points_go_and_a_kill_anywhere_leaves_the_rest() {
    run(async {
        let mut site = Site::retaining("1h");
        let (identity, mut source) = begun(&site).await;
        let begin = source.last();
        let mut dice = Dice::new(3);
        let mut talk = open(&site, &identity, &source).await;
        let mut sent = source.last();
        for round in 0..340 {
            source.write(round % 64);
            source.overwrite();
            let last = source.last();
            talk.batch(source.records(sent, last)).await;
            talk.settle(source.mark(sent, last)).await;
            talk.until(|ack| ack.settled == last && ack.durable == last)
                .await;
            sent = last;
            if round % 60 == 59 {
                tokio::time::sleep(Duration::from_millis(dice.roll(150) as u64)).await;
                site.kill();
                site.start();
                let held = runs(&site);
                let (oldest, newest) = (held[0].0, held.last().unwrap().1);
                assert_eq!(newest, last.0, "round {round}");
                let between = oldest + (newest - oldest) / 2;
                for stamp in [oldest, between, newest] {
                    assert_export(&site, &source, &stamp.to_string(), stamp);
                }
                talk = open(&site, &identity, &source).await;
                assert_eq!(talk.greeted.resume, last);
            }
        }
        let oldest = runs(&site)[0].0;
        assert!(oldest > begin.0, "340 MiB do not fit 256 MiB");
        let log = std::fs::read_to_string(site.path("log")).unwrap();
        assert!(
            log.contains("the window shrinks: the journal is at its bound"),
            "{log}"
        );
        let bytes = &site.status()["journal"];
        assert!(
            bytes["bytes"].as_u64() <= bytes["bytes_max"].as_u64(),
            "{bytes}"
        );
    });
}

#[test]
fn a_volume_that_is_being_exported_is_not_removed() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let mut export = Client::connect(&site.path("receiver/control.sock")).unwrap();
        let hold = Request::Hold {
            volume: "pg/data".into(),
            at: None,
        };
        let held = export.ask(&hold).unwrap();
        assert!(matches!(held, Response::Held { .. }), "{held:?}");
        let remove = ["volume", "remove", "pg/data", "--confirm", "pg/data"];
        let refused = site.command(&remove).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(said.contains("is being exported"), "{said}");
        assert_eq!(site.group()["connected"], true, "nothing was changed");
        drop(export);
        site.eventually("it is removed once the export has ended", || {
            site.command(&remove).output().unwrap().status.success()
        })
        .await;
    });
}
