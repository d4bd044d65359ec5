//! The catalog: what is remembered, what is refused, and the bytes it is remembered as.

use super::codec::{KnownRow, Value};
use super::*;
use crate::apply::{Applied, KnownBlocks};
use crate::target::{LayoutKind, POOL_VOLUME_SEGMENTS_MAX, Place, TargetIdentity};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;
use wire::{Generation, Incarnation, Name, Pin, Stamp, TimeMark, VolumeName};

fn catalog() -> (TempDir, Catalog) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(&dir.path().join("catalog.redb")).unwrap();
    (dir, catalog)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn volume(text: &str, source: &str) -> VolumeRecord {
    VolumeRecord {
        name: text.parse().unwrap(),
        source: name(source),
        size_bytes: 64 << 20,
        sector_bytes: 512,
        kind: LayoutKind::Plain,
        disk: None,
        targets: vec![
            TargetRecord {
                path: PathBuf::from("/t/0"),
                identity: TargetIdentity::File {
                    device: 1,
                    inode: 2,
                    born_ns: 3,
                    size_bytes: 4,
                },
                known: None,
            },
            TargetRecord {
                path: PathBuf::from("/dev/sdb"),
                identity: TargetIdentity::Block {
                    id: "wwn:5".into(),
                    size_bytes: 6,
                },
                known: None,
            },
        ],
    }
}

fn fresh() -> Generation {
    Generation {
        counter: 1,
        lineage: 0xfeed,
    }
}

fn token(source: &str) -> TokenRecord {
    TokenRecord {
        source: name(source),
        expires_unix_s: 1000,
        used_unix_s: None,
    }
}

fn lane(group: &str) -> Lane {
    Lane {
        group: name(group),
        source: name("host1"),
    }
}

fn state(horizon: u64, applied: u64) -> StreamState {
    StreamState {
        incarnation: Incarnation {
            counter: 3,
            id: 0xabc,
        },
        horizon: Stamp(horizon),
        applied: Stamp(applied),
        last_mark: TimeMark(77),
        point: Some(PointRecord {
            incarnation: Incarnation { counter: 2, id: 5 },
            stamp: Stamp(6),
            mark: TimeMark(66),
        }),
        volumes: BTreeMap::from([
            (name("a"), VolumeState::Absent),
            (
                name("b"),
                VolumeState::Copying {
                    first: true,
                    since: Stamp(9),
                },
            ),
            (name("c"), VolumeState::Ready),
            (
                name("d"),
                VolumeState::Left {
                    incarnation: Incarnation { counter: 2, id: 1 },
                    stamp: Stamp(8),
                },
            ),
            (name("e"), VolumeState::Doubt),
        ]),
    }
}

#[test]
fn what_was_committed_is_there_after_the_catalog_is_opened_again() {
    let (dir, catalog) = catalog();
    let record = volume("db/wal", "host1");
    catalog.add_volume(&record, fresh()).unwrap();
    catalog
        .commit_stream(&lane("db"), &state(9, 7), None)
        .unwrap();
    drop(catalog);
    let catalog = Catalog::open(&dir.path().join("catalog.redb")).unwrap();
    assert_eq!(catalog.volumes().unwrap(), [record]);
    assert_eq!(catalog.stream(&lane("db")).unwrap(), Some(state(9, 7)));
    let group = catalog.group(&name("db")).unwrap();
    assert_eq!(
        group,
        Some(GroupRecord {
            generation: fresh()
        })
    );
}

#[test]
fn a_catalog_is_opened_by_one_process_made_once_and_not_invented() {
    let (dir, _open) = catalog();
    let path = dir.path().join("catalog.redb");
    assert!(matches!(Catalog::open(&path), Err(CatalogError::InUse)));
    assert!(matches!(
        Catalog::create(&path),
        Err(CatalogError::Exists(_))
    ));
    let missing = dir.path().join("other.redb");
    assert!(matches!(
        Catalog::open(&missing),
        Err(CatalogError::Missing(_))
    ));
    assert!(!missing.exists());
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let (dir, catalog) = catalog();
    drop(catalog);
    let path = dir.path().join("catalog.redb");
    std::fs::write(&path, b"not a database at all").unwrap();
    assert!(matches!(
        Catalog::open(&path),
        Err(CatalogError::Storage(_))
    ));
}

