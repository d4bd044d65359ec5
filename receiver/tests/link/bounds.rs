//! What a peer can make the receiver hold has a bound, and whom it holds up too (P11, P12).

use crate::run;
use crate::site::Site;
use crate::source::{Record, Source, name};
use crate::talk::{Talk, assert_image, batch_bytes, open, reach, receiver_pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use wire::BatchHeader;
use wire::control::{Control, Heartbeat};

/// Batches on their way, as the shipper has them.
const IN_FLIGHT_MAX: usize = 64;

#[test]
fn a_source_that_asks_and_does_not_listen_costs_no_memory() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let source = Source::new(1);
        let (_endpoint, connection) = reach(&site, &identity).await;
        let (mut say, _unread) = connection.open_bi().await.unwrap();
        let hello = Control::Hello(source.hello());
        link::write_control(&mut say, &hello).await.unwrap();
        site.eventually("the session is up", || site.group()["connected"] == true)
            .await;
        let before = site.memory_bytes();
        let beat = Control::Heartbeat(Heartbeat {
            clock: source.clock(),
            captured: source.last(),
        });
        let beats = beat.to_frame().repeat(1000);
        for _ in 0..300 {
            say.write_all(&beats).await.unwrap();
        }
        site.eventually("all of it is heard", || site.group()["connected"] == true)
            .await;
        let grown = site.memory_bytes().saturating_sub(before);
        assert!(grown < 12 << 20, "grown by {grown} bytes");
    });
}

#[test]
fn sources_whose_batches_stand_still_do_not_hold_up_another() {
    run(async {
        let site = Site::serving();
        let one = site.enrol("db1").await;
        let mut still = Vec::new();
        for (source, group) in [("db2", "other"), ("db3", "third")] {
            site.add(&format!("{group}/data"), source, &format!("{group}.img"));
            let identity = site.enrol(source).await;
            let mut hello = Source::new(2).hello();
            (hello.source, hello.group) = (name(source), name(group));
            let talk = crate::talk::dial(&site, &identity, hello).await.unwrap();
            let streams = stand_still(&talk).await;
            still.push((talk, streams));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut source = Source::new(1);
        source.copy();
        let mut talk = open(&site, &one, &source).await;
        let caught_up = tokio::time::timeout(Duration::from_secs(8), talk.catch_up(&source));
        caught_up.await.expect("not held up");
        assert_image(
            &site,
            &source,
            source.last(),
            "beside those that stand still",
        );
        drop(talk);
        for (talk, _streams) in still {
            let words = talk.end().await;
            assert!(words.contains("stands still"), "{words}");
        }
    });
}

/// Begins many of the largest batches, and ends none.
async fn stand_still(talk: &Talk) -> Vec<quinn::SendStream> {
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = talk.connection.open_uni().await.unwrap();
        let header = BatchHeader {
            session: talk.greeted.session,
            records: 1,
            bytes: 4 << 20,
        };
        stream.write_all(&header.to_bytes()).await.unwrap();
        streams.push(stream);
    }
    streams
}

#[test]
fn a_journal_filled_by_what_is_not_settled_says_so_and_goes_on_with_the_settle_marks() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        let before = source.last();
        for _ in 0..340 {
            source.overwrite();
        }
        // Only now: a source that is busy making things up shows no sign of life.
        let mut talk = open(&site, &identity, &source).await;
        let last = source.last();
        let sending = send_all(&talk, source.records(before, last));
        talk.until_heard(says_full).await;
        assert!(talk.acked.durable < last);
        assert_image(&site, &source, before, "nothing of it is settled");
        let reason = site.group()["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(reason.contains("receiver full"), "{reason}");
        settle_all(&mut talk, &source).await;
        sending.await.unwrap();
        assert_image(&site, &source, last, "when it had room again");
    });
}

