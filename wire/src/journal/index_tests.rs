//! Indexes and the bodies of history: golden bytes, every cut, every flipped bit, noise.

use super::*;
use crate::record::{RecordHeader, RecordKind};
use crate::stamp::{Stamp, TimeMark};
use crate::volume::VolumeIndex;
use crate::{Member, MemberAction, Name, SettleMark, VolumeSpec};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn record(kind: RecordKind, stamp: u64, payload: &[u8]) -> RecordHeader {
    let ranged = matches!(kind, RecordKind::Write | RecordKind::Discard);
    RecordHeader {
        kind,
        fua: stamp.is_multiple_of(2),
        volume: VolumeIndex(1),
        stamp: Stamp(stamp),
        mark: TimeMark(stamp * 16),
        offset_bytes: if ranged { 4096 } else { 0 },
        length_bytes: if ranged { 512 } else { 0 },
        payload_bytes: payload.len() as u32,
        incarnation_id: 0xa0a1_a2a3_a4a5_a6a7_a8a9_aaab_acad_aeaf,
        checksum: 0,
    }
    .sealed(payload)
}

fn rows() -> Vec<IndexRow> {
    let stream = StreamNumber(9);
    let mark = SettleMark {
        after: Stamp(0),
        upto: Stamp(2),
        voids: vec![Stamp(2)],
    };
    let member = Member {
        action: MemberAction::Join,
        spec: VolumeSpec {
            index: VolumeIndex(1),
            name: Name::new("wal").unwrap(),
            size_bytes: 1 << 20,
            sector_bytes: 512,
            identity: "file:1:2".into(),
        },
    };
    let note = member.to_bytes();
    let body = mark.to_bytes();
    let sum = body_checksum(&body);
    let what = [
        Indexed::Record(record(RecordKind::Write, 1, &[7; 512]), Vec::new()),
        Indexed::small(EntryKind::Settle, body, sum),
        Indexed::Record(record(RecordKind::Discard, 2, &[]), Vec::new()),
        Indexed::Record(record(RecordKind::Member, 3, &note), note),
        Indexed::small(EntryKind::Open, vec![3; INDEX_BODY_BYTES_MAX + 1], 5),
        Indexed::Record(record(RecordKind::Void, 4, &[]), Vec::new()),
    ];
    let offsets = (0..).map(|at| 8192 + at * 8192);
    let rows = what.into_iter().zip(offsets);
    rows.map(|(what, offset_bytes)| IndexRow {
        stream,
        offset_bytes,
        what,
    })
    .collect()
}

fn built(rows: &[IndexRow]) -> Vec<Vec<u8>> {
    let mut builder = IndexBuilder::default();
    for row in rows {
        builder.add(row);
    }
    let lengths: Vec<usize> = builder.part_bytes().collect();
    let parts = builder.finish(17, 21);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    parts
}

#[test]
fn the_golden_bytes_of_an_index_do_not_change() {
    let golden = concat!(
        "0000000001000000",
        "1100000000000000",
        "1500000000000000",
        "0200000002000000",
        // Streams: of the record, of the settle mark.
        "0900000000000000",
        "afaeadacabaaa9a8a7a6a5a4a3a2a1a0",
        "0900000000000000",
        "00000000000000000000000000000000",
        // The record.
        "01010100",
        "00200000",
        "00000000",
        "00020000",
        "0100000000000000",
        "1000000000000000",
        "0010000000000000",
        "90f80f762dd21685",
        // The settle mark.
        "02000000",
        "00400000",
        "01000000",
        "1a000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "ddb35967cc3f9e8f",
        // Its body.
        "0000000000000000",
        "0200000000000000",
        "0100",
        "0200000000000000",
    );
    assert_eq!(hex(&built(&rows()[..2])[0]), golden);
}

