//! Site: one source host and one receiver on this machine, driven by their command lines only.
//!
//! [`Host`] is the files and the commands, for anybody; [`Daemons`] owns the processes and ends them
//! when it goes.

use crate::command::{Done, TERMINATED, run, wait};
use crate::plan::{Daemon, Settings};
use rustix::process::{Pid, Signal, kill_process};
use sim::oracle::SECTOR_BYTES;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Volumes of the group.
pub const VOLUMES: usize = 2;
/// Sectors of each.
pub const SECTORS: usize = 16 << 11;
/// The group.
pub const GROUP: &str = "pg";

/// How long anything may take that nothing is done to.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Files and commands of the site.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    programs: PathBuf,
}

/// The processes.
#[derive(Debug)]
pub struct Daemons {
    host: Host,
    is_child: bool,
    tap: Option<Child>,
    shipper: Option<Child>,
    receiver: Option<Child>,
    /// Those that stand still.
    stopped: [Option<Pid>; 3],
}

const PROGRAMS: [&str; 3] = ["ublk-tap", "ublk-tap-shipper", "ublk-tap-receiver"];
/// Name of a volume.
pub fn volume(number: usize) -> String {
    format!("v{number}")
}

impl Host {
    /// A site below `root`, which is ours; fails if the daemons are not built.
    pub fn new(root: &Path) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut folders = own.ancestors().skip(1).take(3);
        let has_all = |folder: &&Path| {
            PROGRAMS
                .iter()
                .all(|program| folder.join(program).is_file())
        };
        let Some(programs) = folders.find(has_all) else {
            return Err("the daemons are not built: cargo build --workspace".into());
        };
        let host = Self {
            root: root.to_owned(),
            programs: programs.to_owned(),
        };
        // The unprivileged shipper reaches its socket and its key below this directory.
        let open = fs::Permissions::from_mode(0o755);
        let made = fs::set_permissions(root, open);
        made.and_then(|()| {
            let mut folders = ["etc", "state", "run", "dev", "targets"].iter();
            folders.try_for_each(|folder| fs::create_dir(host.path(folder)))
        })
        .map_err(|error| format!("{}: {error}", root.display()))?;
        Ok(host)
    }

    /// A path of the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where a volume is served.
    pub fn socket(&self, number: usize) -> PathBuf {
        self.path(&format!("run/{GROUP}/{}.nbd", volume(number)))
    }

    /// The disk of a volume.
    pub fn disk(&self, number: usize) -> PathBuf {
        self.path(&format!("{}.disk", volume(number)))
    }

    fn source(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(words).stdin(Stdio::null());
        for (variable, folder) in [
            ("CONFIG", "etc"),
            ("STATE", "state"),
            ("RUN", "run"),
            ("DEV", "dev"),
        ] {
            command.env(format!("UBLK_TAP_{variable}_DIR"), self.path(folder));
        }
        command
    }

    fn receiver(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("ublk-tap-receiver"));
        command.args(words).stdin(Stdio::null());
        command.env("UBLK_TAP_RECEIVER_DIR", self.path("receiver"));
        command
    }

    /// `ublk-tap WORDS`.
    pub fn ask_tap(&self, words: &[&str], patience: Duration) -> Done {
        run(self.source("ublk-tap", words), patience)
    }

    /// `ublk-tap-receiver WORDS`.
    pub fn ask_receiver(&self, words: &[&str], patience: Duration) -> Done {
        run(self.receiver(words), patience)
    }

    /// Sets both ends up, before anything runs: `listen` is the receiver's address, `advertise` how it
    /// is reached.
    pub fn prepare(
        &self,
        settings: &Settings,
        (listen, advertise): (SocketAddr, SocketAddr),
    ) -> Result<(), String> {
        let shipper = if settings.is_child {
            "child"
        } else {
            "external"
        };
        let text = format!(
            "shipper = \"{shipper}\"\nstop_ms = 2000\npark_ms = {}\nring_bytes = \"{}MiB\"\n",
            settings.park_ms, settings.ring_mib
        );
        let file = self.path("etc").join(format!("{GROUP}.toml"));
        fs::write(file, text).map_err(|error| error.to_string())?;
        let (listen, advertise) = (listen.to_string(), advertise.to_string());
        let retain = format!("{}s", settings.retain_s);
        let words = ["init", "--listen", &listen, "--advertise", &advertise];
        let bounds = ["--journal-max", "256MiB", "--retain", &retain];
        self.ask_receiver(&[&words[..], &bounds].concat(), PATIENCE)
            .well()?;
        for number in 0..VOLUMES {
            let name = format!("{GROUP}/{}", volume(number));
            let size = (SECTORS * SECTOR_BYTES).to_string();
            let mut target = self.target(number).display().to_string();
            let words = ["volume", "add", &name, "--source", "db1", "--size", &size];
            let mut words = words.to_vec();
            if settings.has_pool && number > 0 {
                target += "=32MiB";
                words.extend(["--layout", "pool"]);
            }
            words.extend(["--target", &target]);
            self.ask_receiver(&words, PATIENCE).well()?;
        }
        Ok(())
    }

    /// The target of a volume.
    pub fn target(&self, number: usize) -> PathBuf {
        self.path(&format!("targets/{}", volume(number)))
    }

    /// Enrols the source with the receiver that runs.
    pub fn join(&self) -> Result<(), String> {
        let token = self.ask_receiver(&["token", "--source", "db1"], PATIENCE);
        let token = token.well()?.said;
        self.ask_tap(&["join", token.trim()], PATIENCE).well()?;
        Ok(())
    }

    /// Adds all volumes to the tap that runs, and waits until they are whole.
    pub fn add(&self) -> Result<(), String> {
        for number in 0..VOLUMES {
            let (disk, name) = (self.disk(number).display().to_string(), volume(number));
            let words = ["add", &disk, "--group", GROUP, "--volume", &name];
            let how = ["--frontend", "nbd", "--wait", "--timeout", "60s"];
            self.ask_tap(&[&words[..], &how].concat(), PATIENCE)
                .well()?;
        }
        Ok(())
    }

    fn log(&self, name: &str) -> io::Result<File> {
        File::options()
            .create(true)
            .append(true)
            .open(self.path(name))
    }

    /// How many lines of the tap's log have these words.
    pub fn count_in_logs(&self, words: &str) -> u64 {
        let text = fs::read(self.path("tap.log")).unwrap_or_default();
        String::from_utf8_lossy(&text).matches(words).count() as u64
    }

    /// The end of all logs, and every line of a panic.
    pub fn logs(&self) -> (String, Vec<String>) {
        let run = self.path("run").join(GROUP);
        let mut shown = String::new();
        let mut panics = Vec::new();
        let own = ["tap.log", "shipper.log", "receiver.log"].map(|name| self.path(name));
        for file in own.into_iter().chain([run.join("shipper.log")]) {
            let text = fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let of_panics = lines.iter().filter(|line| line.contains("panicked at"));
            panics.extend(of_panics.map(|line| line.to_string()));
            let tail = &lines[lines.len().saturating_sub(60)..];
            shown += &format!("--- {}\n{}\n", file.display(), tail.join("\n"));
        }
        (shown, panics)
    }
}