#[test]
fn a_token_is_redeemed_once_by_its_source_before_it_expires() {
    let (_dir, catalog) = catalog();
    let (secret, pin) = ([1; 32], Pin([7; 32]));
    catalog.add_token(&secret, &token("host1"), 10).unwrap();
    let refused = catalog.redeem(&[2; 32], &name("host1"), pin, 20);
    assert!(matches!(refused, Err(RedeemError::Unknown)));
    let refused = catalog.redeem(&secret, &name("host2"), pin, 20);
    assert!(
        matches!(refused, Err(RedeemError::Unknown)),
        "made for another source"
    );
    let refused = catalog.redeem(&secret, &name("host1"), pin, 1000);
    assert!(matches!(refused, Err(RedeemError::Expired)));
    assert_eq!(catalog.sources().unwrap(), []);

    let record = catalog.redeem(&secret, &name("host1"), pin, 999).unwrap();
    assert_eq!(catalog.source_by_pin(pin).unwrap(), Some(record));
    let refused = catalog.redeem(&secret, &name("host1"), Pin([8; 32]), 999);
    assert!(matches!(refused, Err(RedeemError::Used)));
    assert_eq!(catalog.source_by_pin(Pin([8; 32])).unwrap(), None);
}

#[test]
fn a_certificate_is_one_source_until_that_is_revoked() {
    let (_dir, catalog) = catalog();
    let pin = Pin([7; 32]);
    for (secret, source) in [(1, "host1"), (2, "host2")] {
        catalog.add_token(&[secret; 32], &token(source), 0).unwrap();
    }
    catalog.redeem(&[1; 32], &name("host1"), pin, 1).unwrap();
    let refused = catalog.redeem(&[2; 32], &name("host2"), pin, 1);
    assert!(matches!(refused, Err(RedeemError::PinTaken(other)) if other == name("host1")));
    catalog.revoke(&name("host1"), 5).unwrap();
    catalog.redeem(&[2; 32], &name("host2"), pin, 6).unwrap();
    let found = catalog.source_by_pin(pin).unwrap().unwrap();
    assert_eq!((found.name, found.revoked_unix_s), (name("host2"), None));
}

#[test]
fn revoking_ends_the_enrolment_and_open_tokens_until_a_new_token_is_redeemed() {
    let (_dir, catalog) = catalog();
    let host = name("host1");
    assert!(matches!(
        catalog.revoke(&host, 1),
        Err(CatalogError::NoSource(_))
    ));
    for secret in [1, 2] {
        catalog
            .add_token(&[secret; 32], &token("host1"), 0)
            .unwrap();
    }
    catalog.redeem(&[1; 32], &host, Pin([7; 32]), 1).unwrap();
    assert!(catalog.revoke(&host, 2).unwrap());
    assert!(!catalog.revoke(&host, 3).unwrap(), "revoked already");
    assert_eq!(
        catalog.source(&host).unwrap().unwrap().revoked_unix_s,
        Some(2)
    );
    let refused = catalog.redeem(&[2; 32], &host, Pin([7; 32]), 4);
    assert!(matches!(refused, Err(RedeemError::Unknown)));

    catalog.add_token(&[3; 32], &token("host1"), 4).unwrap();
    let again = catalog.redeem(&[3; 32], &host, Pin([9; 32]), 5).unwrap();
    assert_eq!((again.revoked_unix_s, again.pin), (None, Pin([9; 32])));
}

#[test]
fn tokens_have_a_maximum_and_expired_ones_make_room() {
    let (_dir, catalog) = catalog();
    for index in 0..TOKENS_MAX as u64 {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&index.to_le_bytes());
        catalog.add_token(&secret, &token("host1"), 0).unwrap();
    }
    let full = catalog.add_token(&[9; 32], &token("host1"), 999);
    assert!(matches!(full, Err(CatalogError::Full { .. })));
    let later = TokenRecord {
        expires_unix_s: 5000,
        ..token("host1")
    };
    catalog.add_token(&[9; 32], &later, 1000).unwrap();
}

