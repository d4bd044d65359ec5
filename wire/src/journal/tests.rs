//! Golden bytes; every flipped bit of a header and every cut of a body is an error.

use super::*;
use crate::limits::SETTLE_VOIDS_MAX;
use crate::name::Name;
use crate::stamp::{Incarnation, Stamp};
use crate::volume::{VolumeIndex, VolumeSpec};
use proptest::prelude::*;

const ID: JournalId = JournalId(0xa0a1_a2a3_a4a5_a6a7_a8a9_aaab_acad_aeaf);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        journal: ID,
        segment: 0x0102,
        bytes: 64 << 20,
    }
}

fn group() -> GroupHeader {
    GroupHeader {
        journal: ID,
        position: Position(0x1122_3344_5566_7788),
        number: 0x0a0b,
        entries: 3,
        bytes: 8192,
        entries_checksum: 0x0102_0304_0506_0708,
    }
}

fn entry() -> EntryHeader {
    EntryHeader {
        journal: ID,
        position: Position(0x1122_3344_5566_77c8),
        group: 0x0a0b,
        kind: EntryKind::Record,
        stream: StreamNumber(9),
        body_bytes: 576,
        body_checksum: 0x0807_0605_0403_0201,
    }
}

fn open() -> StreamOpen {
    StreamOpen {
        group: Name::new("pg").unwrap(),
        source: Name::new("db1").unwrap(),
        incarnation: Incarnation { counter: 3, id: 4 },
        ring_slots: 4096,
        volumes: vec![VolumeSpec {
            index: VolumeIndex(1),
            name: Name::new("wal").unwrap(),
            size_bytes: 1 << 20,
            sector_bytes: 512,
            identity: "file:1:2".into(),
        }],
    }
}

#[test]
fn the_golden_bytes_of_the_three_headers_do_not_change() {
    let golden_segment = concat!(
        "55544a5345473100",
        "0100000000000000",
        "afaeadacabaaa9a8a7a6a5a4a3a2a1a0",
        "0201000000000000",
        "0000000400000000",
        "0000000000000000",
        "944a721412d542c9",
    );
    let golden_group = concat!(
        "55544a4703000000",
        "0b0a000000000000",
        "afaeadacabaaa9a8a7a6a5a4a3a2a1a0",
        "8877665544332211",
        "0020000000000000",
        "0807060504030201",
        "f3ce31d0cfe26f68",
    );
    let golden_entry = concat!(
        "0100000040020000",
        "0900000000000000",
        "afaeadacabaaa9a8a7a6a5a4a3a2a1a0",
        "c877665544332211",
        "0b0a000000000000",
        "0102030405060708",
        "0cc713a790026846",
    );
    assert_eq!(hex(&segment().to_bytes()), golden_segment);
    assert_eq!(hex(&group().to_bytes()), golden_group);
    assert_eq!(hex(&entry().to_bytes()), golden_entry);
}

#[test]
fn the_golden_bytes_of_the_bodies_do_not_change() {
    let golden_open = concat!(
        "02007067",
        "0300646231",
        "0300000000000000",
        "04000000000000000000000000000000",
        "00100000",
        "0100",
        "0100",
        "030077616c",
        "0000100000000000",
        "00020000",
        "080066696c653a313a32",
    );
    assert_eq!(hex(&open().to_bytes()), golden_open);
    assert_eq!(
        hex(&StreamClose { upto: Stamp(7) }.to_bytes()),
        "0700000000000000"
    );
    let lost = StreamLost {
        after: Stamp(1),
        upto: Stamp(2),
        reason: "x".into(),
    };
    assert_eq!(
        hex(&lost.to_bytes()),
        "01000000000000000200000000000000010078"
    );
    let live = [LiveSegment {
        segment: 5,
        groups_end: 9,
        index_offset: 0x3000,
    }];
    assert_eq!(
        hex(&LiveSegment::list_to_bytes(&live)),
        "01000500000000000000090000000000000000300000"
    );
    assert_eq!(
        hex(&Segments(vec![3, 4]).to_bytes()),
        "020003000000000000000400000000000000"
    );
}

