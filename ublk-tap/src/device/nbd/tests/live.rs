//! Clients that behave, and clients that do not.

use super::client::*;
use super::stage::{PATIENCE, Setup, Stage, eventually};
use crate::device::error::StopError;
use crate::device::{RetireError, Shape};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 512 * 7 + seed) as u8).collect()
}

#[test]
fn what_is_written_is_read_on_the_disk_and_in_the_records() {
    let mut stage = Stage::new(Setup::default());
    for is_structured in [true, false] {
        let mut client = Client::connect(&stage.path(), is_structured);
        for (at, length) in [(0, 512), (4096, 4096), (1 << 20, 3 << 20), (512, 1536)] {
            let bytes = pattern(length, at as usize + usize::from(is_structured));
            client.write(at, &bytes);
            assert_eq!(client.read(at, length as u32), bytes);
            assert_eq!(stage.disk_bytes(at, length), bytes);
        }
        let durable = pattern(8192, 3);
        assert_eq!(client.call((WRITE, FUA), 8 << 20, 8192, &durable).error, 0);
        assert_eq!(client.call((ZEROES, 0), 1 << 20, 1 << 20, &[]).error, 0);
        assert_eq!(client.call((ZEROES, 2 | FUA), 2 << 20, 4096, &[]).error, 0);
        assert_eq!(client.call((TRIM, FUA), 3 << 20, 1 << 20, &[]).error, 0);
        assert_eq!(client.call((FLUSH, 0), 0, 0, &[]).error, 0);
        assert_eq!(client.read(1 << 20, 1 << 20), vec![0; 1 << 20]);
        assert_eq!(client.read(3 << 20, 1 << 20), vec![0; 1 << 20]);
        client.ask((DISC, 0), 0, 0, &[]);
        assert!(client.is_left());
    }
    stage.agrees();
    assert!(stage.device.stats().captured_requests >= 14);
    stage.stop();
    assert_eq!(stage.device.stats().in_flight, 0);
    assert!(!stage.path().exists(), "the socket goes with it");
}

#[test]
fn the_largest_requests_go_in_parts_and_come_back_whole() {
    let stage = Stage::new(Setup::default());
    let mut client = stage.client();
    let bytes = pattern(32 << 20, 9);
    let before = stage.ring.captured();
    client.write(8 << 20, &bytes);
    let records = stage.ring.captured().records_since(before);
    assert_eq!(records, 64, "a record is 512 KiB at most");
    assert!(client.read(8 << 20, 32 << 20) == bytes);
    // More than its budget at once: one after the other.
    for at in [0, 16 << 20, 32 << 20] {
        client.ask((READ, 0), at, 32 << 20, &[]);
    }
    assert!((0..3).all(|_| client.answer().data.len() == 32 << 20));
    stage.agrees();
}

#[test]
fn what_does_not_fit_is_refused_and_the_connection_lives() {
    let stage = Stage::new(Setup::default());
    let mut client = stage.client();
    let size = 64 << 20;
    assert_eq!(client.call((WRITE, 0), 100, 512, &[1; 512]).error, EINVAL);
    assert_eq!(client.call((WRITE, 0), 0, 100, &[1; 100]).error, EINVAL);
    assert_eq!(client.call((READ, 0), 1, 512, &[]).error, EINVAL);
    assert_eq!(client.call((WRITE, 0), size, 512, &[1; 512]).error, ENOSPC);
    assert_eq!(client.call((READ, 0), size - 512, 1024, &[]).error, EINVAL);
    assert_eq!(client.call((77, 0), 0, 512, &[]).error, EINVAL);
    let huge = vec![1; (32 << 20) + 4096];
    let refused = client.call((WRITE, 0), 0, huge.len() as u32, &huge);
    assert_eq!(refused.error, EINVAL, "and its payload is passed over");
    client.write(0, &[7; 512]);
    assert_eq!(
        stage.ring.captured().0,
        1,
        "nothing of the others was taken"
    );
}

#[test]
fn what_is_allocated_is_told() {
    let stage = Stage::new(Setup::default());
    let mut client = stage.client();
    client.write(1 << 20, &[7; 65536]);
    let answer = client.call((STATUS, 0), 0, 4 << 20, &[]);
    let words: Vec<u32> = answer
        .data
        .chunks(4)
        .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!((words[0], &words[1..5]), (1, &[1 << 20, 3, 65536, 0][..]));
}

