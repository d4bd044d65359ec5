//! Descriptors as words: golden places, and hostile content.

use super::*;
use proptest::prelude::*;

fn fields() -> RecordFields {
    RecordFields::write(VolumeIndex(0x0102), 0x1000, 1024, true)
}

fn placed(start: u64, end: u64) -> Descriptor {
    Descriptor {
        mark: 0x55,
        start,
        end,
        ..Descriptor::of_fields(fields())
    }
}

fn geometry() -> Geometry {
    Geometry::new(8, 32)
}

#[test]
fn the_words_of_a_descriptor_lie_where_the_document_says() {
    let words = placed(0x11, 0x13).to_words();
    let volume = u64::from_ne_bytes([2, 1, RecordKind::Write as u8, 1, 0, 0, 0, 0]);
    let lengths = u64::from(1024u32) | u64::from(1024u32) << 32;
    assert_eq!(words, [0x55, 0x1000, lengths, 0x11, 0x13, volume, 0]);
    assert_eq!(Descriptor::from_words(words), placed(0x11, 0x13));
}

#[test]
fn every_word_is_either_of_the_place_or_of_the_fields() {
    let stamp = 7;
    let (start, end) = (0x11, 0x13);
    let place = Descriptor::new(Placement { stamp, start, end }, 0x55);
    let fields = Descriptor::of_fields(fields());
    let mut words = [u64::MAX; DESCRIPTOR_WORDS - 1];
    for index in PLACE_WORDS {
        words[index - 1] = place.word(index);
    }
    for index in FIELD_WORDS {
        words[index - 1] = fields.word(index);
    }
    assert_eq!(words, placed(start, end).to_words());
}

#[test]
fn a_state_word_tells_laps_and_states_apart() {
    for state in [
        State::Opening,
        State::Claimed,
        State::Filled,
        State::Settled,
        State::Void,
    ] {
        let word = StateWord::unpack(StateWord::pack(9, state));
        assert_eq!(
            word,
            StateWord {
                stamp: 9,
                state: Some(state)
            }
        );
        assert_eq!(word.filled_as(9).is_some(), state >= State::Filled);
        assert_eq!(word.done_as(9).is_some(), state >= State::Settled);
        assert_eq!(word.filled_as(17), None, "the slot of another lap");
    }
    for code in 5..8 {
        assert_eq!(StateWord::unpack(9 << 3 | code).filled_as(9), None);
    }
}

#[test]
fn every_impossible_field_is_named() {
    let freed = Cursor {
        stamp: 6,
        position: 16,
    };
    let check = |descriptor: Descriptor| descriptor.check(7, freed, geometry());
    let good = placed(16, 18);
    assert_eq!(check(good), Ok(fields()));
    let with = |change: fn(&mut Descriptor)| {
        let mut bad = good;
        change(&mut bad);
        check(bad)
    };
    assert_eq!(with(|d| d.start = 15), Err("payload position"));
    assert_eq!(with(|d| d.start = u64::MAX), Err("payload position"));
    assert_eq!(with(|d| d.end = 17), Err("payload length"));
    assert_eq!(with(|d| d.end = 16), Err("payload length"));
    assert_eq!(with(|d| d.end = 49), Err("payload position"));
    assert_eq!(
        with(|d| (d.start, d.end) = (31, 33)),
        Err("payload position")
    );
    assert_eq!(with(|d| d.what &= !(0xff << KIND_SHIFT)), Err("kind"));
    assert_eq!(with(|d| d.what |= 0xf0 << KIND_SHIFT), Err("kind"));
    assert_eq!(with(|d| d.what |= 2 << FLAGS_SHIFT), Err("flags"));
    assert_eq!(with(|d| d.what |= 1 << 32), Err("flags"));
    assert_eq!(with(|d| d.what |= 1 << 63), Err("flags"));
    assert_eq!(with(|d| d.zero = 1 << 63), Err("flags"));
    assert_eq!(with(|d| d.length_bytes = 512), Err("range"));
    assert_eq!(with(|d| d.offset_bytes = 1), Err("range"));
    assert_eq!(with(|d| d.offset_bytes = u64::MAX - 511), Err("range"));
    assert_eq!(good.check(15, freed, geometry()), Err("payload position"));
    assert_eq!(good.check(6, freed, geometry()), Err("payload position"));
}

proptest! {
    #[test]
    fn checking_is_total_and_what_passes_lies_inside_the_area(words: [u64; 7], stamp: u64) {
        let freed = Cursor { stamp: 100, position: 64 };
        let descriptor = Descriptor::from_words(words);
        prop_assert_eq!(descriptor.to_words(), words);
        if let Ok(fields) = descriptor.check(stamp, freed, geometry()) {
            let first_byte = geometry().byte_of(descriptor.start) as u64;
            prop_assert!(first_byte + u64::from(fields.payload_bytes) <= 32 * 512);
        }
    }

    #[test]
    fn bent_positions_and_lengths_never_reach_outside(
        start in 0u64..200, end in 0u64..200, payload in 0u32..20_000, stamp in 90u64..120,
    ) {
        let freed = Cursor { stamp: 100, position: 64 };
        let mut descriptor = placed(start, end);
        (descriptor.payload_bytes, descriptor.length_bytes) = (payload, payload);
        if descriptor.check(stamp, freed, geometry()).is_ok() {
            let first_byte = geometry().byte_of(start) as u64;
            prop_assert!(first_byte + u64::from(payload) <= 32 * 512);
        }
    }
}