#[test]
fn one_flipped_bit_in_any_header_is_noticed() {
    for bit in 0..JOURNAL_HEADER_BYTES * 8 {
        let flip = |bytes: [u8; JOURNAL_HEADER_BYTES]| {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            bad
        };
        assert!(
            SegmentHeader::parse(&flip(segment().to_bytes())).is_err(),
            "bit {bit}"
        );
        assert!(
            GroupHeader::parse(&flip(group().to_bytes())).is_err(),
            "bit {bit}"
        );
        assert!(
            EntryHeader::parse(&flip(entry().to_bytes())).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn headers_read_back_and_impossible_lengths_are_refused() {
    assert_eq!(SegmentHeader::parse(&segment().to_bytes()), Ok(segment()));
    assert_eq!(GroupHeader::parse(&group().to_bytes()), Ok(group()));
    assert_eq!(EntryHeader::parse(&entry().to_bytes()), Ok(entry()));
    for bytes in [0, 1, 4095, 4097, GROUP_BYTES_MAX + 4096, u32::MAX, 1 << 31] {
        assert!(GroupHeader::parse(&GroupHeader { bytes, ..group() }.to_bytes()).is_err());
    }
    for entries in [0, 128, u32::MAX] {
        assert!(GroupHeader::parse(&GroupHeader { entries, ..group() }.to_bytes()).is_err());
    }
    for body_bytes in [ENTRY_BODY_BYTES_MAX + 1, 1 << 31, u32::MAX] {
        assert!(
            EntryHeader::parse(
                &EntryHeader {
                    body_bytes,
                    ..entry()
                }
                .to_bytes()
            )
            .is_err()
        );
    }
}

#[test]
fn every_body_reads_back_and_every_cut_of_it_is_refused() {
    let lost = StreamLost {
        after: Stamp(1),
        upto: Stamp(9),
        reason: "gone".into(),
    };
    let live = vec![
        LiveSegment {
            segment: 1,
            groups_end: 5,
            index_offset: 8192,
        },
        LiveSegment {
            segment: 4,
            groups_end: 9,
            index_offset: 0,
        },
    ];
    assert_eq!(StreamOpen::parse(&open().to_bytes()), Ok(open()));
    assert_eq!(StreamLost::parse(&lost.to_bytes()), Ok(lost.clone()));
    assert_eq!(
        LiveSegment::parse_list(&LiveSegment::list_to_bytes(&live)),
        Ok(live.clone())
    );
    for at in 0..open().to_bytes().len() {
        assert!(StreamOpen::parse(&open().to_bytes()[..at]).is_err());
    }
    for at in 0..lost.to_bytes().len() {
        assert!(StreamLost::parse(&lost.to_bytes()[..at]).is_err());
    }
    for at in 0..LiveSegment::list_to_bytes(&live).len() {
        assert!(LiveSegment::parse_list(&LiveSegment::list_to_bytes(&live)[..at]).is_err());
    }
    assert!(Segments::parse(&Segments(vec![4, 4]).to_bytes()).is_err());
}

#[test]
fn every_body_fits_an_entry_and_the_largest_entry_fits_a_group() {
    let mut many = open();
    many.group = Name::new(&"g".repeat(64)).unwrap();
    many.source = Name::new(&"s".repeat(64)).unwrap();
    many.volumes = (0..STREAM_VOLUMES_MAX as u16)
        .map(|index| VolumeSpec {
            index: VolumeIndex(index),
            name: Name::new(&"v".repeat(64)).unwrap(),
            identity: "i".repeat(256),
            ..open().volumes[0].clone()
        })
        .collect();
    let marks = 18 + 8 * SETTLE_VOIDS_MAX;
    let live = 2 + 20 * SEGMENTS_MAX;
    for body in [
        many.to_bytes().len(),
        marks,
        live,
        ENTRY_BODY_BYTES_MAX as usize,
    ] {
        assert!(body <= ENTRY_BODY_BYTES_MAX as usize);
        assert!(group_bytes(entry_bytes(body)) <= GROUP_BYTES_MAX as usize);
    }
}

proptest! {
    #[test]
    fn parsing_is_total(head in any::<[u8; 64]>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = SegmentHeader::parse(&head);
        let _ = GroupHeader::parse(&head);
        let _ = EntryHeader::parse(&head);
        if let Ok(open) = StreamOpen::parse(&body) {
            prop_assert_eq!(open.to_bytes(), body.clone());
        }
        if let Ok(live) = LiveSegment::parse_list(&body) {
            prop_assert_eq!(LiveSegment::list_to_bytes(&live), body.clone());
        }
        let _ = (StreamLost::parse(&body), StreamClose::parse(&body), Segments::parse(&body));
    }
}
