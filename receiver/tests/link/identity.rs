//! Who is let in, and for how long (P14).

use crate::run;
use crate::site::{Site, join};
use crate::source::{Source, name};
use crate::talk::{assert_image, closing, dial, open};
use link::Identity;
use std::time::{Duration, SystemTime};
use wire::JoinReply;
use wire::control::{Control, RefusalCode};

fn stranger() -> Identity {
    Identity::generate(SystemTime::now()).unwrap()
}

#[test]
fn a_certificate_that_is_not_enrolled_is_refused_in_words() {
    run(async {
        let site = Site::serving();
        let fresh = site.image("data.img");
        let refusal = dial(&site, &stranger(), Source::new(1).hello()).await;
        let refusal = refusal.err().unwrap().refusal();
        assert_eq!(refusal.code, RefusalCode::NotEnrolled);
        assert!(refusal.text.contains("ublk-tap join"), "{}", refusal.text);
        assert_eq!(site.image("data.img"), fresh);
    });
}

#[test]
fn a_source_reaches_only_its_own_groups_and_ends_nobody_elses_session() {
    run(async {
        let site = Site::serving();
        site.add("other/data", "db2", "other.img");
        let (one, two) = (site.enrol("db1").await, site.enrol("db2").await);
        let mut source = Source::new(1);
        source.copy();
        let mut talk = open(&site, &one, &source).await;
        let hello = source.hello();

        let refusal = dial(&site, &two, hello.clone()).await.err().unwrap();
        assert_eq!(refusal.refusal().code, RefusalCode::NotEnrolled);
        let mut foreign = hello.clone();
        foreign.source = name("db2");
        foreign.incarnation.counter += 1;
        let refusal = dial(&site, &two, foreign.clone()).await.err().unwrap();
        assert_eq!(refusal.refusal().code, RefusalCode::UnknownVolume);
        // With no volume to be refused for.
        foreign.volumes.clear();
        for probe in [true, false] {
            foreign.probe = probe;
            let refusal = dial(&site, &two, foreign.clone()).await.err().unwrap();
            assert_eq!(refusal.refusal().code, RefusalCode::UnknownVolume);
        }
        talk.catch_up(&source).await;
        assert_image(&site, &source, source.last(), "undisturbed");
    });
}

#[test]
fn a_source_that_is_revoked_loses_its_session_at_once() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let before = source.last();
        source.write(1);
        site.ok(&["revoke", "db1"]);
        talk.batch(source.records(before, source.last())).await;
        let words = talk.end().await;
        assert!(words.contains("revoked"), "{words}");
        let refusal = dial(&site, &identity, source.hello()).await.err().unwrap();
        assert_eq!(refusal.refusal().code, RefusalCode::NotEnrolled);
        assert_image(&site, &source, before, "nothing after the revocation");
    });
}

#[test]
fn a_revoked_source_that_does_not_listen_is_cut_off_as_well() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let source = Source::new(1);
        let (_endpoint, connection) = crate::talk::reach(&site, &identity).await;
        let (mut say, _unread) = connection.open_bi().await.unwrap();
        let hello = Control::Hello(source.hello());
        link::write_control(&mut say, &hello).await.unwrap();
        // Each is answered; the answers fill all the room there is for them.
        let beat = Control::Heartbeat(wire::control::Heartbeat {
            clock: source.clock(),
            captured: source.last(),
        });
        site.eventually("the session is up", || site.group()["connected"] == true)
            .await;
        for _ in 0..4000 {
            if link::write_control(&mut say, &beat).await.is_err() {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        site.ok(&["revoke", "db1"]);
        let closed = tokio::time::timeout(Duration::from_secs(5), closing(&connection));
        let words = closed.await.expect("cut off");
        assert!(!words.contains("timed out"), "{words}");
        site.eventually("the session is over", || site.group()["connected"] == false)
            .await;
    });
}

#[test]
fn a_source_that_is_enrolled_again_loses_the_session_of_its_old_certificate() {
    run(async {
        let site = Site::serving();
        let old = site.enrol("db1").await;
        let source = Source::new(1);
        let talk = open(&site, &old, &source).await;
        let new = site.enrol("db1").await;
        let words = talk.end().await;
        assert!(words.contains("enrolled again"), "{words}");
        let refusal = dial(&site, &old, source.hello()).await.err().unwrap();
        assert_eq!(refusal.refusal().code, RefusalCode::NotEnrolled);
        open(&site, &new, &source).await;
    });
}

#[test]
fn a_token_is_good_once_for_its_source_until_it_expires() {
    run(async {
        let site = Site::serving();
        let token = site.token("db1", "1h");
        let refused = |reply: JoinReply, word: &str| match reply {
            JoinReply::Refused(text) => assert!(text.contains(word), "{text}"),
            JoinReply::Enrolled => panic!("let in, not: {word}"),
        };
        let mut other = token.clone();
        other.source = name("db2");
        refused(join(&other, &stranger()).await, "token");
        let mut guess = token.clone();
        guess.secret[0] ^= 1;
        refused(join(&guess, &stranger()).await, "token");
        let identity = stranger();
        assert_eq!(join(&token, &identity).await, JoinReply::Enrolled);
        refused(join(&token, &stranger()).await, "used");
        refused(join(&token, &identity).await, "used");
        let short = site.token("db1", "1s");
        tokio::time::sleep(Duration::from_millis(2100)).await;
        refused(join(&short, &stranger()).await, "expired");
        open(&site, &identity, &Source::new(1)).await;
    });
}

#[test]
fn a_source_revoked_while_it_says_hello_has_no_session_in_the_end() {
    run(async {
        let site = Site::serving();
        for round in 0..10 {
            let identity = site.enrol("db1").await;
            let source = Source::new(1);
            let mut revoking = site.command(&["revoke", "db1"]).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(round)).await;
            let talk = dial(&site, &identity, source.hello()).await;
            assert!(revoking.wait().unwrap().success());
            let closed = match &talk {
                Ok(talk) => closing(&talk.connection).await,
                Err(_) => "refused".into(),
            };
            assert!(!closed.contains("timed out"), "round {round}: {closed}");
            site.eventually("nobody is connected", || site.group()["connected"] == false)
                .await;
        }
    });
}

#[test]
fn a_volume_removed_under_a_session_ends_it_and_its_target_is_left_alone() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let before = source.last();
        source.write(1);
        site.ok(&["volume", "remove", "pg/data", "--confirm", "pg/data"]);
        let late = talk.connection.clone();
        talk.batch(source.records(before, source.last())).await;
        let words = talk.end().await;
        assert!(words.contains("removed"), "{words}");
        drop(late);
        let refusal = dial(&site, &identity, source.hello()).await.err().unwrap();
        assert_eq!(refusal.refusal().code, RefusalCode::UnknownVolume);
        assert_image(&site, &source, before, "as it was");

        // Registered again, on another target: a copy makes it whole.
        site.add("pg/data", "db1", "again.img");
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        assert_eq!(site.image("again.img"), source.truth);
        assert_image(&site, &source, before, "the old target");
    });
}
