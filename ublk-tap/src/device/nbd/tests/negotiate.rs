//! Conversations, byte for byte; and what no client should say.

use super::super::negotiate::{Export, Haggle, OPTION_BYTES_MAX, Step, Terms};
use proptest::prelude::*;

fn export() -> Export {
    Export {
        name: "data".into(),
        description: "pg/data".into(),
        size_bytes: 0x10_0000,
        sector_bytes: 512,
        preferred_bytes: 4096,
        flags: 0x016d,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Says all of `input`; what was answered after the greeting, and how it ended.
fn talk(input: &[u8]) -> (Vec<u8>, Step) {
    let export = export();
    let mut out = Vec::new();
    let mut haggle = Haggle::new(&export, &mut out);
    out.clear();
    let mut at = 0;
    loop {
        match haggle.step(&input[at..], &mut out) {
            Step::Took(count) => {
                assert!(count > 0, "it goes on");
                at += count;
            }
            Step::Agreed(count, terms) => {
                return (out, Step::Agreed(at + count, terms));
            }
            end => return (out, end),
        }
    }
}

const FLAGS: [u8; 4] = [0, 0, 0, 3];

fn said(options: &[Vec<u8>]) -> Vec<u8> {
    [FLAGS.to_vec()]
        .iter()
        .chain(options)
        .flatten()
        .copied()
        .collect()
}

/// `INFO` or `GO` of the default export, with nothing asked.
const PLAIN: [u8; 6] = [0; 6];

#[test]
fn the_greeting_is_these_bytes() {
    let mut out = Vec::new();
    Haggle::new(&export(), &mut out);
    assert_eq!(hex(&out), "4e42444d4147494349484156454f50540003");
}

#[test]
fn a_modern_client_gets_structured_replies_a_context_and_the_block_size() {
    let query = unhex("00000004 64617461 00000001 0000000f 626173653a616c6c6f636174696f6e");
    let input = said(&[
        option(8, &[]),
        option(10, &query),
        option(7, &unhex("00000004 64617461 0001 0003")),
    ]);
    let (out, end) = talk(&input);
    let terms = Terms {
        is_structured: true,
        has_allocation: true,
    };
    assert_eq!(end, Step::Agreed(input.len(), terms));
    let expected = [
        "0003e889045565a9 00000008 00000001 00000000",
        "0003e889045565a9 0000000a 00000004 00000013 00000001 626173653a616c6c6f636174696f6e",
        "0003e889045565a9 0000000a 00000001 00000000",
        "0003e889045565a9 00000007 00000003 0000000c 0000 0000000000100000 01ed",
        "0003e889045565a9 00000007 00000003 0000000e 0003 00000200 00001000 02000000",
        "0003e889045565a9 00000007 00000001 00000000",
    ];
    assert_eq!(hex(&out), hex(&unhex(&expected.concat())));
}

#[test]
fn an_old_client_names_its_export_and_may_want_zeroes() {
    let (out, end) = talk(&said(&[option(1, b"data")]));
    assert_eq!(end, Step::Agreed(4 + 20, Terms::default()));
    assert_eq!(hex(&out), "0000000000100000016d");
    let with_zeroes = [[0, 0, 0, 1].to_vec(), option(1, b"")].concat();
    let (out, _) = talk(&with_zeroes);
    assert_eq!(
        (out.len(), out[10..].iter().all(|byte| *byte == 0)),
        (134, true)
    );
    assert_eq!(talk(&said(&[option(1, b"other")])).1, Step::End);
}

#[test]
fn names_descriptions_and_lists_are_told() {
    let (out, _) = talk(&said(&[
        option(3, &[]),
        option(6, &unhex("00000000 0002 0001 0002")),
    ]));
    let expected = [
        "0003e889045565a9 00000003 00000002 00000008 00000004 64617461",
        "0003e889045565a9 00000003 00000001 00000000",
        "0003e889045565a9 00000006 00000003 0000000c 0000 0000000000100000 016d",
        "0003e889045565a9 00000006 00000003 00000006 0001 64617461",
        "0003e889045565a9 00000006 00000003 00000009 0002 70672f64617461",
        "0003e889045565a9 00000006 00000003 0000000e 0003 00000200 00001000 02000000",
        "0003e889045565a9 00000006 00000001 00000000",
    ];
    assert_eq!(hex(&out), hex(&unhex(&expected.concat())));
}

/// The answers to options, as (option, kind).
fn answers(out: &[u8]) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    let mut rest = out;
    while !rest.is_empty() {
        let word = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
        found.push((word(8), word(12)));
        rest = &rest[20 + word(16) as usize..];
    }
    found
}

const UNSUP: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;
const TOO_BIG: u32 = 0x8000_0009;

#[test]
fn what_is_refused_is_refused_in_the_words_of_the_protocol_and_haggling_goes_on() {
    let huge = vec![0; OPTION_BYTES_MAX as usize + 1];
    let allocation = unhex("00000000 00000001 0000000f 626173653a616c6c6f636174696f6e");
    let cases: [(u32, Vec<u8>, u32); 15] = [
        (5, vec![], UNSUP),  // TLS
        (11, vec![], UNSUP), // extended headers
        (0xffff_ffff, vec![7; 99], UNSUP),
        (3, vec![0], INVALID),
        (8, vec![0], INVALID),
        (7, vec![], INVALID),
        (7, unhex("00000004 6461"), INVALID),
        (7, unhex("ffffffff 0000"), INVALID),
        (7, unhex("00000000 0005 0001"), INVALID),
        (7, unhex("00000005 6f74686572 0000"), UNKNOWN),
        (6, unhex("00000000 0000 00"), INVALID),
        (7, huge.clone(), TOO_BIG),
        (10, allocation, INVALID), // without structured replies
        (9, unhex("00000000 ffffffff"), INVALID),
        (0, huge, TOO_BIG),
    ];
    let options: Vec<Vec<u8>> = cases.iter().map(|(n, data, _)| option(*n, data)).collect();
    let mut input = said(&options);
    input.extend(option(7, &PLAIN));
    let (out, end) = talk(&input);
    assert_eq!(end, Step::Agreed(input.len(), Terms::default()));
    let expected: Vec<(u32, u32)> = cases.iter().map(|(n, _, kind)| (*n, *kind)).collect();
    assert_eq!(answers(&out)[..cases.len()], expected);
}

#[test]
fn contexts_are_listed_set_and_set_anew() {
    let ask = |number: u32, queries: &[&str]| {
        let mut data = vec![0; 4];
        data.extend((queries.len() as u32).to_be_bytes());
        for query in queries {
            data.extend((query.len() as u32).to_be_bytes());
            data.extend(query.as_bytes());
        }
        option(number, &data)
    };
    let ends = |options: &[Vec<u8>]| {
        let mut input = said(&[option(8, &[])]);
        input.extend(options.concat());
        input.extend(option(7, &PLAIN));
        let (out, end) = talk(&input);
        let Step::Agreed(_, terms) = end else {
            panic!("{end:?}")
        };
        let contexts = answers(&out).iter().filter(|(_, kind)| *kind == 4).count();
        (contexts, terms.has_allocation)
    };
    let base = "base:allocation";
    assert_eq!(ends(&[ask(9, &[])]), (1, false), "all are listed");
    assert_eq!(ends(&[ask(9, &["base:"])]), (1, false));
    assert_eq!(ends(&[ask(9, &["qemu:dirty-bitmap:x"])]), (0, false));
    assert_eq!(ends(&[ask(10, &["base:"])]), (0, false), "no wildcard here");
    assert_eq!(ends(&[ask(10, &["x-y:z", base, base])]), (1, true), "once");
    assert_eq!(ends(&[ask(10, &[base]), ask(10, &[])]), (1, false));
    let broken = option(10, &[9]);
    assert_eq!(ends(&[ask(10, &[base]), broken]), (1, false));
}

#[test]
fn what_is_no_client_is_left_alone() {
    assert_eq!(talk(&[0, 0, 0, 4]).1, Step::End, "unknown flags");
    assert_eq!(talk(&said(&[b"NOTMAGIC".to_vec()])).1, Step::End);
    let (out, end) = talk(&said(&[option(2, b"bye")]));
    assert_eq!((answers(&out), end), (vec![(2, 1)], Step::End));
    // The oldest option cannot be refused but by leaving.
    let long = vec![b'x'; OPTION_BYTES_MAX as usize + 1];
    assert_eq!(talk(&said(&[option(1, &long)])).1, Step::End);
}

#[test]
fn a_conversation_cut_anywhere_waits_for_more_and_says_what_it_said_so_far() {
    let whole = said(&[
        option(8, &[]),
        option(99, &[1, 2, 3]),
        option(3, &[]),
        option(7, &unhex("00000004 64617461 0001 0003")),
    ]);
    let (all, end) = talk(&whole);
    assert!(matches!(end, Step::Agreed(..)));
    for cut in 0..whole.len() {
        let (out, end) = talk(&whole[..cut]);
        assert_eq!(end, Step::NeedMore, "cut at {cut}");
        assert_eq!(out, all[..out.len()]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_a_client_says_is_more_than_an_answer_or_the_end(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        numbers in proptest::collection::vec((0_u32..13, 0_usize..40), 0..9),
    ) {
        talk(&bytes);
        // Now with options whose data is made of that noise.
        let mut options = Vec::new();
        let mut rest = bytes.as_slice();
        for (number, length) in numbers {
            let (data, more) = rest.split_at(length.min(rest.len()));
            rest = more;
            options.push(option(number, data));
        }
        let (out, _) = talk(&said(&options));
        prop_assert!(out.len() < 64 << 10);
    }

    #[test]
    fn a_string_inside_an_option_never_reaches_beyond_it(
        length in prop_oneof![any::<u32>(), 0_u32..20],
        count in prop_oneof![any::<u32>(), 0_u32..4],
        noise in proptest::collection::vec(any::<u8>(), 0..24),
    ) {
        for number in [6, 7, 9, 10] {
            let mut data = length.to_be_bytes().to_vec();
            data.extend(&noise);
            data.extend(count.to_be_bytes());
            let (out, _) = talk(&said(&[option(8, &[]), option(number, &data)]));
            prop_assert!(answers(&out).len() >= 2);
        }
    }
}