#[test]
fn a_used_token_takes_no_place_of_an_open_one() {
    let (_dir, catalog) = catalog();
    for index in 0..TOKENS_MAX as u64 {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&index.to_le_bytes());
        catalog.add_token(&secret, &token("host1"), 0).unwrap();
    }
    let used = [0; 32];
    catalog
        .redeem(&used, &name("host1"), Pin([7; 32]), 1)
        .unwrap();
    let again = catalog.redeem(&used, &name("host1"), Pin([7; 32]), 2);
    assert!(matches!(again, Err(RedeemError::Used)));
    catalog.add_token(&[9; 32], &token("host1"), 2).unwrap();
    let full = catalog.add_token(&[8; 32], &token("host1"), 2);
    assert!(matches!(full, Err(CatalogError::Full { .. })));
    let again = catalog.redeem(&used, &name("host1"), Pin([7; 32]), 2);
    assert!(
        matches!(again, Err(RedeemError::Unknown)),
        "still not twice"
    );
}

#[test]
fn a_row_of_another_version_is_named_as_that_and_not_as_damage() {
    let mut bytes = state(9, 8).encode();
    bytes[0] = 2;
    let error = store::decode::<StreamState>("db", &bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the catalog's stream db: version 2 is not understood by this build (it speaks 1); use \
         the version that wrote it"
    );
    let refused = crate::failure::Failure::from(error);
    assert_eq!(refused.exit, crate::failure::Exit::Refused);
    let error = store::decode::<StreamState>("db", &bytes[..0]).unwrap_err();
    assert!(matches!(error, CatalogError::Damaged { .. }));
}

#[test]
fn a_volume_is_registered_once_and_a_group_may_have_several_sources() {
    let (_dir, catalog) = catalog();
    catalog
        .add_volume(&volume("db/wal", "host1"), fresh())
        .unwrap();
    let again = catalog.add_volume(&volume("db/wal", "host1"), fresh());
    assert!(matches!(again, Err(CatalogError::VolumeExists(_))));
    let other = Generation {
        counter: 9,
        lineage: 9,
    };
    catalog
        .add_volume(&volume("db/data", "host2"), other)
        .unwrap();
    catalog
        .add_volume(&volume("dbx/data", "host2"), other)
        .unwrap();
    assert_eq!(catalog.group_volumes(&name("db")).unwrap().len(), 2);
    let own = catalog.lane_volumes(&lane("db")).unwrap();
    assert_eq!(own, [volume("db/wal", "host1")]);
    let kept = catalog.group(&name("db")).unwrap().unwrap();
    assert_eq!(
        kept.generation,
        fresh(),
        "a group keeps its first generation"
    );
}

fn bound(identity: &str, after: u64) -> Bound {
    let since = Since {
        counter: 2,
        after: Stamp(after),
    };
    Bound {
        identity: identity.to_owned(),
        since,
    }
}

#[test]
fn a_volume_is_bound_to_the_first_disk_it_sees() {
    let (_dir, catalog) = catalog();
    let record = volume("db/wal", "host1");
    catalog.add_volume(&record, fresh()).unwrap();
    let (first, other) = (bound("wwn:1", 7), bound("wwn:2", 9));
    assert_eq!(catalog.bind_disk(&record.name, &first).unwrap(), first);
    assert_eq!(catalog.bind_disk(&record.name, &other).unwrap(), first);
    let kept = catalog.volume(&record.name).unwrap().unwrap();
    assert_eq!(kept.disk, Some(first.clone()));
    let missing: VolumeName = "db/none".parse().unwrap();
    assert!(matches!(
        catalog.bind_disk(&missing, &first),
        Err(CatalogError::NoVolume(_))
    ));
}

#[test]
fn a_removed_volume_leaves_its_group_and_takes_its_state() {
    let (_dir, catalog) = catalog();
    let record = volume("db/c", "host1");
    catalog.add_volume(&record, fresh()).unwrap();
    let only = StreamState {
        volumes: BTreeMap::from([(name("c"), VolumeState::Ready)]),
        ..state(9, 9)
    };
    catalog.commit_stream(&lane("db"), &only, None).unwrap();
    assert_eq!(catalog.remove_volume(&record.name).unwrap(), record);
    assert!(matches!(
        catalog.remove_volume(&record.name),
        Err(CatalogError::NoVolume(_))
    ));
    let stream = catalog.stream(&lane("db")).unwrap().unwrap();
    assert!(!stream.volumes.contains_key(&name("c")));
    assert_eq!(stream.point, None, "a point of no volume");
    assert!(catalog.group(&name("db")).unwrap().is_some());
}