#[test]
fn the_golden_bytes_of_the_bodies_of_history_do_not_change() {
    let epoch = Epoch {
        closed: true,
        after: Stamp(1),
        upto: Stamp(2),
        reason: "x".into(),
    };
    assert_eq!(
        hex(&epoch.to_bytes()),
        "0101000000000000000200000000000000010078"
    );
    let bookmark = Bookmark {
        group: Name::new("pg").unwrap(),
        name: "n".into(),
        mark: TimeMark(3),
        stamps: vec![(StreamNumber(4), Stamp(5))],
    };
    assert_eq!(
        hex(&bookmark.to_bytes()),
        "0200706701006e0300000000000000010004000000000000000500000000000000"
    );
    let golden = concat!(
        "0100000000000000",
        "0200000000000000",
        "0300000000000000",
        "0010000000000000",
        "0002000000020000",
        "0700010000000000",
        "00000000000000000000000000000000",
    );
    assert_eq!(hex(&folded().to_bytes()), golden);
    assert_eq!(Epoch::parse(&epoch.to_bytes()), Ok(epoch.clone()));
    assert_eq!(Bookmark::parse(&bookmark.to_bytes()), Ok(bookmark.clone()));
    let whole = [folded().to_bytes(), vec![1; 512]].concat();
    assert_eq!(Folded::parse(&whole), Ok(folded()));
    for cut in 0..whole.len() {
        assert!(Folded::parse(&whole[..cut]).is_err());
    }
    for cut in 0..epoch.to_bytes().len() {
        assert!(Epoch::parse(&epoch.to_bytes()[..cut]).is_err());
    }
    for cut in 0..bookmark.to_bytes().len() {
        assert!(Bookmark::parse(&bookmark.to_bytes()[..cut]).is_err());
    }
    let endless = Epoch {
        closed: false,
        ..epoch
    };
    assert!(Epoch::parse(&endless.to_bytes()).is_err());
}

fn folded() -> Folded {
    Folded {
        after: Stamp(1),
        upto: Stamp(2),
        mark: TimeMark(3),
        offset_bytes: 4096,
        length_bytes: 512,
        payload_bytes: 512,
        volume: VolumeIndex(7),
        last: true,
    }
}

#[test]
fn an_index_reads_back_and_every_cut_of_it_is_refused() {
    let rows = rows();
    let parts = built(&rows);
    let part = IndexPart::parse(&parts[0]).unwrap();
    assert_eq!((part.part, part.parts), (0, 1));
    assert_eq!((part.groups_first, part.groups_end), (17, 21));
    assert_eq!(part.rows, rows);
    for cut in 0..parts[0].len() {
        assert!(IndexPart::parse(&parts[0][..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn no_flipped_bit_of_an_index_panics_or_reads_as_the_same() {
    let parts = built(&rows());
    let whole = IndexPart::parse(&parts[0]).unwrap();
    for bit in 0..parts[0].len() * 8 {
        let mut bad = parts[0].clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // The checksum of the entry it is in comes first; this is what lies behind that.
        assert_ne!(
            IndexPart::parse(&bad).ok().as_ref(),
            Some(&whole),
            "bit {bit}"
        );
    }
}

#[test]
fn an_index_of_many_rows_is_cut_into_parts_that_fit_an_entry() {
    let one = &rows()[0];
    let many = (0..60_000u32).map(|at| IndexRow {
        offset_bytes: 4096 + at * 640,
        stream: StreamNumber(u64::from(at / 100)),
        ..one.clone()
    });
    let many: Vec<IndexRow> = many.collect();
    let parts = built(&many);
    assert!(parts.len() > 2, "{} parts", parts.len());
    let mut read = Vec::new();
    for (at, body) in parts.iter().enumerate() {
        assert!(body.len() <= ENTRY_BODY_BYTES_MAX as usize);
        let part = IndexPart::parse(body).unwrap();
        assert_eq!((part.part as usize, part.parts as usize), (at, parts.len()));
        read.extend(part.rows);
    }
    assert_eq!(read, many);
}

proptest! {
    #[test]
    fn parsing_is_total(body in proptest::collection::vec(any::<u8>(), 0..300), streams in 0u32..3, rows in 0u32..4) {
        let _ = IndexPart::parse(&body);
        let mut framed = vec![0; 24];
        framed[4] = 1;
        framed.extend(streams.to_le_bytes());
        framed.extend(rows.to_le_bytes());
        framed.extend(&body);
        let _ = IndexPart::parse(&framed);
        let _ = (Epoch::parse(&body), Bookmark::parse(&body), Folded::parse(&body));
    }
}
