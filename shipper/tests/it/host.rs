//! The protected host: enrolment files, a ring, and the tap's end of the socket.

use crate::eventually;
use ::link::Identity;
use ring::handoff::{Channel, ChannelError, LinkState, Listener, ToTap, Welcome};
use ring::{ClaimError, RecordFields, Ring, RingConfig};
use shipper::run::{self, Options};
use shipper::user::PASSWORD_FILE;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::sync::watch;
use wire::{Generation, Incarnation, Name, Pin, Stamp, TimeMark, VolumeIndex, VolumeSpec};

pub(crate) struct Host {
    pub(crate) dir: TempDir,
    pub(crate) ring: Ring,
    pub(crate) identity: Identity,
    listener: Listener,
    tap: Option<Channel>,
    pub(crate) heard: Vec<ToTap>,
    shipper: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

pub(crate) fn group() -> Name {
    Name::new("pg").unwrap()
}

pub(crate) fn volume() -> VolumeSpec {
    VolumeSpec {
        index: VolumeIndex(0),
        name: Name::new("data").unwrap(),
        size_bytes: 1 << 30,
        sector_bytes: 512,
        identity: "file:1:2".into(),
    }
}

pub(crate) fn now() -> TimeMark {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    TimeMark(since.as_nanos() as u64)
}

/// What a write with this stamp carries.
pub(crate) fn content(stamp: Stamp, bytes: usize) -> Vec<u8> {
    let seed = stamp.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = |at: usize| seed.wrapping_add(at as u64).to_le_bytes();
    (0..bytes / 8).flat_map(word).collect()
}

/// The process is another user's where root runs the tests.
pub(crate) fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

fn give_to_shipper(key: &Path) {
    if rustix::process::geteuid().is_root() {
        let user = shipper::user::shipper_user(Path::new(PASSWORD_FILE)).unwrap();
        std::os::unix::fs::chown(key, Some(user.uid), None).unwrap();
    }
}

impl Host {
    /// A host enrolled with the receiver `pin` at `address`, with a ring of so many payload bytes.
    pub(crate) fn new(address: &str, pin: Pin, ring_bytes: u64) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        open_to_all(dir.path());
        let run = dir.path().join("run/pg");
        fs::create_dir_all(&run).unwrap();
        let incarnation = Incarnation {
            counter: 1,
            id: 0xabcd << 64 | 5,
        };
        let config = RingConfig {
            slots: 16384,
            payload_bytes: ring_bytes,
        };
        let identity = Identity::generate(SystemTime::now()).unwrap();
        let host = Self {
            ring: Ring::create(&run, incarnation, config).unwrap(),
            listener: Listener::bind(&run.join(run::SOCKET_FILE), 0o666).unwrap(),
            tap: None,
            heard: Vec::new(),
            shipper: None,
            identity,
            dir,
        };
        host.enrol(address, pin);
        host
    }

    /// Writes the enrolment as `join` would.
    pub(crate) fn enrol(&self, address: &str, pin: Pin) {
        let dir = self.config_dir().join("identity");
        fs::create_dir_all(&dir).unwrap();
        let text = format!(
            "source = \"db1\"\naddress = \"{address}\"\npin = \"{}\"\n",
            pin.to_hex()
        );
        fs::write(dir.join("receiver.toml"), text).unwrap();
        if !dir.join("key.pem").exists() {
            self.identity.save(&dir).unwrap();
            give_to_shipper(&dir.join("key.pem"));
        }
    }

    pub(crate) fn config_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("etc")
    }

    pub(crate) fn run_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            config: self.config_dir(),
            run: self.dir.path().join("run"),
            group: group(),
        }
    }

    /// Starts the shipper in a thread of this process and hands it the ring.
    pub(crate) fn ship(&mut self) {
        let (stop, stopped) = watch::channel(false);
        let options = self.options();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(run::run(&options, stopped));
        });
        self.shipper = Some((stop, thread));
        self.welcome();
    }

    /// Waits for a shipper and hands it the ring.
    pub(crate) fn welcome(&mut self) {
        let mut channel = None;
        eventually("the shipper connects", || {
            channel = self.listener.accept().ok();
            channel.is_some()
        });
        let channel = channel.unwrap();
        let welcome = Welcome {
            group: group(),
            source: Name::new("db1").unwrap(),
            generation: Generation::default(),
            incarnation: self.ring.incarnation(),
            ring_slots: self.ring.config().slots,
            volumes: vec![volume()],
        };
        let fds = self.ring.consumer_fds().unwrap();
        channel.send_welcome(welcome, &fds).unwrap();
        self.tap = Some(channel);
    }

    /// The tap's end of the socket goes away.
    pub(crate) fn drop_tap(&mut self) {
        self.tap = None;
    }

    /// Stops the shipper as a signal does.
    pub(crate) fn stop(&mut self) {
        if let Some((stop, thread)) = self.shipper.take() {
            stop.send_replace(true);
            thread.join().unwrap();
        }
    }

    /// One write, settled at once; waits while the ring is full.
    pub(crate) fn write(&self, bytes: u32) -> Stamp {
        let mut claim = loop {
            match self.ring.claim(bytes, now()) {
                Ok(claim) => break claim,
                Err(ClaimError::Full) => std::thread::sleep(Duration::from_micros(200)),
                Err(error) => panic!("{error}"),
            }
        };
        let stamp = claim.stamp();
        claim
            .payload_mut()
            .copy_from_slice(&content(stamp, bytes as usize));
        let offset = stamp.0 % 1024 * 4096;
        let filled = claim.fill(RecordFields::write(VolumeIndex(0), offset, bytes, false));
        filled.settle();
        self.ring.notify_consumer();
        stamp
    }

    /// Takes in what the shipper reported.
    pub(crate) fn listen(&mut self) {
        let Some(tap) = &self.tap else { return };
        loop {
            match tap.recv_from_shipper() {
                Ok(message) => self.heard.push(message),
                Err(ChannelError::WouldBlock | ChannelError::Closed) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until the shipper reports the link in this state; gives the reason.
    pub(crate) fn until_link(&mut self, state: LinkState) -> String {
        let mut reason = None;
        eventually(&format!("the link is {state:?}"), || {
            self.listen();
            reason = self.heard.iter().rev().find_map(|message| match message {
                ToTap::Link(link) => Some((link.state, link.reason.clone())),
                _ => None,
            });
            reason.as_ref().is_some_and(|(found, _)| *found == state)
        });
        reason.unwrap().1
    }

    /// Waits until the tap may free everything up to `stamp`.
    pub(crate) fn until_acked(&mut self, stamp: Stamp) {
        eventually(&format!("record {stamp} is acknowledged"), || {
            self.listen();
            self.ring.try_reclaim().unwrap();
            self.ring.acked() >= stamp
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}
