//! The receiver: the installed binary over a temporary directory.

use link::Identity;
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use wire::{JoinReply, JoinRequest, Token};

/// Size of each volume.
pub(crate) const VOLUME_BYTES: u64 = 1 << 20;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    dir: TempDir,
    address: String,
    daemon: Option<Child>,
}

impl Site {
    /// Set up and serving: group `pg` with volume `data` of source `db1`.
    pub(crate) fn serving() -> Self {
        let mut site = Self::ready();
        site.add("pg/data", "db1", "data.img");
        site.start();
        site
    }

    /// The same, with a window of points.
    pub(crate) fn retaining(span: &str) -> Self {
        let mut site = Self::ready_with(&["--retain", span]);
        site.add("pg/data", "db1", "data.img");
        site.start();
        site
    }

    /// Set up, nothing registered, not serving.
    pub(crate) fn ready() -> Self {
        Self::ready_with(&[])
    }

    fn ready_with(more: &[&str]) -> Self {
        // In memory: a SIGKILL loses nothing that was written, with or without a disk below.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        let site = Self {
            dir,
            address,
            daemon: None,
        };
        let journal = ["--journal-max", "256MiB"];
        site.ok(&[&["init", "--listen", &site.address][..], &journal, more].concat());
        site
    }

    pub(crate) fn add(&self, volume: &str, source: &str, target: &str) {
        let args = ["volume", "add", volume, "--source", source];
        self.ok(&[&args[..], &["--size", "1MiB", "--target", target]].concat());
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&["serve"]);
    }

    pub(crate) fn start_with(&mut self, words: &[&str]) {
        let daemon = self
            .command(words)
            .stdout(Stdio::null())
            .stderr(self.log())
            .spawn();
        self.daemon = Some(daemon.unwrap());
        let start = Instant::now();
        while self.status()["running"] != true {
            assert!(start.elapsed() < PATIENCE, "the receiver does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> fs::File {
        let mut options = fs::OpenOptions::new();
        let options = options.append(true).create(true);
        options.open(self.path("log")).unwrap()
    }

    /// SIGKILL, as a crash of the process would.
    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// SIGTERM; it comes to rest and says so by its exit code.
    pub(crate) fn stop(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(daemon.wait().unwrap().success());
    }

    /// Memory of the daemon that is not backed by files, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let pid = self.daemon.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() << 10
    }

    /// The daemon that was started still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.daemon.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ublk-tap-receiver"));
        command
            .args(args)
            .env("UBLK_TAP_RECEIVER_DIR", self.path("receiver"))
            .current_dir(self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Status of group `pg`.
    pub(crate) fn group(&self) -> serde_json::Value {
        self.status()["groups"][0].clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a target holds.
    pub(crate) fn image(&self, target: &str) -> Vec<u8> {
        fs::read(self.path(target)).unwrap()
    }

    pub(crate) fn token(&self, source: &str, expires: &str) -> Token {
        let line = self.ok(&["token", "--source", source, "--expires", expires]);
        line.trim().parse().unwrap()
    }

    /// An identity enrolled under `source`.
    pub(crate) async fn enrol(&self, source: &str) -> Identity {
        let identity = Identity::generate(SystemTime::now()).unwrap();
        let reply = join(&self.token(source, "1h"), &identity).await;
        assert_eq!(reply, JoinReply::Enrolled);
        identity
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits until `holds`, and says what was waited for when it never does.
    pub(crate) async fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            let status = self.status();
            assert!(start.elapsed() < PATIENCE, "never: {what}: {status:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // Threads are told apart from the process: it may live on without one of them.
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let panicked = log.lines().find(|line| line.contains("panicked"));
        if !std::thread::panicking() {
            assert_eq!(panicked, None, "whatever a peer does, no thread panics");
        }
    }
}

/// Redeems a token with this identity.
pub(crate) async fn join(token: &Token, identity: &Identity) -> JoinReply {
    let receiver = token.receiver;
    let reached = link::connect(&token.address, identity, receiver, link::Protocol::Join);
    let (_endpoint, connection) = reached.await.unwrap();
    let (mut say, mut hear) = connection.open_bi().await.unwrap();
    let request = JoinRequest {
        secret: token.secret,
        source: token.source.clone(),
    };
    link::write_join_request(&mut say, &request).await.unwrap();
    link::read_join_reply(&mut hear).await.unwrap()
}