#[test]
fn the_map_of_a_pool_is_committed_with_the_applied_stamp_and_goes_with_its_volume() {
    let (dir, catalog) = catalog();
    let (one, other) = (volume("db/wal", "host1"), volume("db/wal2", "host1"));
    catalog.add_volume(&one, fresh()).unwrap();
    catalog.add_volume(&other, fresh()).unwrap();
    let place = |disk, segment| Some(Place { disk, segment });
    let commit = |catalog: &Catalog, stamp, maps| {
        let known = Vec::new();
        let state = state(stamp, stamp);
        let applied = Applied { known, maps };
        catalog
            .commit_applied(&lane("db"), &state, &applied)
            .unwrap();
    };
    // Far apart: pages of their own, more of them than are read at once.
    let far = |at: u64| (at * 70_000 % POOL_VOLUME_SEGMENTS_MAX, place(1, at as u32));
    let mut wide: Vec<_> = (0..200).map(far).collect();
    wide.sort_unstable();
    let maps = vec![
        (name("wal"), wide.clone()),
        (
            name("wal2"),
            vec![(5, place(0, 6)), (511, place(0, 7)), (512, place(0, 8))],
        ),
    ];
    commit(&catalog, 5, maps);
    drop(catalog);
    let catalog = Catalog::open(&dir.path().join("catalog.redb")).unwrap();
    assert_eq!(catalog.pool_map(&one.name).unwrap(), wide);
    let changes = vec![(511, None), (512, place(3, 9)), (513, place(0, 7))];
    commit(&catalog, 6, vec![(name("wal2"), changes)]);
    let map = [(5, place(0, 6)), (512, place(3, 9)), (513, place(0, 7))];
    assert_eq!(catalog.pool_map(&other.name).unwrap(), map);
    catalog.remove_volume(&one.name).unwrap();
    assert_eq!(catalog.pool_map(&one.name).unwrap(), []);
    assert_eq!(
        catalog.pool_map(&other.name).unwrap(),
        map,
        "its namesake stays"
    );
}

#[test]
fn targets_are_recognised_only_while_no_step_is_under_way() {
    let (_dir, catalog) = catalog();
    let record = volume("db/wal", "host1");
    catalog.add_volume(&record, fresh()).unwrap();
    let blocks = vec![KnownBlocks([1, 2, 3, 4]), KnownBlocks([5, 6, 7, 8])];
    let applied = Applied {
        known: vec![(name("wal"), blocks.clone())],
        maps: Vec::new(),
    };
    let known = || -> Vec<Option<KnownBlocks>> {
        let record = catalog.volume(&record.name).unwrap().unwrap();
        record
            .targets
            .into_iter()
            .map(|target| target.known)
            .collect()
    };
    assert_eq!(known(), [None, None]);
    catalog
        .commit_applied(&lane("db"), &state(9, 9), &applied)
        .unwrap();
    assert_eq!(known(), [Some(blocks[0]), Some(blocks[1])]);
    catalog
        .commit_stream(&lane("db"), &state(12, 9), None)
        .unwrap();
    assert_eq!(
        known(),
        [None, None],
        "a step may have been written in part"
    );
}

#[test]
#[should_panic(expected = "applied stamp of db/host1 goes back")]
fn positions_never_go_back_within_an_incarnation() {
    let (_dir, catalog) = catalog();
    catalog
        .commit_stream(&lane("db"), &state(9, 9), None)
        .unwrap();
    let _ = catalog.commit_stream(&lane("db"), &state(9, 8), None);
}

#[test]
fn a_new_incarnation_starts_again_from_its_own_first_stamp() {
    let (_dir, catalog) = catalog();
    catalog
        .commit_stream(&lane("db"), &state(9, 9), None)
        .unwrap();
    let next = StreamState {
        incarnation: Incarnation { counter: 4, id: 1 },
        last_mark: TimeMark(78),
        ..StreamState::default()
    };
    catalog.commit_stream(&lane("db"), &next, None).unwrap();
    assert_eq!(catalog.stream(&lane("db")).unwrap(), Some(next));
}

