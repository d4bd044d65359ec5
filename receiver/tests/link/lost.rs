//! The journal's disk is lost: what the source still holds is asked for by stamp, the rest is named
//! and copied; nothing is passed over.

use crate::run;
use crate::site::Site;
use crate::source::Source;
use crate::talk::{assert_image, dial, open};
use std::fs;
use wire::Stamp;
use wire::control::Control;

/// Three more records are durable and not applied; then the receiver is killed and its journal gone.
async fn without_journal() -> (Site, link::Identity, Source, Stamp) {
    let mut site = Site::serving();
    let identity = site.enrol("db1").await;
    let mut source = Source::new(1);
    source.copy();
    let mut talk = open(&site, &identity, &source).await;
    talk.catch_up(&source).await;
    let applied = source.last();
    for at in [1, 2, 3] {
        source.write(at);
    }
    let last = source.last();
    talk.batch(source.records(applied, last)).await;
    talk.until(|ack| ack.durable == last).await;
    site.kill();
    fs::remove_dir_all(site.path("receiver/journal")).unwrap();
    let refused = site.command(&["serve"]).output().unwrap();
    assert_eq!(
        refused.status.code(),
        Some(3),
        "not begun anew without a word"
    );
    site.start_with(&["serve", "--new-journal"]);
    (site, identity, source, applied)
}

#[test]
fn what_the_source_still_holds_is_sent_again_and_replication_goes_on_without_a_copy() {
    run(async {
        let (site, identity, mut source, applied) = without_journal().await;
        let mut talk = open(&site, &identity, &source).await;
        assert_eq!(talk.greeted.resume, applied);
        talk.catch_up(&source).await;
        assert_image(&site, &source, source.last(), "sent again");
        let asked = |heard: &Control| matches!(heard, Control::CopyWanted(_));
        assert!(!talk.heard.iter().any(asked), "nothing is to be copied");
        drop(talk);
        source.write(4);
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        assert_image(&site, &source, source.last(), "gone on");
    });
}

#[test]
fn what_the_source_no_longer_holds_is_named_and_copied() {
    run(async {
        let (site, identity, mut source, applied) = without_journal().await;
        let kept = site.image("data.img");
        let mut hello = source.hello();
        // Two of the three records have been given back: they were acknowledged.
        hello.oldest = Stamp(applied.0 + 3);
        let mut talk = dial(&site, &identity, hello).await.unwrap();
        assert_eq!(talk.greeted.resume, Stamp(applied.0 + 2));
        let asked = |heard: &Control| matches!(heard, Control::CopyWanted(_));
        let asked = talk.until_heard(asked).await;
        let Control::CopyWanted(wanted) = asked else {
            unreachable!("it was looked for")
        };
        let named = format!("what follows record {applied}");
        assert!(wanted.reason.contains(&named), "{}", wanted.reason);
        assert_eq!(site.image("data.img"), kept, "the old point stays");
        drop(talk);
        source.copy();
        let mut hello = source.hello();
        hello.oldest = Stamp(applied.0 + 3);
        let mut talk = dial(&site, &identity, hello).await.unwrap();
        talk.catch_up(&source).await;
        assert_image(&site, &source, source.last(), "copied");
    });
}
