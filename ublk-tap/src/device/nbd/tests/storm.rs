//! Many clients that ask for anything at all, listen or not, and leave when they like.

use super::client::*;
use super::stage::{Setup, Stage, eventually};
use crate::device::Shape;
use proptest::prelude::*;
use std::io::Write;

#[derive(Clone, Debug)]
struct Asked {
    command: u16,
    flags: u16,
    at: u64,
    length: u32,
    /// Of its payload, what is sent before the client leaves; all, mostly.
    sent: Option<u32>,
}

#[derive(Clone, Debug)]
struct Visit {
    is_structured: bool,
    asked: Vec<Asked>,
    listens: bool,
    noise: Vec<u8>,
}

fn any_asked() -> impl Strategy<Value = Asked> {
    let command = prop_oneof![4 => Just(WRITE), 2 => Just(READ), 1 => Just(ZEROES), 1 => Just(TRIM),
        1 => Just(FLUSH), 1 => Just(STATUS), 1 => any::<u16>()];
    let flags = prop_oneof![6 => Just(0), 2 => Just(FUA), 1 => any::<u16>()];
    let at = prop_oneof![8 => (0_u64..4096).prop_map(|sector| sector * 512), 1 => any::<u64>()];
    let length = prop_oneof![8 => (1_u32..600).prop_map(|sectors| sectors * 512), 1 => 0_u32..3000];
    let sent = prop_oneof![9 => Just(None), 1 => (0_u32..5000).prop_map(Some)];
    (command, flags, at, length, sent).prop_map(|(command, flags, at, length, sent)| Asked {
        command,
        flags,
        at,
        length,
        sent,
    })
}

fn any_visit() -> impl Strategy<Value = Visit> {
    let asked = proptest::collection::vec(any_asked(), 0..24);
    let noise = prop_oneof![3 => Just(vec![]), 1 => proptest::collection::vec(any::<u8>(), 1..64)];
    (any::<bool>(), asked, any::<bool>(), noise).prop_map(
        |(is_structured, asked, listens, noise)| Visit {
            is_structured,
            asked,
            listens,
            noise,
        },
    )
}

/// Plays a visit; an error is the server's way to say that it has enough of it.
fn visit(stage: &Stage, visit: &Visit) -> std::io::Result<()> {
    let mut taken = None;
    eventually("there is a place", || {
        taken = Client::try_connect(&stage.path(), visit.is_structured).ok();
        taken.is_some()
    });
    let mut client = taken.expect("it was waited for");
    let mut answers = 0;
    for asked in &visit.asked {
        if asked.command == DISC {
            continue;
        }
        let payload = match asked.command {
            WRITE => vec![(asked.at / 512 + u64::from(asked.length)) as u8; asked.length as usize],
            _ => Vec::new(),
        };
        let most = asked
            .sent
            .map_or(payload.len(), |sent| payload.len().min(sent as usize));
        let what = (asked.command, asked.flags);
        client.try_ask(what, asked.at, asked.length, &payload[..most])?;
        if most < payload.len() {
            return Ok(());
        }
        answers += 1;
    }
    if visit.listens {
        for _ in 0..answers {
            client.try_answer()?;
        }
    }
    client.socket.write_all(&visit.noise)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 50, ..ProptestConfig::with_cases(24) })]
    #[test]
    fn whatever_clients_do_the_records_make_the_disk(
        visits in proptest::collection::vec(any_visit(), 1..30),
        depth in 1_u16..40,
    ) {
        let mut stage = Stage::new(Setup {
            size_bytes: 2 << 20,
            ring_bytes: 4 << 20,
            shape: Shape { depth, io_bytes_max: 64 << 10, ..Shape::default() },
            ..Setup::default()
        });
        std::thread::scope(|scope| {
            for some in visits.chunks(visits.len().div_ceil(6)) {
                let stage = &stage;
                scope.spawn(move || for one in some {
                    let listened = visit(stage, one);
                    assert!(listened.is_ok() || !one.listens, "{listened:?}");
                });
            }
        });
        eventually("all are gone", || stage.device.clients() == 0);
        stage.agrees();
        prop_assert_eq!(stage.device.stats().in_flight, 0);
        // It serves the next one as if nothing had been.
        stage.client().write(0, &[1; 512]);
        stage.stop();
        stage.agrees();
    }
}
