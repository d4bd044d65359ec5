//! Requests reach the inbox and answers come back; nonsense is answered and harms nobody.

use super::*;
use crate::failure::Exit;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use wire::TimeMark;

struct Place {
    path: PathBuf,
    _dir: tempfile::TempDir,
    server: Server,
    inbox: Receiver<Asked>,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let (post, inbox) = channel();
    let server = Server::start(&path, post).unwrap();
    Place {
        path,
        _dir: dir,
        server,
        inbox,
    }
}

fn ask(path: PathBuf, request: Request) -> std::thread::JoinHandle<Result<Reply, ClientError>> {
    std::thread::spawn(move || Client::connect(&path)?.ask(&request, Duration::from_secs(10)))
}

#[test]
fn a_request_is_answered_by_whoever_has_the_inbox() {
    let place = place();
    let request = Request::Barrier(BarrierRequest {
        wait: Settling::Applied,
        timeout_ms: 5,
    });
    let asker = ask(place.path.clone(), request.clone());
    let asked = place.inbox.recv().unwrap();
    assert_eq!(asked.request, request);
    let reached = BarrierReached {
        stamp: 7,
        seconds: 0.5,
    };
    asked.reply.send(Reply::Barrier(reached));
    assert_eq!(asker.join().unwrap().unwrap(), Reply::Barrier(reached));
}

#[test]
fn an_asker_whose_request_is_dropped_learns_that_the_tap_ends() {
    let place = place();
    let asker = ask(place.path.clone(), Request::Status);
    drop(place.inbox.recv().unwrap());
    let ended = asker.join().unwrap().unwrap_err();
    assert!(matches!(ended, ClientError::Ended), "{ended}");
}

#[test]
fn what_is_no_request_is_answered_in_words_and_never_reaches_the_group() {
    let place = place();
    for nonsense in [
        "\n",
        "{}\n",
        "{\"verb\":\"wait\"}\n",
        "[1\n",
        "\u{0}\u{1}\n",
    ] {
        let mut socket = UnixStream::connect(&place.path).unwrap();
        socket.write_all(nonsense.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("usage"), "{nonsense:?}: {answer}");
    }
    let mut socket = UnixStream::connect(&place.path).unwrap();
    let flood = vec![b'x'; 1 << 20];
    // The tap stops reading at its bound; what it had to say may be lost with the rest.
    let _ = socket.write_all(&flood);
    drop(socket);
    assert!(place.inbox.try_recv().is_err());
}

#[test]
fn more_askers_than_places_are_turned_away_not_queued() {
    let place = place();
    let waiting: Vec<_> = (0..16)
        .map(|_| ask(place.path.clone(), Request::Status))
        .collect();
    let held: Vec<_> = (0..16).map(|_| place.inbox.recv().unwrap()).collect();
    let reply = ask(place.path.clone(), Request::Status)
        .join()
        .unwrap()
        .unwrap();
    assert!(matches!(reply, Reply::Failed(failure) if failure.exit == Exit::Failed));
    drop(held);
    for asker in waiting {
        assert!(matches!(asker.join().unwrap(), Err(ClientError::Ended)));
    }
    let again = ask(place.path.clone(), Request::Status);
    drop(place.inbox.recv().unwrap());
    assert!(matches!(again.join().unwrap(), Err(ClientError::Ended)));
}

#[test]
fn an_asker_who_hangs_up_is_noticed() {
    let place = place();
    let mut socket = UnixStream::connect(&place.path).unwrap();
    socket.write_all(b"{\"verb\":\"status\"}\n").unwrap();
    let asked = place.inbox.recv().unwrap();
    assert!(!asked.reply.is_gone());
    drop(socket);
    let start = std::time::Instant::now();
    while !asked.reply.is_gone() {
        assert!(start.elapsed() < Duration::from_secs(10), "nobody notices");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_a_tap_there_is_nobody_to_ask() {
    let place = place();
    let path = place.path.clone();
    drop(place.server);
    assert!(matches!(
        Client::connect(&path),
        Err(ClientError::NotRunning)
    ));
}

#[test]
fn times_are_said_in_utc_to_the_millisecond() {
    let mark = TimeMark(1_763_726_400_123_456_789);
    assert_eq!(iso_8601(mark), "2025-11-21T12:00:00.123Z");
}
