//! Run: sets a site up, has it written to, does what the plan says, lets it come to rest, and tells what
//! came of it.

use crate::checker::{Checker, Counts};
use crate::history::History;
use crate::plan::{Daemon, Deed, Order, Plan, Plant, Step, draw};
use crate::planted;
use crate::proxy::Proxy;
use crate::site::{Daemons, GROUP, Host, PATIENCE, VOLUMES};
use crate::writer::{Shared, Writer, initial};
use sim::dice::Dice;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// SIGKILLs that met a daemon.
    pub kills: u64,
    /// SIGSTOPs, and stalls of the network.
    pub stalls: u64,
    /// SIGTERMs.
    pub restarts: u64,
    /// Daemons that ended by themselves, and were started again.
    pub revived: u64,
    /// Datagrams lost, doubled or overtaken.
    pub datagrams: u64,
    /// Streams given up for a while, as the ring was full.
    pub given_up: u64,
    /// Changes asked for.
    pub writes: u64,
    /// Requests whose answer was lost.
    pub cut_off: u64,
    /// What was checked.
    pub counts: Counts,
    /// What must never be.
    pub violations: Vec<String>,
}

struct Attack<'a> {
    daemons: Daemons,
    host: &'a Host,
    proxy: &'a Proxy,
    shared: &'a Shared,
    begun: Instant,
    is_child: bool,
    /// Which are to run; those started again if they do not.
    is_meant: [bool; 3],
    is_verbose: bool,
    outcome: Outcome,
}

/// How often a daemon to be killed is looked for.
const VICTIM_TRIES: u32 = 10;
/// A daemon that ended by itself is started again so often, as a service manager does.
const ATTEND_INTERVAL: Duration = Duration::from_millis(100);

/// Runs one seed in a directory of its own below `parent`. An error: it could not be set up.
pub fn run(order: Order, parent: &Path, is_verbose: bool) -> Result<Outcome, String> {
    let plan = draw(order);
    let root = tempfile::Builder::new().prefix("chaos-").tempdir_in(parent);
    let root = root.map_err(|error| format!("{}: {error}", parent.display()))?;
    let host = Host::new(root.path())?;
    let mut dice = Dice::new(order.seed ^ 0xc4a0_5000);
    let shared = Shared::new(history(&host, &mut dice)?);
    let listen = free_address().map_err(|error| error.to_string())?;
    let proxy = Proxy::start(listen, dice.split()).map_err(|error| error.to_string())?;
    host.prepare(&plan.settings, (listen, proxy.address()))?;
    let mut attack = Attack {
        daemons: Daemons::new(host.clone(), plan.settings.is_child),
        host: &host,
        proxy: &proxy,
        shared: &shared,
        begun: Instant::now(),
        is_child: plan.settings.is_child,
        is_meant: [false; 3],
        is_verbose,
        outcome: Outcome {
            seed: order.seed,
            ..Outcome::default()
        },
    };
    let ready = attack.set_up();
    ready.map_err(|error| format!("{error}\n{}", host.logs().0))?;
    attack.run(&plan, order.time, &mut dice);
    let mut outcome = attack.outcome;
    outcome.datagrams = proxy.faults();
    outcome.writes = shared.history().changes() as u64;
    outcome.cut_off = shared.cut_off.load(Ordering::Relaxed);
    outcome.violations = shared.violations();
    if !outcome.violations.is_empty() {
        eprintln!("{}", host.logs().0);
    }
    Ok(outcome)
}

/// Makes the disks, and the history that begins with them.
fn history(host: &Host, dice: &mut Dice) -> Result<History, String> {
    let mut held = Vec::new();
    for number in 0..VOLUMES {
        let (contents, image) = initial(number, dice);
        held.push(contents);
        fs::write(host.disk(number), image).map_err(|error| error.to_string())?;
    }
    Ok(History::new(&held))
}

fn free_address() -> std::io::Result<SocketAddr> {
    UdpSocket::bind("127.0.0.1:0")?.local_addr()
}

