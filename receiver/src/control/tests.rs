//! The control socket: who may speak, what is bounded, what a verb does live and stopped.

use super::*;
use crate::catalog::{Catalog, Lane, PointRecord, StreamState, VolumeRecord, VolumeState};
use crate::config::Settings;
use crate::failure::Exit;
use crate::target::LayoutKind;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use wire::{Incarnation, Name, Stamp, Token, VolumeName};

/// A daemon that writes down what it is told.
#[derive(Default)]
struct Notes {
    told: Mutex<Vec<String>>,
    holds: Arc<AtomicUsize>,
    refuse: bool,
}

struct Held(Arc<AtomicUsize>);

impl Hold for Held {
    fn point(&self) -> PointRecord {
        PointRecord {
            stamp: Stamp(42),
            ..PointRecord::default()
        }
    }

    fn page(&self, _after: Option<Cursor>) -> Result<Page, String> {
        Ok(Page::default())
    }

    fn journal(&self) -> Option<JournalPlace> {
        None
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Notes {
    fn note(&self, text: String) -> Result<(), String> {
        self.told.lock().unwrap().push(text);
        if self.refuse {
            Err("the daemon will not".into())
        } else {
            Ok(())
        }
    }
}

impl Daemon for Notes {
    fn status(&self) -> Status {
        Status {
            running: true,
            ..Status::default()
        }
    }

    fn revoked(&self, source: &Name) {
        self.note(format!("revoked {source}")).unwrap();
    }

    fn volume_added(&self, volume: &VolumeRecord) -> Result<(), String> {
        self.note(format!("added {}", volume.name))
    }

    fn volume_removing(&self, volume: &VolumeName) -> Result<(), String> {
        self.note(format!("removing {volume}"))
    }

    fn points(&self, _group: &Name) -> Result<Vec<PointRun>, String> {
        Ok(Vec::new())
    }

    fn detach(&self, lane: &Lane) -> Result<(), String> {
        self.note(format!("detached {lane}"))
    }

    fn hold(&self, volume: &VolumeName, _at: At) -> Result<Box<dyn Hold>, String> {
        self.note(format!("hold {volume}"))?;
        self.holds.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Held(self.holds.clone())))
    }
}

