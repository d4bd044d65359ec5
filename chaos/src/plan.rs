//! Plan: all that a seed draws before anything starts: how the daemons are set up, and what is done to
//! them and the network when.

use sim::dice::Dice;
use std::fmt;
use std::time::Duration;

/// A daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// The block driver.
    Tap,
    /// The source's end of the link.
    Shipper,
    /// The receiver.
    Receiver,
}

impl Daemon {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tap, Self::Shipper, Self::Receiver];
}

/// What the network does to datagrams, times of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Never arrive.
    pub lost: u64,
    /// Arrive twice.
    pub doubled: u64,
    /// Are overtaken by later ones.
    pub overtaken: u64,
    /// All are under way so long.
    pub delay_ms: u64,
}

/// Something that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL.
    Kill(Daemon),
    /// What was killed comes back.
    Start(Daemon),
    /// What the killed tap has left is given up with `cleanup`; it comes back with a new ring.
    GiveUp,
    /// SIGTERM, waited for; it comes back.
    Restart(Daemon),
    /// SIGSTOP.
    Stop(Daemon),
    /// SIGCONT.
    Continue(Daemon),
    /// The network changes.
    Weather(Weather),
    /// The network holds everything, towards the receiver, the source, or both.
    Stall {
        /// What goes to the receiver.
        forth: bool,
        /// What comes from there.
        back: bool,
    },
    /// It lets go of what it has held.
    Flow,
    /// What must be found is made ready, and done.
    Plant(Plant, Step),
}

/// A part of a planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// At a third of the time.
    Ready,
    /// At two thirds.
    Done,
}

/// A fault no product can help, planted to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// Sectors of a target change behind the receiver's back.
    Target,
    /// Sectors of a disk change behind the tap's back: writes that are in no stream.
    Disk,
    /// The receiver is put back from an old copy of all it has.
    Rollback,
}

/// How a run is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The ring, in MiB.
    pub ring_mib: u64,
    /// Points are kept so long, in seconds.
    pub retain_s: u64,
    /// How long a write waits for room in the ring.
    pub park_ms: u64,
    /// The shipper is the tap's child; else it is our own.
    pub is_child: bool,
    /// The second volume lies in a pool.
    pub has_pool: bool,
    /// Connections to each volume.
    pub writers: u64,
}

/// What a run is asked to be.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many SIGKILLs.
    pub kills: u64,
    /// How long it is under load.
    pub time: Duration,
    /// What is planted.
    pub plant: Option<Plant>,
}

/// All that a seed draws.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How it is set up.
    pub settings: Settings,
    /// What is done, and when, since the load began; in order.
    pub deeds: Vec<(Duration, Deed)>,
}

/// Draws a plan.
pub fn draw(order: Order) -> Plan {
    let mut dice = Dice::new(order.seed);
    let drawn = settings(&mut dice);
    let settings = match order.plant {
        None => drawn,
        // No new copy is to cover it.
        Some(_) => Settings {
            ring_mib: 16,
            retain_s: 3600,
            park_ms: 4000,
            writers: 1,
            ..drawn
        },
    };
    let mut drawing = Drawing {
        dice,
        until_ms: order.time.as_millis() as u64,
        back_ms: [0; 3],
        deeds: Vec::new(),
    };
    drawing.kills(order.kills);
    match order.plant {
        None => drawing.all_sorts(order.kills / 8),
        // Nothing else is to be found then.
        Some(plant) => drawing.plant(plant),
    }
    let mut deeds = drawing.deeds;
    deeds.sort_by_key(|(at_ms, _)| *at_ms);
    let deeds = deeds.into_iter();
    Plan {
        settings,
        deeds: deeds
            .map(|(at_ms, deed)| (Duration::from_millis(at_ms), deed))
            .collect(),
    }
}

fn settings(dice: &mut Dice) -> Settings {
    Settings {
        ring_mib: 4 << dice.roll(3),
        // Mostly all that the journal holds, else the targets follow at once.
        retain_s: [3600, 3600, 5, 0][dice.roll(4) as usize],
        park_ms: dice.spread(100, 4000),
        is_child: dice.coin(),
        has_pool: dice.coin(),
        writers: dice.between(1, 3),
    }
}

struct Drawing {
    dice: Dice,
    until_ms: u64,
    /// When each daemon is started again.
    back_ms: [u64; 3],
    deeds: Vec<(u64, Deed)>,
}

impl Drawing {
    fn all_sorts(&mut self, restarts: u64) {
        self.restarts(restarts);
        self.stops();
        self.weathers();
        self.stalls();
    }

    fn plant(&mut self, plant: Plant) {
        let third_ms = self.until_ms / 3;
        for (nth, step) in [(1, Step::Ready), (2, Step::Done)] {
            let deed = Deed::Plant(plant, step);
            self.deeds.push((nth * third_ms, deed));
        }
    }