#[test]
fn a_write_that_waits_for_room_holds_up_no_read_behind_it() {
    let mut stage = Stage::new(Setup {
        ring_bytes: 4 << 20,
        ..Setup::default()
    });
    let mut client = stage.client();
    client.write(0, &pattern(65536, 1));
    stage.is_stalled.store(true, Ordering::Release);
    // Fills the ring, and waits with what does not fit.
    let waiting = client.ask_write(1 << 20, &pattern(8 << 20, 2));
    eventually("it waits", || !stage.parking.is_empty());
    for _ in 0..100 {
        assert_eq!(client.read(0, 65536), pattern(65536, 1));
    }
    assert_eq!(client.call((FLUSH, 0), 0, 0, &[]).error, 0);
    assert!(!stage.parking.is_empty(), "it still does");
    assert!(stage.device.stats().parked > 0);
    // Who removes the volume now is told that it is not done.
    assert_eq!(stage.device.stop(Duration::ZERO), Err(StopError::Draining));
    assert_eq!(client.call((READ, 0), 0, 512, &[]).error, ESHUTDOWN);
    assert_eq!(client.call((WRITE, 0), 0, 512, &[1; 512]).error, ESHUTDOWN);
    stage.is_stalled.store(false, Ordering::Release);
    let answer = client.answer();
    assert_eq!(
        (answer.cookie, answer.error),
        (waiting, 0),
        "what was taken is finished"
    );
    assert!(client.is_left());
    stage.stop();
    stage.agrees();
    assert_eq!(stage.disk_bytes(1 << 20, 8 << 20), pattern(8 << 20, 2));
}

#[test]
fn writes_that_wait_say_so_before_the_socket_is_no_longer_read() {
    let stage = Stage::new(Setup {
        ring_bytes: 4 << 20,
        ..Setup::default()
    });
    let mut client = stage.client();
    stage.is_stalled.store(true, Ordering::Release);
    client.ask_write(0, &pattern(24 << 20, 2));
    eventually("it waits", || !stage.parking.is_empty());
    assert!(
        stage.parking.crowded_since().is_none(),
        "reads have their way"
    );
    // There is no memory for this one, and nobody sees what is behind it.
    let path = stage.path();
    let other = std::thread::spawn(move || {
        let mut other = Client::connect(&path, false);
        other.write(60 << 20, &[1; 512]);
    });
    let header = {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 99]);
        bytes.extend(0_u64.to_be_bytes());
        bytes.extend((16_u32 << 20).to_be_bytes());
        bytes
    };
    client.socket.write_all(&header).unwrap();
    eventually("it is told", || stage.parking.crowded_since().is_some());
    stage.ring.close(); // what the group does then
    stage.parking.kick();
    client.socket.write_all(&vec![5; 16 << 20]).unwrap();
    assert_eq!((client.answer().error, client.answer().error), (0, 0));
    other.join().unwrap();
    eventually("all is well", || stage.parking.crowded_since().is_none());
    assert_eq!(stage.disk_bytes(0, 16 << 20), vec![5; 16 << 20]);
    assert!(stage.device.stats().uncaptured_bytes > 0);
}

#[test]
fn a_client_that_hangs_up_leaves_whole_writes_on_disk_and_in_the_ring_and_no_half_ones() {
    let mut stage = Stage::new(Setup {
        ring_bytes: 4 << 20,
        ..Setup::default()
    });
    for round in 0..30 {
        if round == 29 {
            eventually("the others are gone", || stage.device.clients() == 0);
        }
        let mut client = stage.client();
        for turn in 0..8 {
            client.ask_write(turn << 20, &pattern(1 << 20, round + turn as usize));
        }
        // Half of one more.
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 99]);
        bytes.extend((32_u64 << 20).to_be_bytes());
        bytes.extend((1_u32 << 20).to_be_bytes());
        bytes.extend(vec![1; 1 << 19]);
        client.socket.write_all(&bytes).unwrap();
        if round % 2 == 0 {
            client.socket.shutdown(Shutdown::Both).unwrap();
        }
        drop(client);
    }
    eventually("all are gone", || stage.device.clients() == 0);
    stage.agrees();
    assert_eq!(stage.voids(), 0);
    assert_eq!(stage.disk_bytes(32 << 20, 1 << 20), vec![0; 1 << 20]);
    let done: Vec<u8> = stage.disk_bytes(7 << 20, 1 << 20);
    assert_eq!(done, pattern(1 << 20, 29 + 7));
    stage.stop();
}