struct Site {
    dir: TempDir,
    settings: Settings,
    catalog: Arc<Catalog>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().to_owned(),
            listen: "127.0.0.1:7800".parse().unwrap(),
            advertise: "backup:7800".into(),
            journal_dir: dir.path().join("journal"),
            journal_bytes_max: 1 << 30,
            retain: Duration::ZERO,
            steps_bytes_max: crate::apply::STEPS_BYTES_MIN,
        };
        std::fs::create_dir(settings.identity_dir()).unwrap();
        let identity = link::Identity::generate(std::time::SystemTime::now()).unwrap();
        identity.save(&settings.identity_dir()).unwrap();
        let catalog = Arc::new(Catalog::create(&settings.catalog_path()).unwrap());
        Self {
            dir,
            settings,
            catalog,
        }
    }

    fn operator(&self, daemon: Arc<dyn Daemon>) -> Operator {
        Operator::new(self.settings.clone(), self.catalog.clone(), daemon)
    }

    fn serve(&self, daemon: Arc<Notes>) -> Server {
        Server::start(self.operator(daemon), &self.settings.control_path()).unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(&self.settings.control_path()).unwrap()
    }

    fn add(&self, volume: &str, target: &str) -> Request {
        Request::VolumeAdd(VolumeAdd {
            volume: volume.into(),
            source: "host1".into(),
            size_bytes: 4 << 20,
            sector_bytes: 512,
            layout: LayoutKind::Plain,
            targets: vec![self.target(target).into()],
        })
    }

    fn target(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn refused(response: Response) -> (Exit, String) {
    match response {
        Response::Refused { exit, text } => (exit, text),
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn a_token_leads_back_to_this_receiver_and_is_known_to_the_catalog() {
    let site = Site::new();
    let _server = site.serve(Arc::default());
    let request = Request::Token {
        source: "host1".into(),
        expires_s: 60,
    };
    let Ok(Response::Token { token }) = site.client().ask(&request) else {
        panic!("no token")
    };
    let token: Token = token.parse().unwrap();
    let identity = link::Identity::load(&site.settings.identity_dir()).unwrap();
    assert_eq!(
        (token.address.as_str(), token.receiver),
        ("backup:7800", identity.pin())
    );
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    site.catalog
        .redeem(&token.secret, &token.source, wire::Pin([1; 32]), now)
        .unwrap();
}

#[test]
fn an_added_volume_is_registered_and_opened_and_a_removed_one_closed_first() {
    let site = Site::new();
    let daemon = Arc::new(Notes::default());
    let _server = site.serve(daemon.clone());
    let mut client = site.client();
    assert!(matches!(
        client.ask(&site.add("db/wal", "t")),
        Ok(Response::Added(_))
    ));
    assert_eq!(site.catalog.volumes().unwrap().len(), 1);
    let Ok(Response::Volumes { volumes }) = client.ask(&Request::VolumeList) else {
        panic!()
    };
    assert_eq!(volumes[0].targets[0].path, site.target("t"));
    assert_eq!(
        volumes[0].record().unwrap(),
        site.catalog.volumes().unwrap()[0]
    );
    let again = refused(client.ask(&site.add("db/wal", "t2")).unwrap());
    assert_eq!(again.0, Exit::Refused);
    let remove = Request::VolumeRemove {
        volume: "db/wal".into(),
    };
    assert!(matches!(client.ask(&remove), Ok(Response::Removed(_))));
    assert!(site.target("t").exists(), "the target keeps its content");
    assert_eq!(
        *daemon.told.lock().unwrap(),
        ["added db/wal", "removing db/wal"]
    );
}

#[test]
fn a_volume_the_daemon_cannot_open_is_not_registered_and_its_file_not_left_behind() {
    let site = Site::new();
    let _server = site.serve(Arc::new(Notes {
        refuse: true,
        ..Notes::default()
    }));
    let refusal = refused(site.client().ask(&site.add("db/wal", "t")).unwrap());
    assert_eq!(refusal, (Exit::Refused, "the daemon will not".into()));
    assert_eq!(site.catalog.volumes().unwrap(), []);
    assert!(!site.target("t").exists());
}

#[test]
fn a_volume_the_daemon_will_not_let_go_stays() {
    let site = Site::new();
    site.operator(Arc::new(Notes::default()))
        .answer(&site.add("db/wal", "t"), &mut None);
    let daemon = Arc::new(Notes {
        refuse: true,
        ..Notes::default()
    });
    let remove = Request::VolumeRemove {
        volume: "db/wal".into(),
    };
    let refusal = refused(site.operator(daemon).answer(&remove, &mut None));
    assert_eq!(refusal.0, Exit::Refused);
    assert_eq!(site.catalog.volumes().unwrap().len(), 1);
}

#[test]
fn a_hold_lasts_as_long_as_its_connection() {
    let site = Site::new();
    let daemon = Arc::new(Notes::default());
    let _server = site.serve(daemon.clone());
    let mut client = site.client();
    client.ask(&site.add("db/wal", "t")).unwrap();
    let hold = Request::Hold {
        volume: "db/wal".into(),
        at: None,
    };
    assert!(matches!(
        client.ask(&hold),
        Ok(Response::Held { stamp: 42, .. })
    ));
    assert_eq!(daemon.holds.load(Ordering::SeqCst), 1);
    assert_eq!(
        refused(client.ask(&hold).unwrap()).0,
        Exit::Usage,
        "one hold per connection"
    );
    drop(client);
    wait_until(|| daemon.holds.load(Ordering::SeqCst) == 0);
}

#[test]
fn the_server_ends_holds_and_connections_when_it_stops() {
    let site = Site::new();
    let daemon = Arc::new(Notes::default());
    let server = site.serve(daemon.clone());
    let mut client = site.client();
    client.ask(&site.add("db/wal", "t")).unwrap();
    client
        .ask(&Request::Hold {
            volume: "db/wal".into(),
            at: None,
        })
        .unwrap();
    drop(server);
    assert_eq!(daemon.holds.load(Ordering::SeqCst), 0);
    assert!(client.ask(&Request::Status).is_err());
    let gone = Client::connect(&site.settings.control_path());
    assert!(matches!(gone, Err(ClientError::NotRunning)));
}

#[test]
fn what_is_no_request_is_refused_in_words_and_the_connection_lives_on() {
    let site = Site::new();
    let _server = site.serve(Arc::default());
    let mut socket = UnixStream::connect(site.settings.control_path()).unwrap();
    let mut answers = BufReader::new(socket.try_clone().unwrap()).lines();
    let mut say = |line: &str| {
        socket.write_all(line.as_bytes()).unwrap();
        let answer = answers.next().unwrap().unwrap();
        serde_json::from_str::<Response>(&answer).unwrap()
    };
    for bad in [
        "\n",
        "{}\n",
        "{\"verb\":\"format-all\"}\n",
        "{\"verb\":\"token\"}\n",
        "\u{0}\n",
    ] {
        assert_eq!(refused(say(bad)).0, Exit::Usage, "{bad:?}");
    }
    let bad_name = "{\"verb\":\"revoke\",\"source\":\"../../etc\"}\n";
    assert_eq!(refused(say(bad_name)).0, Exit::Usage);
    assert!(matches!(
        say("{\"verb\":\"status\"}\n"),
        Response::Status(_)
    ));
}

#[test]
fn a_line_without_end_is_cut_off() {
    let site = Site::new();
    let _server = site.serve(Arc::default());
    let mut socket = UnixStream::connect(site.settings.control_path()).unwrap();
    socket
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let chunk = [b'x'; 64 << 10];
    let sent = (0..1000)
        .take_while(|_| socket.write_all(&chunk).is_ok())
        .count();
    assert!(sent < 1000, "{sent} chunks were taken");
}

#[test]
fn connections_have_a_maximum() {
    let site = Site::new();
    let _server = site.serve(Arc::default());
    let mut clients: Vec<Client> = (0..CONNECTIONS_MAX).map(|_| site.client()).collect();
    for client in &mut clients {
        client.ask(&Request::VolumeList).unwrap();
    }
    let one_more = site.client().ask(&Request::VolumeList);
    assert!(one_more.map_or(true, |answer| matches!(answer, Response::Refused { .. })));
    clients.clear();
    wait_until(|| {
        let answer = site.client().ask(&Request::VolumeList);
        matches!(answer, Ok(Response::Volumes { .. }))
    });
}

#[test]
fn a_dead_daemons_socket_is_replaced() {
    let site = Site::new();
    let path = site.settings.control_path();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(
        Client::connect(&path),
        Err(ClientError::NotRunning)
    ));
    let _server = site.serve(Arc::default());
    site.client().ask(&Request::Status).unwrap();
}

#[test]
fn a_stopped_receiver_says_what_the_catalog_knows() {
    let site = Site::new();
    let stopped = Arc::new(Stopped::new(site.settings.clone(), site.catalog.clone()));
    let operator = site.operator(stopped);
    operator.answer(&site.add("db/wal", "t"), &mut None);
    let hold = Request::Hold {
        volume: "db/wal".into(),
        at: None,
    };
    let refusal = refused(operator.answer(&hold, &mut None));
    assert!(refusal.1.contains("no complete point"), "{}", refusal.1);

    let lane = site.catalog.volumes().unwrap()[0].lane();
    let state = |horizon, applied| StreamState {
        incarnation: Incarnation { counter: 1, id: 1 },
        horizon: Stamp(horizon),
        applied: Stamp(applied),
        last_mark: wire::TimeMark(1),
        point: Some(PointRecord {
            incarnation: Incarnation { counter: 1, id: 1 },
            stamp: Stamp(horizon),
            mark: wire::TimeMark(1_795_262_400_000_000_000),
        }),
        volumes: [(Name::new("wal").unwrap(), VolumeState::Ready)].into(),
    };
    site.catalog
        .commit_stream(&lane, &state(9, 5), None)
        .unwrap();
    let refusal = refused(operator.answer(&hold, &mut None));
    assert!(refusal.1.contains("cut short"), "{}", refusal.1);

    site.catalog
        .commit_stream(&lane, &state(9, 9), None)
        .unwrap();
    assert!(matches!(
        operator.answer(&hold, &mut None),
        Response::Held { stamp: 9, .. }
    ));
    for (at, found) in [
        ("oldest", true),
        ("9", true),
        ("8", false),
        ("10", false),
        ("2026-11-21T11:59:59.999999999Z", false),
        ("2026-11-21T12:00:00Z", true),
        ("2026-11-21T12:00:01Z", true),
    ] {
        let hold = Request::Hold {
            volume: "db/wal".into(),
            at: Some(at.into()),
        };
        match operator.answer(&hold, &mut None) {
            Response::Held { stamp: 9, .. } => assert!(found, "{at}"),
            other => {
                let (_, text) = refused(other);
                assert!(!found && text.contains("no such point"), "{at}: {text}");
            }
        }
    }
    let Response::Status(status) = operator.answer(&Request::Status, &mut None) else {
        panic!()
    };
    assert!(!status.running);
    let group = &status.groups[0];
    assert_eq!((group.mode.as_str(), group.applied), ("stopped", 9));
    assert_eq!(
        group.recoverable_to.as_deref(),
        Some("2026-11-21T12:00:00.000Z")
    );
    assert_eq!(group.volumes[0].state, "ready");
    assert_eq!(
        group.volumes[0].targets,
        [site.target("t").display().to_string()]
    );
}

fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen within 5 s");
}