impl Daemons {
    /// None runs yet.
    pub fn new(host: Host, is_child: bool) -> Self {
        Self {
            host,
            is_child,
            tap: None,
            shipper: None,
            receiver: None,
            stopped: [None; 3],
        }
    }

    /// Starts a daemon, unless it runs; it is not waited for. The tap that finds what a dead one has left
    /// goes on with it.
    pub fn start(&mut self, daemon: Daemon) -> Result<(), String> {
        if self.is_running(daemon) || daemon == Daemon::Shipper && self.is_child {
            return Ok(());
        }
        let (mut command, log) = match daemon {
            Daemon::Tap => {
                let command = self.host.source("ublk-tap", &["run", "--group", GROUP]);
                (command, "tap.log")
            }
            Daemon::Shipper => {
                let words = ["run", "--group", GROUP];
                (self.host.source("ublk-tap-shipper", &words), "shipper.log")
            }
            Daemon::Receiver => (self.host.receiver(&["serve"]), "receiver.log"),
        };
        let child = self
            .host
            .log(log)
            .and_then(|log| command.stdout(log.try_clone()?).stderr(log).spawn());
        let child = child.map_err(|error| format!("{daemon:?}: {error}"))?;
        *self.slot(daemon) = Some(child);
        Ok(())
    }

