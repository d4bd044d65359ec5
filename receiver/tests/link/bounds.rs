//! What a peer can make the receiver hold has a bound, and whom it holds up too (P11, P12).

use crate::run;
use crate::site::Site;
use crate::source::{Record, Source, name};
use crate::talk::{Talk, assert_image, batch_bytes, open, reach};
use std::sync::Arc;
use std::time::Duration;
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
fn a_source_whose_batches_stand_still_does_not_hold_up_another() {
    run(async {
        let site = Site::serving();
        site.add("other/data", "db2", "other.img");
        let (one, two) = (site.enrol("db1").await, site.enrol("db2").await);
        let mut hello = Source::new(2).hello();
        (hello.source, hello.group) = (name("db2"), name("other"));
        let still = crate::talk::dial(&site, &two, hello).await.unwrap();
        let bytes = 4 << 20;
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut stream = still.connection.open_uni().await.unwrap();
            let session = still.greeted.session;
            let header = BatchHeader {
                session,
                records: 1,
                bytes,
            };
            stream.write_all(&header.to_bytes()).await.unwrap();
            streams.push(stream);
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
            "beside one that stands still",
        );
    });
}

#[test]
fn a_journal_filled_by_what_is_not_settled_says_so_and_goes_on_with_the_settle_marks() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let before = source.last();
        for _ in 0..340 {
            source.overwrite();
        }
        let last = source.last();
        let sending = send_all(&talk, source.records(before, last));
        let full = |heard: &Control| matches!(heard, Control::Notice(text) if text.contains("receiver full"));
        talk.until_heard(full).await;
        assert!(talk.acked.durable < last);
        assert_image(&site, &source, before, "nothing of it is settled");
        assert_eq!(
            site.group()["reason"]
                .as_str()
                .map(|text| text.contains("full")),
            Some(true)
        );
        let mut settled = before;
        while settled < last {
            let upto = talk.acked.durable;
            if upto > settled {
                talk.settle(source.mark(settled, upto)).await;
                settled = upto;
            }
            talk.until(|ack| ack.durable > upto || ack.applied == last)
                .await;
        }
        sending.await.unwrap();
        talk.until(|ack| ack.applied == last).await;
        assert_image(&site, &source, last, "when it had room again");
    });
}

/// Sends each record as a batch of its own, so many at a time.
fn send_all(talk: &Talk, records: &[Record]) -> tokio::task::JoinHandle<()> {
    let session = talk.greeted.session;
    let batches = records
        .iter()
        .map(|record| batch_bytes(session, std::slice::from_ref(record)));
    let batches: Vec<Vec<u8>> = batches.collect();
    let (connection, places) = (
        talk.connection.clone(),
        Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
    );
    tokio::spawn(async move {
        for batch in batches {
            let place = places.clone().acquire_owned().await.unwrap();
            let mut stream = connection.open_uni().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(&batch).await.unwrap();
                stream.finish().unwrap();
                let _ = stream.stopped().await;
                drop(place);
            });
        }
    })
}