#[test]
fn the_catalog_belongs_to_the_first_journal_it_sees_until_that_is_given_up() {
    let (_dir, catalog) = catalog();
    assert_eq!(catalog.journal_id().unwrap(), None);
    catalog.bind_journal(7).unwrap();
    catalog.bind_journal(7).unwrap();
    let other = catalog.bind_journal(8);
    assert!(matches!(other, Err(CatalogError::OtherJournal)));
    assert_eq!(catalog.journal_id().unwrap(), Some(7));
    catalog.release_journal().unwrap();
    assert_eq!(catalog.journal_id().unwrap(), None);
    catalog.bind_journal(8).unwrap();
}

fn hex(value: &impl Value) -> String {
    value
        .encode()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn the_golden_bytes_of_the_values_do_not_change() {
    let used = TokenRecord {
        used_unix_s: Some(2),
        ..token("ab")
    };
    assert_eq!(hex(&used), "0102006162e803000000000000010200000000000000");
    let source = SourceRecord {
        name: name("ab"),
        pin: Pin([0xcc; 32]),
        enrolled_unix_s: 1,
        revoked_unix_s: None,
    };
    let golden = format!("01{}0100000000000000000000000000000000", "cc".repeat(32));
    assert_eq!(hex(&source), golden);
    let group = GroupRecord {
        generation: fresh(),
    };
    assert_eq!(
        hex(&group),
        "010100000000000000edfe0000000000000000000000000000"
    );
    let known = KnownRow(vec![KnownBlocks([1, 2, 3, 4])]);
    let golden = "0101000100000000000000020000000000000003000000000000000400000000000000";
    assert_eq!(hex(&known), golden);
    let golden = concat!(
        "020200616200000004000000000002000001",
        "01",
        "0300783a31",
        "0200000000000000",
        "0700000000000000",
        "0200",
        "0400",
        "2f742f30",
        "010100000000000000020000000000000003000000000000000400000000000000",
        "0800",
        "2f6465762f736462",
        "02050077776e3a350600000000000000",
    );
    let record = VolumeRecord {
        disk: Some(bound("x:1", 7)),
        ..volume("a/b", "ab")
    };
    assert_eq!(hex(&record), golden);
    let golden = concat!(
        "010300000000000000bc0a0000000000000000000000000000",
        "0900000000000000",
        "0800000000000000",
        "4d00000000000000",
        "01020000000000000005000000000000000000000000000000",
        "0600000000000000",
        "4200000000000000",
        "0500",
        "01006100",
        "0100620101",
        "0900000000000000",
        "01006302",
        "01006403",
        "020000000000000001000000000000000000000000000000",
        "0800000000000000",
        "01006504",
    );
    assert_eq!(hex(&state(9, 8)), golden);
    let point = PointRecord {
        incarnation: Incarnation { counter: 2, id: 5 },
        stamp: Stamp(9),
        mark: TimeMark(8),
    };
    let lanes = [("a", Standing::Part(point)), ("b", Standing::Detached)];
    let cut = CutState {
        at: TimeMark(77),
        lanes: lanes
            .map(|(source, standing)| (name(source), standing))
            .into(),
    };
    let golden = concat!(
        "024d000000000000000200",
        "01006101",
        "020000000000000005000000000000000000000000000000",
        "0900000000000000",
        "0800000000000000",
        "01006202",
    );
    assert_eq!(hex(&cut), golden);
    assert_eq!(CutState::decode("db", &cut.encode()).unwrap(), cut);
}

#[test]
fn values_of_another_version_or_cut_short_are_refused() {
    let bytes = state(9, 8).encode();
    for cut in 0..bytes.len() {
        assert!(
            StreamState::decode("db", &bytes[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    let mut newer = bytes.clone();
    newer[0] = 2;
    assert!(StreamState::decode("db", &newer).is_err());
    let longer = [bytes, vec![0]].concat();
    assert!(StreamState::decode("db", &longer).is_err());
    let bytes = volume("a/b", "ab").encode();
    assert_eq!(VolumeRecord::decode("a/b", &bytes), Ok(volume("a/b", "ab")));
    // The first version: the same, without the place.
    let mut first = [&bytes[..20], &bytes[36..]].concat();
    first[0] = 1;
    assert_eq!(VolumeRecord::decode("a/b", &first), Ok(volume("a/b", "ab")));
    first[0] = 3;
    assert!(VolumeRecord::decode("a/b", &first).is_err());
    assert!(VolumeRecord::decode("not a volume", &bytes).is_err());
}
