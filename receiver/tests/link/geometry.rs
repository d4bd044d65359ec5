//! The wrong disk is refused before anything is written (P13).

use crate::run;
use crate::site::{Site, VOLUME_BYTES};
use crate::source::{Source, name};
use crate::talk::{assert_image, dial, open};
use wire::control::{Hello, RefusalCode};
use wire::{Generation, Incarnation};

type Change = fn(&mut Hello);

#[test]
fn another_disk_size_sector_volume_or_group_is_refused_and_nothing_is_written() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let fresh = site.image("data.img");
        let source = Source::new(1);
        let changed = |change: Change| {
            let mut hello = source.hello();
            change(&mut hello);
            hello
        };
        let wrong: &[(Change, RefusalCode)] = &[
            (
                |hello| hello.volumes[0].size_bytes = VOLUME_BYTES * 2,
                RefusalCode::Geometry,
            ),
            (
                |hello| hello.volumes[0].size_bytes = VOLUME_BYTES - 512,
                RefusalCode::Geometry,
            ),
            (
                |hello| hello.volumes[0].sector_bytes = 4096,
                RefusalCode::Geometry,
            ),
            (
                |hello| hello.volumes[0].name = name("other"),
                RefusalCode::UnknownVolume,
            ),
            (
                |hello| hello.group = name("other"),
                RefusalCode::UnknownVolume,
            ),
            (
                |hello| {
                    hello.generation = Generation {
                        counter: 9,
                        lineage: 9,
                    }
                },
                RefusalCode::Fenced,
            ),
        ];
        for probe in [true, false] {
            for (change, code) in wrong {
                let mut hello = changed(*change);
                hello.probe = probe;
                let refusal = dial(&site, &identity, hello).await.err().unwrap().refusal();
                assert_eq!(refusal.code, *code, "{}", refusal.text);
            }
        }
        // A probe that passes binds nothing either.
        let mut other_disk = source.hello();
        other_disk.volumes[0].identity = "wwn:disk2".into();
        let mut probe = other_disk.clone();
        probe.probe = true;
        dial(&site, &identity, probe).await.unwrap();

        let mut source = Source::new(1);
        source.copy();
        assert_eq!(site.image("data.img"), fresh);
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        let refusal = dial(&site, &identity, other_disk).await.err().unwrap();
        assert_eq!(refusal.refusal().code, RefusalCode::WrongDisk);
        assert_image(&site, &source, source.last(), "bound to its first disk");
        assert!(site.lives());
    });
}

#[test]
fn hellos_with_impossible_numbers_are_refused_in_words() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        let wrong: &[Change] = &[
            |hello| hello.ring_slots = 0,
            |hello| hello.incarnation = Incarnation::default(),
            |hello| hello.oldest.0 = 0,
            |hello| hello.oldest.0 = u64::MAX,
            |hello| hello.captured.0 = u64::MAX,
            |hello| (hello.oldest.0, hello.captured.0) = (u64::MAX, u64::MAX),
            |hello| hello.oldest.0 = hello.captured.0 + 2,
            |hello| hello.volumes[0].identity = "wwn:1\nall well\u{1b}[2J".into(),
            |hello| {
                let mut twin = hello.volumes[0].clone();
                twin.identity = "wwn:disk2".into();
                hello.volumes.insert(0, twin);
            },
        ];
        for (at, change) in wrong.iter().enumerate() {
            let mut hello = source.hello();
            change(&mut hello);
            let refusal = dial(&site, &identity, hello).await.err().unwrap().refusal();
            assert_eq!(
                refusal.code,
                RefusalCode::Malformed,
                "{at}: {}",
                refusal.text
            );
        }
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        // Of an incarnation that is known: another ring, and less than is held here.
        let wrong: &[Change] = &[|hello| hello.ring_slots *= 2, |hello| hello.captured.0 -= 1];
        for change in wrong {
            let mut hello = source.hello();
            change(&mut hello);
            let refusal = dial(&site, &identity, hello).await.err().unwrap().refusal();
            assert_eq!(refusal.code, RefusalCode::Malformed, "{}", refusal.text);
        }
        assert_image(&site, &source, source.last(), "after all of it");
        assert!(site.lives());
    });
}
