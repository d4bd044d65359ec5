//! A volume in a pool: over files of unequal size, smaller than the volume, through kills.

use crate::site::{Site, VOLUME_BYTES};
use crate::source::{BLOCKS, Source};
use crate::talk::open;
use crate::{Dice, run};
use std::time::Duration;

fn export(site: &Site) -> Vec<u8> {
    site.ok(&["volume", "export", "pg/data", "exported.img"]);
    let image = site.image("exported.img");
    std::fs::remove_file(site.path("exported.img")).unwrap();
    image
}

fn pooled(targets: &[&str]) -> Site {
    let mut site = Site::ready();
    add_pool(&site, &VOLUME_BYTES.to_string(), targets);
    site.start();
    site
}

fn add_pool(site: &Site, size: &str, targets: &[&str]) {
    let add = [
        "volume", "add", "pg/data", "--source", "db1", "--size", size,
    ];
    let rest = ["--layout", "pool", "--target"];
    site.ok(&[&add[..], &rest, targets].concat());
}

#[test]
fn a_volume_in_a_pool_is_as_the_source_also_after_kills_and_takes_only_what_was_written() {
    run(async {
        let mut site = pooled(&["a.img=1MiB", "b.img=3MiB"]);
        let identity = site.enrol("db1").await;
        let mut dice = Dice::new(5);
        let mut source = Source::new(3);
        source.copy();
        for round in 0..4 {
            source.scribble(&mut dice, 40);
            let mut talk = open(&site, &identity, &source).await;
            talk.send_rest(&source).await;
            tokio::time::sleep(Duration::from_millis(dice.roll(40) as u64)).await;
            site.kill();
            site.start();
            let mut talk = open(&site, &identity, &source).await;
            talk.catch_up(&source).await;
            assert!(export(&site) == source.truth, "round {round}");
        }
        let volume = site.group()["volumes"][0].clone();
        assert_eq!(volume["pool_bytes"], 4 << 20);
        assert_eq!(volume["pool_used_bytes"], 1 << 20);
        for block in 0..BLOCKS {
            source.zero(block);
        }
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        assert!(export(&site).iter().all(|byte| *byte == 0));
        drop(talk);
        site.stop();
        assert!(export(&site).iter().all(|byte| *byte == 0), "also offline");
        assert!(site.ok(&["fsck"]).contains("nothing is wrong"));
        site.start();
    });
}

#[test]
fn what_a_pool_cannot_be_made_of_is_refused_in_one_line_and_leaves_nothing() {
    let site = Site::ready();
    let add = [
        "volume", "add", "pg/data", "--source", "db1", "--size", "4MiB",
    ];
    for (more, code, words) in [
        (
            &["--layout", "pool", "--target", "a.img"][..],
            2,
            "a.img=64GiB",
        ),
        (
            &["--layout", "pool", "--target", "a.img=4KiB"],
            3,
            "needs 1048576",
        ),
        (&["--target", "a.img=4MiB"], 2, "leave =SIZE out"),
        (
            &["--layout", "heap", "--target", "a.img"],
            2,
            "not a layout",
        ),
        (
            &[
                "--layout",
                "pool",
                "--size",
                "17TiB",
                "--target",
                "a.img=1GiB",
            ],
            2,
            "at most",
        ),
    ] {
        let size: Vec<&str> = match more.iter().position(|word| *word == "--size") {
            Some(_) => add[..5].to_vec(),
            None => add.to_vec(),
        };
        let output = site.command(&[&size[..], more].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{more:?}: {said}");
        assert!(said.contains(words), "{more:?}: {said}");
        assert!(!site.path("a.img").exists(), "{more:?}");
    }
}

#[test]
fn a_sound_pool_is_found_sound_whatever_its_size_and_number_of_targets() {
    for (size, targets) in [
        ("10MiB", &["a.img=2MiB"][..]),
        ("1MiB", &["a.img=1MiB", "b.img=3MiB"]),
    ] {
        let site = Site::ready();
        add_pool(&site, size, targets);
        let text = site.ok(&["fsck"]);
        assert!(text.ends_with("nothing is wrong\n"), "{size}: {text}");
    }
}