    fn kills(&mut self, count: u64) {
        let mut last = Daemon::Tap;
        for nth in 0..count {
            // Now and then the one that has just come back, while it recovers.
            let again = nth > 0 && self.dice.permille(250);
            let daemon = if again { last } else { self.daemon() };
            let back_ms = self.back_ms[daemon as usize];
            let spread = self.until_ms / count;
            let at_ms = match again {
                true => back_ms + self.dice.spread(1, 400),
                false => (spread * nth + self.dice.roll(spread)).max(back_ms + 1),
            };
            let start_ms = at_ms + self.dice.spread(1, 700);
            let start = match daemon {
                Daemon::Tap if self.dice.permille(120) => Deed::GiveUp,
                _ => Deed::Start(daemon),
            };
            self.deeds.push((at_ms, Deed::Kill(daemon)));
            self.deeds.push((start_ms, start));
            self.back_ms[daemon as usize] = start_ms;
            last = daemon;
        }
    }

    fn daemon(&mut self) -> Daemon {
        match self.dice.roll(20) {
            0..8 => Daemon::Tap,
            8..15 => Daemon::Receiver,
            _ => Daemon::Shipper,
        }
    }

    fn restarts(&mut self, count: u64) {
        for _ in 0..count {
            let daemon = Daemon::ALL[self.dice.roll(3) as usize];
            let at_ms = self.dice.roll(self.until_ms);
            self.deeds.push((at_ms, Deed::Restart(daemon)));
        }
    }

    fn stops(&mut self) {
        for _ in 0..self.until_ms / 6_000 {
            let daemon = Daemon::ALL[self.dice.roll(3) as usize];
            let at_ms = self.dice.roll(self.until_ms);
            let until_ms = at_ms + self.dice.spread(20, 4_000);
            self.deeds.push((at_ms, Deed::Stop(daemon)));
            self.deeds.push((until_ms, Deed::Continue(daemon)));
        }
    }

    fn weathers(&mut self) {
        for nth in 0..=self.until_ms / 5_000 {
            let dice = &mut self.dice;
            let mut often = |times: [u64; 4]| times[dice.roll(4) as usize];
            let weather = Weather {
                lost: often([0, 0, 20, 150]),
                doubled: often([0, 0, 20, 200]),
                overtaken: often([0, 0, 50, 300]),
                delay_ms: often([0, 0, 3, 40]),
            };
            let at_ms = nth * 5_000 + self.dice.roll(5_000);
            self.deeds.push((at_ms, Deed::Weather(weather)));
        }
    }

    fn stalls(&mut self) {
        for _ in 0..self.until_ms / 12_000 {
            let way = self.dice.roll(4);
            let stall = Deed::Stall {
                forth: way != 0,
                back: way != 1,
            };
            let at_ms = self.dice.roll(self.until_ms);
            let until_ms = at_ms + self.dice.spread(100, 6_000);
            self.deeds.push((at_ms, stall));
            self.deeds.push((until_ms, Deed::Flow));
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shipper = if self.is_child { "child" } else { "external" };
        let second = if self.has_pool { "pool" } else { "plain" };
        write!(
            f,
            "ring {} MiB, retain {} s, park {} ms, shipper {shipper}, second volume {second}, {} \
             connections each",
            self.ring_mib, self.retain_s, self.park_ms, self.writers
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> Order {
        Order {
            seed,
            kills: 20,
            time: Duration::from_secs(60),
            plant: None,
        }
    }

    #[test]
    fn a_seed_draws_the_same_plan_and_another_one_another() {
        let deeds = |seed| draw(order(seed)).deeds;
        assert_eq!(deeds(1), deeds(1));
        assert_ne!(deeds(1), deeds(2));
    }

    #[test]
    fn what_is_killed_comes_back_before_it_is_killed_again() {
        for seed in 0..200 {
            let plan = draw(order(seed));
            let kills = plan.deeds.iter();
            let kills = kills.filter(|(_, deed)| matches!(deed, Deed::Kill(_)));
            assert_eq!(kills.count(), 20, "seed {seed}");
            for daemon in Daemon::ALL {
                let mut is_dead = false;
                for (_, deed) in &plan.deeds {
                    match deed {
                        Deed::Kill(killed) if *killed == daemon => {
                            assert!(!is_dead, "seed {seed}");
                            is_dead = true;
                        }
                        Deed::Start(back) if *back == daemon => is_dead = false,
                        Deed::GiveUp if daemon == Daemon::Tap => is_dead = false,
                        _ => {}
                    }
                }
                assert!(!is_dead, "seed {seed}");
            }
        }
    }
}
