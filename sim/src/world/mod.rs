//! World: one source, one receiver and what lies between, in one thread on virtual time.
//!
//! A run has two phases. In the first anything may break. Then everything is healed, and the
//! replica must become the source by itself within a stated time.

mod app;
mod check;
mod clock;
mod copier;
mod events;
mod link;
mod mishaps;
mod pad;
mod shipper;
mod site;
mod source;
mod tap;
mod tap_end;

use crate::dice::Dice;
use crate::faults::{MS, Mix, S};
use crate::oracle::History;
use crate::probes::{Probe, Reached};
use crate::trace::{Trace, Words};
use check::Look;
use clock::Clock;
use events::{Begin, Event};
use link::Links;
use pad::Pad;
use site::Site;
use source::Source;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use wire::Stamp;

/// Longest first phase.
const SAFETY_NS_MAX: u64 = 120 * S;
/// Within this time after healing the replica is the source.
const LIVENESS_NS_MAX: u64 = 180 * S;
/// Most events of a run: more is a loop without progress.
const EVENTS_MAX: u64 = 3_000_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was wrong, in words.
    pub violation: Option<String>,
    /// Hash of all events.
    pub hash: u64,
    /// The end of the trace, when it was kept.
    pub trace: Vec<String>,
    /// Faults made.
    pub faults: u64,
    /// Checks made.
    pub checks: u64,
    /// Writes, discards and zeroes of the application.
    pub writes: u64,
    /// Virtual time.
    pub time_ns: u64,
    /// States reached.
    pub reached: Reached,
}