#[test]
fn a_client_that_asks_and_never_listens_is_bounded_and_let_go_of() {
    let mut stage = Stage::new(Setup::default());
    let mut client = stage.client();
    client
        .socket
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut header = 0x2560_9513_u32.to_be_bytes().to_vec();
    header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    header.extend(0_u64.to_be_bytes());
    header.extend((1_u32 << 20).to_be_bytes());
    let asked = (0..1 << 16).take_while(|_| client.socket.write_all(&header).is_ok());
    assert!(asked.count() < 1 << 15, "it is no longer read");
    stage.stop();
    assert!(client.socket.read(&mut [0; 1]).is_ok());
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let stage = Stage::new(Setup::default());
    let mut good = stage.client();
    let mut bad = stage.client();
    let waiting = bad.ask_write(0, &pattern(1 << 20, 5));
    bad.socket.write_all(&[0x13; 200]).unwrap();
    assert_eq!(
        bad.answer().cookie,
        waiting,
        "what was asked before is answered"
    );
    assert!(bad.is_left());
    let mut shy = UnixStream::connect(stage.path()).unwrap();
    shy.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    shy.read_to_end(&mut Vec::new()).unwrap();
    good.write(4096, &[1; 4096]);
    stage.agrees();
}

#[test]
fn so_many_clients_are_taken_and_no_more() {
    let stage = Stage::new(Setup::default());
    let mut clients: Vec<Client> = (0..16).map(|_| stage.client()).collect();
    assert!(Client::try_connect(&stage.path(), true).is_err());
    assert_eq!(stage.device.clients(), 16);
    clients
        .iter_mut()
        .for_each(|client| client.write(0, &[1; 512]));
    clients.pop();
    eventually("there is a place", || {
        Client::try_connect(&stage.path(), true).is_ok()
    });
    assert_eq!(stage.device.stats().captured_requests, 16);
}

#[test]
fn a_flush_covers_what_other_connections_wrote() {
    // A sync of the disk itself has no connection; here only that it is made and answered amid writes.
    let stage = Stage::new(Setup::default());
    let (mut one, mut other) = (stage.client(), stage.client());
    for turn in 0..50 {
        one.ask_write(turn * 4096, &pattern(4096, turn as usize));
        assert_eq!(other.call((FLUSH, 0), 0, 0, &[]).error, 0);
        assert_eq!(one.answer().error, 0);
    }
    stage.agrees();
}

#[test]
fn a_volume_with_a_client_is_in_use_until_he_is_gone() {
    let mut stage = Stage::new(Setup::default());
    let client = stage.client();
    let own = std::process::id() as i32;
    assert_eq!(stage.device.client(), Some(own));
    assert!(matches!(stage.device.retire(true), Err(RetireError::InUse)));
    stage.client().write(0, &[1; 512]); // and still serves others
    drop(client);
    eventually("he is gone", || stage.device.client().is_none());
    stage.device.retire(true).unwrap();
    assert!(
        Client::try_connect(&stage.path(), true).is_err(),
        "nobody new"
    );
    stage.device.stay();
    stage.client().write(0, &[1; 512]);
    eventually("he is gone too", || stage.device.retire(true).is_ok());
    stage.stop();
}

#[test]
fn the_end_waits_for_nobody_who_is_silent() {
    let mut stage = Stage::new(Setup::default());
    let mut client = stage.client();
    let mut haggling = UnixStream::connect(stage.path()).unwrap();
    // A payload that never comes.
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend([
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0,
    ]);
    client.socket.write_all(&bytes).unwrap();
    eventually("both are there", || stage.device.clients() == 2);
    stage.device.stop(PATIENCE / 4).unwrap();
    assert!(client.is_left());
    haggling.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn the_socket_is_for_root_alone_and_takes_the_place_of_a_dead_one() {
    let stage = Stage::new(Setup {
        shape: Shape {
            depth: 1,
            ..Shape::default()
        },
        ..Setup::default()
    });
    let mode = std::fs::metadata(stage.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = stage.client();
    // One tag is enough for everything, one after the other.
    for turn in 0..20 {
        client.ask_write(turn * 512, &pattern(512, turn as usize));
        client.ask((READ, 0), turn * 512, 512, &[]);
    }
    assert!((0..40).all(|_| client.answer().error == 0));
    stage.agrees();
}