impl Attack<'_> {
    /// All run, and the volumes are whole at the receiver.
    fn set_up(&mut self) -> Result<(), String> {
        self.daemons.start(Daemon::Receiver)?;
        self.eventually("the receiver serves", |attack| {
            let status = attack.host.ask_receiver(&["status", "--json"], PATIENCE);
            status.code == 0 && status.said.contains("\"running\": true")
        })?;
        self.host.join()?;
        self.daemons.start(Daemon::Tap)?;
        self.daemons.start(Daemon::Shipper)?;
        self.eventually("the tap runs", |attack| {
            let socket = attack.host.path("run").join(GROUP).join("control.sock");
            std::os::unix::net::UnixStream::connect(socket).is_ok()
        })?;
        self.host.add()
    }

    fn eventually(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !so(self) {
            if start.elapsed() > PATIENCE {
                return Err(format!("never: {what}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The load, the faults and the checks, then rest.
    fn run(&mut self, plan: &Plan, time: Duration, dice: &mut Dice) {
        self.say(&plan.settings.to_string());
        self.begun = Instant::now();
        let (host, shared) = (self.host, self.shared);
        let mut checker = Checker::new(host.clone(), shared, dice.split());
        checker.is_verbose = self.is_verbose;
        let dice_of_writers: Vec<Dice> = (0..plan.settings.writers)
            .flat_map(|_| [dice.split(), dice.split()])
            .collect();
        thread::scope(|scope| {
            for (nth, dice) in dice_of_writers.into_iter().enumerate() {
                let number = nth % VOLUMES;
                let writer = Writer::new(shared, number, host.socket(number), dice);
                scope.spawn(move || writer.run());
            }
            scope.spawn(|| shared.beat());
            let end = self.begun + time;
            let checks = scope.spawn(move || {
                checker.run();
                checker
            });
            self.attack(plan, end);
            shared.is_over.store(true, Ordering::Relaxed);
            self.heal();
            let checker = checks.join();
            self.keep_up(Duration::ZERO);
            shared.ends.store(true, Ordering::Relaxed);
            checker
        })
        .map_or_else(
            |_| shared.violation("the checker failed".into()),
            |checker| self.rest(checker),
        );
    }

    fn attack(&mut self, plan: &Plan, end: Instant) {
        for (at, deed) in &plan.deeds {
            let due = self.begun + *at;
            self.keep_up(due.saturating_duration_since(Instant::now()));
            self.say(&format!("{deed:?}"));
            self.make(*deed);
        }
        self.keep_up(end.saturating_duration_since(Instant::now()));
    }

    /// Waits, and starts again what ended by itself, as a service manager does.
    fn keep_up(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            self.revive();
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            thread::sleep(rest.min(ATTEND_INTERVAL));
        }
    }

    fn revive(&mut self) {
        for daemon in Daemon::ALL {
            let is_ours = daemon != Daemon::Shipper || !self.is_child;
            if is_ours && self.is_meant[daemon as usize] && !self.daemons.is_running(daemon) {
                self.say(&format!("{daemon:?} has ended by itself"));
                self.outcome.revived += 1;
                self.start(daemon);
            }
        }
    }

    fn make(&mut self, deed: Deed) {
        match deed {
            Deed::Kill(daemon) => self.kill(daemon),
            Deed::Start(daemon) => self.start(daemon),
            Deed::GiveUp => {
                let done = self.host.ask_tap(&["cleanup", GROUP], PATIENCE);
                if let Err(error) = done.well() {
                    self.shared.violation(format!("cleanup: {error}"));
                }
                self.start(Daemon::Tap);
            }
            Deed::Restart(daemon) => self.restart(daemon),
            Deed::Stop(daemon) => {
                let is_met = self.daemons.stop(daemon);
                self.outcome.stalls += u64::from(is_met);
            }
            Deed::Continue(daemon) => self.daemons.go_on(daemon),
            Deed::Weather(weather) => self.proxy.set(weather),
            Deed::Stall { forth, back } => {
                self.proxy.hold(forth, back);
                self.outcome.stalls += 1;
            }
            Deed::Flow => self.proxy.hold(false, false),
            Deed::Plant(plant, step) => self.plant(plant, step),
        }
    }

    /// Plants a fault; before and after it the newest point is looked at.
    fn plant(&mut self, plant: Plant, step: Step) {
        let receiver = Daemon::Receiver;
        let shared = self.shared;
        shared.is_keen.store(true, Ordering::Relaxed);
        match (plant, step) {
            (Plant::Rollback, Step::Ready) => drop(self.daemons.stop(receiver)),
            (Plant::Rollback, Step::Done) => {
                self.daemons.kill(receiver);
                // Else the source may have mended it before anybody looks.
                self.proxy.hold(true, true);
            }
            _ => {}
        }
        let now = shared.history().now();
        if let Err(error) = planted::plant(self.host, plant, step) {
            shared.violation(format!("cannot plant {plant:?}: {error}"));
        }
        self.daemons.go_on(receiver);
        self.start(receiver);
        let looks = shared.looks.load(Ordering::Relaxed);
        let waited = match step {
            Step::Ready => self.eventually("a newer point", |_| {
                shared.floor.load(Ordering::Relaxed) > now
            }),
            // One may have been on its way.
            Step::Done => self.eventually("a look at it", |_| {
                shared.looks.load(Ordering::Relaxed) > looks + 1
            }),
        };
        waited.unwrap_or_else(|words| shared.violation(words));
    }

    /// Kills a daemon as soon as it is there. The child of a tap that is dead is not: then whoever is.
    fn kill(&mut self, daemon: Daemon) {
        for _ in 0..VICTIM_TRIES {
            if self.daemons.kill(daemon) {
                self.is_meant[daemon as usize] = false;
                self.outcome.kills += 1;
                return;
            }
            thread::sleep(ATTEND_INTERVAL);
        }
        for instead in [Daemon::Receiver, Daemon::Tap] {
            if self.daemons.kill(instead) {
                self.say(&format!("no {daemon:?}: {instead:?} instead"));
                self.outcome.kills += 1;
                self.start(instead);
                return;
            }
        }
    }

    fn start(&mut self, daemon: Daemon) {
        if daemon == Daemon::Tap && !self.daemons.is_running(daemon) {
            self.shared.history().cut_off();
        }
        self.is_meant[daemon as usize] = true;
        if let Err(error) = self.daemons.start(daemon) {
            self.shared.violation(format!("start: {error}"));
        }
    }

    /// Stops a daemon as a service manager does. The tap's child is the tap's to start again.
    fn restart(&mut self, daemon: Daemon) {
        if !self.daemons.is_running(daemon) {
            return;
        }
        self.outcome.restarts += 1;
        if let Err(error) = self.daemons.terminate(daemon) {
            self.shared.violation(format!("P12: {error}"));
        }
        self.start(daemon);
    }

    /// Everything runs, and the network is fair.
    fn heal(&mut self) {
        self.say("all is healed");
        self.proxy.set(Default::default());
        self.proxy.hold(false, false);
        for daemon in Daemon::ALL {
            self.daemons.go_on(daemon);
            self.start(daemon);
        }
    }

    /// Nothing writes and nothing fails any more.
    fn rest(&mut self, mut checker: Checker<'_>) {
        self.say("at rest");
        checker.check_rest(PATIENCE);
        self.outcome.counts = checker.counts;
        if let Err(error) = self.daemons.terminate(Daemon::Receiver) {
            self.shared.violation(format!("P12: {error}"));
        }
        let found = self.host.ask_receiver(&["fsck"], PATIENCE);
        if found.code != 0 {
            self.shared.violation(format!("P10: fsck: {found:?}"));
        }
        self.outcome.given_up = self.host.count_in_logs("the stream is given up");
        for line in self.host.logs().1 {
            self.shared.violation(format!("a panic: {line}"));
        }
    }

    fn say(&self, words: &str) {
        if self.is_verbose {
            println!("{:>9.3} {words}", self.begun.elapsed().as_secs_f64());
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            checks,
            again,
            barriers,
            missed,
            mutants,
        } = self.counts;
        writeln!(
            f,
            "restarts {} revived {} datagrams {} given up {} writes {} cut off {} barriers {barriers} same point again {again} \
             not to be had {missed} mutants {mutants}",
            self.restarts, self.revived, self.datagrams, self.given_up, self.writes, self.cut_off
        )?;
        write!(
            f,
            "seed {} kills {} stalls {} checks {checks} violations {}",
            self.seed,
            self.kills,
            self.stalls,
            self.violations.len()
        )
    }
}