/// A run under way.
pub struct World {
    mix: Mix,
    dice: Dice,
    clock: Clock,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pad: Rc<RefCell<Pad>>,
    source: Source,
    links: Links,
    site: Site,
    look: Look,
    /// When each change was answered, by its number.
    done: Vec<u64>,
    writes: u64,
    writes_left: u64,
    had_point: bool,
    newest: (u64, Stamp),
    base_checked_ns: u64,
    faults: u64,
    checks: u64,
    reached: Reached,
    trace: Trace,
    is_healed: bool,
    violation: Option<String>,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, words: Words) -> Self {
        let mut dice = Dice::new(seed);
        let mix = Mix::draw(&mut dice.split());
        let initial = tap::initial(&mix.volumes, &mut dice);
        let pad = Pad::new(History::new(&initial));
        let mut world = Self {
            source: Source::new(&initial),
            site: Site::new(&mix),
            links: Links::default(),
            look: Look::default(),
            pad: Rc::new(RefCell::new(pad)),
            clock: Clock::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            done: Vec::new(),
            writes: 0,
            writes_left: mix.writes,
            had_point: false,
            newest: (0, Stamp::ZERO),
            base_checked_ns: 0,
            faults: 0,
            checks: 0,
            reached: Reached::default(),
            is_healed: false,
            violation: None,
            trace: Trace::new(words),
            dice,
            mix,
        };
        world.line(|| format!("mix {:?}", world_mix(seed)));
        world
    }

    /// Runs to the end.
    pub fn run(mut self) -> Outcome {
        self.after(0, Event::StartSite);
        self.after(0, Event::StartTap(Begin::Anew));
        self.after(MS, Event::App);
        self.after(50 * MS, Event::Look);
        if !self.mix.faults.is_empty() {
            let wait = self.dice.roll(2 * self.mix.fault_ns);
            self.after(wait, Event::Fault);
        }
        while self.violation.is_none()
            && !(self.writes_left == 0 && self.source.at_disk.is_empty())
            && self.clock.now_ns < SAFETY_NS_MAX
        {
            self.step();
        }
        self.heal();
        let until = self.clock.now_ns + LIVENESS_NS_MAX;
        let mut looked_ns = self.clock.now_ns;
        let mut even_ns = u64::MAX;
        while self.violation.is_none() {
            self.step();
            if self.clock.now_ns >= looked_ns + 50 * MS {
                looked_ns = self.clock.now_ns;
                if even_ns == u64::MAX && self.is_even() {
                    even_ns = looked_ns;
                }
                if even_ns < self.look.compared_ns {
                    break;
                }
                if looked_ns >= until {
                    let state = self.state_line();
                    self.fail(format!("P12: does not come to rest: {state}"));
                }
            }
        }
        if self.violation.is_none() {
            self.check_newest();
        }
        self.outcome()
    }

    fn outcome(mut self) -> Outcome {
        if self.pad.borrow().uncaptured > 0 {
            self.reached.reach(Probe::Uncaptured);
        }
        Outcome {
            violation: self.violation,
            hash: self.trace.hash(),
            trace: self.trace.tail(60),
            faults: self.faults,
            checks: self.checks,
            writes: self.writes,
            time_ns: self.clock.now_ns,
            reached: self.reached,
        }
    }

    fn after(&mut self, wait_ns: u64, event: Event) {
        self.sequence += 1;
        let at = self.clock.now_ns.saturating_add(wait_ns);
        self.queue.insert((at, self.sequence), event);
    }

    fn step(&mut self) {
        let Some(((at, sequence), event)) = self.queue.pop_first() else {
            return self.fail("P12: nothing will happen any more".into());
        };
        if sequence > EVENTS_MAX {
            return self.fail(format!("P12: no end of events: {}", self.state_line()));
        }
        self.clock.now_ns = at;
        self.pad.borrow_mut().clock = self.clock;
        self.trace.event(at, event.kind() ^ sequence << 8);
        self.handle(event);
    }

    fn handle(&mut self, event: Event) {
        let (tap, site) = (self.source.life, self.site.life);
        match event {
            Event::App => self.app_event(),
            Event::Disk { life, ticket } if life == tap => self.disk_event(ticket),
            Event::Pause {
                life,
                volume,
                queue,
            } if life == tap => self.pause_event(volume, queue),
            Event::Turn { life } if life == tap => self.turn_tap(),
            Event::Copier { life, volume } if life == tap => self.copier_event(volume),
            Event::StartTap(begin) if self.source.tap.is_none() => self.start_tap(begin),
            Event::StartShipper { life } if life == tap => self.start_shipper(),
            Event::Ship { shipper } => self.ship_if(shipper),
            Event::ToReceiver { link, mail } => self.site_heard(link, mail),
            Event::ToSource { link, mail } => self.heard(link, mail),
            Event::Commit { life } if life == site => self.commit_event(),
            Event::Work { life } if life == site => self.work_event(),
            Event::Tick { life } if life == site => {
                self.tell_group(receiver::serve::group::Event::Tick);
            }
            Event::StartSite => self.start_site(),
            Event::RestartSite { life } if life == site => self.kill_site(false),
            Event::Fault => self.fault_event(),
            Event::Heal(heal) => self.heal_one(heal),
            Event::Look => self.look_event(),
            _ => {}
        }
        self.take_holds();
    }

    fn pause_event(&mut self, volume: usize, queue: usize) {
        let Some(tap) = &mut self.source.tap else {
            return;
        };
        tap.volumes[volume].queues[queue].paused();
        tap.turn_queues();
        self.touched();
    }

    fn ship_if(&mut self, id: u64) {
        let now = self.clock.now_ns;
        let is_this = self
            .shipper()
            .is_some_and(|it| it.id == id && it.stalled_ns <= now);
        if is_this {
            self.ship_event();
        }
    }

    /// Whether anything may still go wrong.
    fn is_safety(&self) -> bool {
        !self.is_healed
    }

    fn fail(&mut self, words: String) {
        self.line(|| format!("VIOLATION {words}"));
        if self.violation.is_none() {
            self.violation = Some(words);
        }
    }

    fn line(&mut self, words: impl FnOnce() -> String) {
        self.trace.line(self.clock.now_ns, words);
    }
}

fn world_mix(seed: u64) -> Mix {
    Mix::draw(&mut Dice::new(seed).split())
}