#[test]
fn a_receiver_that_ends_with_a_full_journal_comes_back_and_goes_on() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        let before = source.last();
        for _ in 0..300 {
            source.overwrite();
        }
        for how in ["killed", "stopped"] {
            let mut talk = open(&site, &identity, &source).await;
            let resume = talk.greeted.resume;
            let sending = send_all(&talk, source.records(resume, source.last()));
            talk.until_heard(says_full).await;
            let durable = talk.acked.durable;
            let start = Instant::now();
            match how {
                "killed" => site.kill(),
                _ => site.stop(),
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{how}");
            sending.abort();
            site.start();
            let group = site.group();
            assert!(
                group["durable"].as_u64() >= Some(durable.0),
                "{how}: {group}"
            );
            assert_eq!(group["applied"], before.0, "{how}: {group}");
        }
        let mut talk = open(&site, &identity, &source).await;
        let rest = source.records(talk.greeted.resume, source.last());
        let sending = send_all(&talk, rest);
        settle_all(&mut talk, &source).await;
        sending.await.unwrap();
        assert_image(&site, &source, source.last(), "after both");
    });
}

fn says_full(heard: &Control) -> bool {
    matches!(heard, Control::Notice(text) if text.contains("receiver full"))
}

/// Settles what is durable, again and again, until everything is applied.
async fn settle_all(talk: &mut Talk, source: &Source) {
    let last = source.last();
    let mut settled = talk.acked.settled;
    while settled < last {
        let upto = talk.acked.durable;
        if upto > settled {
            talk.settle(source.mark(settled, upto)).await;
            settled = upto;
        }
        if upto < last {
            talk.until(|ack| ack.durable > upto).await;
        }
    }
    talk.until(|ack| ack.applied == last).await;
}

/// Sends each record as a batch of its own, so many at a time.
fn send_all(talk: &Talk, records: &[Record]) -> tokio::task::JoinHandle<()> {
    let (session, records) = (talk.greeted.session, records.to_vec());
    let (connection, places) = (
        talk.connection.clone(),
        Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
    );
    tokio::spawn(async move {
        for record in records {
            let place = places.clone().acquire_owned().await.unwrap();
            let batch = batch_bytes(session, &[record]);
            // A connection that has ended is noticed by whoever waits for acks.
            let Ok(mut stream) = connection.open_uni().await else {
                return;
            };
            tokio::spawn(async move {
                if stream.write_all(&batch).await.is_ok() && stream.finish().is_ok() {
                    let _ = stream.stopped().await;
                }
                drop(place);
            });
        }
    })
}

#[test]
fn strangers_that_shake_hands_and_say_nothing_keep_no_source_out() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut strangers = Vec::new();
        // More than there are places, of somebody nobody has enrolled, none of whom says a word.
        for _ in 0..300 {
            let stranger = link::Identity::generate(std::time::SystemTime::now()).unwrap();
            let pin = receiver_pin(&site);
            let address = site.address().to_owned();
            strangers.push(tokio::spawn(async move {
                let reached = link::connect(&address, &stranger, pin, link::Protocol::Session);
                let held = reached.await;
                tokio::time::sleep(Duration::from_secs(60)).await;
                drop(held);
            }));
        }
        let mut source = Source::new(1);
        source.copy();
        let begin = Instant::now();
        let mut talk = loop {
            assert!(begin.elapsed() < Duration::from_secs(30), "kept out");
            if let Some(talk) = attempt(&site, &identity, &source).await {
                break talk;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        talk.catch_up(&source).await;
        strangers.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

/// One try, as a shipper makes it.
async fn attempt(site: &Site, identity: &link::Identity, source: &Source) -> Option<Talk> {
    let (address, pin) = (site.address(), receiver_pin(site));
    let reached = link::connect(address, identity, pin, link::Protocol::Session);
    let (endpoint, connection) = reached.await.ok()?;
    Talk::begin((endpoint, connection), source.hello())
        .await
        .ok()
}