    fn slot(&mut self, daemon: Daemon) -> &mut Option<Child> {
        match daemon {
            Daemon::Tap => &mut self.tap,
            Daemon::Shipper => &mut self.shipper,
            Daemon::Receiver => &mut self.receiver,
        }
    }

    /// Whether it runs; one that has ended by itself is forgotten.
    pub fn is_running(&mut self, daemon: Daemon) -> bool {
        if daemon == Daemon::Shipper && self.is_child {
            return self.pid(daemon).is_some();
        }
        let slot = self.slot(daemon);
        if matches!(slot.as_mut().map(Child::try_wait), Some(Ok(Some(_)))) {
            *slot = None;
        }
        slot.is_some()
    }

    fn pid(&self, daemon: Daemon) -> Option<Pid> {
        match daemon {
            Daemon::Tap => self.tap.as_ref().map(Pid::from_child),
            Daemon::Receiver => self.receiver.as_ref().map(Pid::from_child),
            Daemon::Shipper if self.is_child => child_of(self.tap.as_ref()?.id()),
            Daemon::Shipper => self.shipper.as_ref().map(Pid::from_child),
        }
    }

    /// Sends a signal; whether there was somebody to send it to.
    fn signal(&mut self, daemon: Daemon, signal: Signal) -> bool {
        self.is_running(daemon)
            && self
                .pid(daemon)
                .is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// SIGSTOP; whether there was somebody to stop.
    pub fn stop(&mut self, daemon: Daemon) -> bool {
        self.go_on(daemon);
        let is_met = self.signal(daemon, Signal::STOP);
        self.stopped[daemon as usize] = self.pid(daemon).filter(|_| is_met);
        is_met
    }

    /// SIGCONT to the one that was stopped: the tap whose child it is may have another by now.
    pub fn go_on(&mut self, daemon: Daemon) {
        if let Some(pid) = self.stopped[daemon as usize].take() {
            // It may have been killed.
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// SIGKILL, waited for; whether there was somebody to kill.
    pub fn kill(&mut self, daemon: Daemon) -> bool {
        let was_running = self.signal(daemon, Signal::KILL);
        if let Some(mut child) = self.slot(daemon).take() {
            let _ = child.wait();
        }
        was_running
    }

    /// SIGTERM, and it ends well within [`PATIENCE`].
    pub fn terminate(&mut self, daemon: Daemon) -> Result<(), String> {
        // One that is stopped does not hear.
        self.go_on(daemon);
        if !self.signal(daemon, Signal::TERM) {
            return Ok(());
        }
        let Some(mut child) = self.slot(daemon).take() else {
            return Ok(());
        };
        match wait(&mut child, PATIENCE) {
            // So it ends where it has only just begun.
            0 | TERMINATED => Ok(()),
            code => Err(format!("{daemon:?} ends with {code} after SIGTERM")),
        }
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for daemon in [Daemon::Shipper, Daemon::Tap, Daemon::Receiver] {
            self.go_on(daemon);
            self.kill(daemon);
        }
        self.host.ask_tap(&["cleanup", GROUP], PATIENCE);
    }
}

/// The shipper a tap has started, if it lives.
fn child_of(parent: u32) -> Option<Pid> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut children = processes.filter(|process| {
        let read = |name: &str| fs::read(process.path().join(name)).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        // After the name: state, parent.
        let mut facts = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let is_alive = facts.next().is_some_and(|state| state != "Z");
        let is_child = facts.next() == Some(parent.to_string().as_str());
        is_alive
            && is_child
            && String::from_utf8_lossy(&read("cmdline")).contains("ublk-tap-shipper")
    });
    let name = children.next()?.file_name();
    Pid::from_raw(name.to_str()?.parse().ok()?)
}
