//! Checker: at random instants, under load, it has points exported and judged, and takes marks by which
//! later points are judged: what was acknowledged as durable must be in them, what came after a stamp
//! was seen must not.

use crate::command::{Done, OUT_OF_TIME};
use crate::history::{Bounds, Images, Moment};
use crate::mutants::{Damage, Judged};
use crate::site::{GROUP, Host, VOLUMES, volume};
use crate::writer::{Shared, contents};
use serde_json::Value;
use sim::dice::Dice;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Images judged.
    pub checks: u64,
    /// Those of a point exported before, which must be the same.
    pub again: u64,
    /// Barriers reached.
    pub barriers: u64,
    /// Exports that could not be had, as nobody was there or the point had gone.
    pub missed: u64,
    /// Damaged images, each refused.
    pub mutants: u64,
}

/// Exports and judges.
#[derive(Debug)]
pub struct Checker<'a> {
    host: Host,
    shared: &'a Shared,
    dice: Dice,
    /// Of each incarnation, what is known of its stamps.
    marks: BTreeMap<String, Marks>,
    /// The newest point is not before this moment.
    floor: Moment,
    /// The last joint image.
    last: Option<Images>,
    /// Some points that were exported: incarnation, stamp, and the images.
    kept: Vec<(Point, Images)>,
    /// What came of it.
    pub counts: Counts,
    /// Says what it finds.
    pub is_verbose: bool,
}

/// A point by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    incarnation: String,
    stamp: u64,
}

/// What is known of stamps: a point there is at or after `low`, at or before `high`.
type Marks = BTreeMap<u64, Bounds>;

/// A point listed, and what else is.
#[derive(Clone, Debug)]
struct Listed {
    point: Point,
    is_newest: bool,
}

/// Exit codes that say nobody is there, or it is not possible now.
const NOT_NOW: [i32; 3] = [3, 4, OUT_OF_TIME];
/// How long a command may take while its daemon may be stopped or dead.
const ASK_PATIENCE: Duration = Duration::from_secs(30);
/// How long a barrier may take under load before something else is looked at.
const BARRIER_PATIENCE: Duration = Duration::from_secs(5);
/// How often a barrier is asked for at rest.
const REST_TRIES: u32 = 20;
/// Images kept to be exported again.
const KEPT_MAX: usize = 6;

impl<'a> Checker<'a> {
    /// One that knows nothing yet.
    pub fn new(host: Host, shared: &'a Shared, dice: Dice) -> Self {
        Self {
            host,
            shared,
            dice,
            marks: BTreeMap::new(),
            floor: 0,
            last: None,
            kept: Vec::new(),
            counts: Counts::default(),
            is_verbose: false,
        }
    }

    /// Checks until it is over.
    pub fn run(&mut self) {
        while !self.shared.is_over.load(Ordering::Relaxed) {
            let rolled = self.dice.roll(10);
            match rolled {
                _ if self.shared.is_keen.load(Ordering::Relaxed) => self.check_newest(),
                0..2 => drop(self.barrier(BARRIER_PATIENCE)),
                2..4 => self.mark(),
                4..7 => self.check_newest(),
                7..9 => self.check_any(),
                _ => self.check_again(),
            }
            let pause_ms = self.dice.spread(1, 500);
            thread::sleep(Duration::from_millis(pause_ms));
        }
    }

    /// What is known of a stamp of an incarnation grows.
    fn note(&mut self, point: &Point, known: Bounds) {
        let marks = self.marks.entry(point.incarnation.clone()).or_default();
        let mark = marks.entry(point.stamp).or_insert(known);
        mark.low = mark.low.max(known.low);
        mark.high = mark.high.min(known.high);
    }

    /// The moments a point may be, by all marks of its incarnation.
    fn bounds(&self, point: &Point) -> Bounds {
        let none = Marks::new();
        let marks = self.marks.get(&point.incarnation).unwrap_or(&none);
        let low = marks.range(..=point.stamp).map(|(_, mark)| mark.low).max();
        let high = marks.range(point.stamp..).map(|(_, mark)| mark.high).min();
        Bounds {
            low: low.unwrap_or(0),
            high: high.unwrap_or(Moment::MAX),
        }
    }

    /// Looks at the newest stamp: all that was answered before is at or below it, what is asked later
    /// is above. While a stream is given up, what is answered has no stamp.
    fn mark(&mut self) {
        let low = self.shared.history().now();
        let done = self
            .host
            .ask_tap(&["status", GROUP, "--json"], ASK_PATIENCE);
        let high = self.shared.history().now();
        let Some(status) = self.json(&done) else {
            return;
        };
        let (Some(stamp), Some(incarnation)) =
            (status["captured"].as_u64(), status["incarnation"].as_str())
        else {
            return;
        };
        let point = Point {
            incarnation: incarnation.into(),
            stamp,
        };
        let low = if status["mode"] == "async" { low } else { 0 };
        self.note(&point, Bounds { low, high });
    }

    /// Has everything answered so far made durable; whether it was, in time.
    pub fn barrier(&mut self, patience: Duration) -> Result<(), String> {
        let low = self.shared.history().now();
        let timeout = format!("{}s", patience.as_secs());
        let words = ["barrier", GROUP, "--wait", "durable", "--timeout", &timeout];
        let done = self.host.ask_tap(&words, patience + ASK_PATIENCE);
        done.well()?;
        self.floor = self.floor.max(low);
        self.counts.barriers += 1;
        Ok(())
    }

    /// What a command printed as JSON; none if it could not.
    fn json(&self, done: &Done) -> Option<Value> {
        if done.code != 0 {
            self.excuse(done);
            return None;
        }
        let parsed = serde_json::from_str(&done.said);
        parsed
            .inspect_err(|error| self.shared.violation(format!("no JSON: {error}: {done:?}")))
            .ok()
    }

    /// What could not be had.
    fn miss(&mut self, done: &Done) {
        self.excuse(done);
        self.counts.missed += 1;
        if self.is_verbose {
            println!("          {}", done.complained.trim());
        }
    }

    /// A command that failed has to say that nobody is there, or why not now.
    fn excuse(&self, done: &Done) {
        // It died amid the answer.
        let amid = ["control socket failed", "ended before it answered"];
        let is_dead = done.code == 1 && amid.iter().any(|words| done.complained.contains(words));
        if !NOT_NOW.contains(&done.code) && !is_dead {
            self.shared.violation(format!("a command failed: {done:?}"));
        }
    }

    /// The newest point, or any.
    fn list(&mut self, newest: bool) -> Option<Listed> {
        let done = self
            .host
            .ask_receiver(&["points", GROUP, "--json"], ASK_PATIENCE);
        let listed = self.json(&done)?;
        let runs = listed["runs"].as_array()?;
        let nth = match newest {
            true => runs.len().checked_sub(1)?,
            false => self.dice.roll(runs.len() as u64) as usize,
        };
        let run = runs.get(nth)?;
        let (first, last) = (run["first_stamp"].as_u64()?, run["last_stamp"].as_u64()?);
        let incarnation = run["incarnation"].as_str()?;
        // A stamp is looked for in the newest incarnation that has it.
        let is_hidden = |stamp: u64| {
            runs[nth + 1..].iter().any(|later| {
                later["incarnation"] != incarnation
                    && later["first_stamp"].as_u64() <= Some(stamp)
                    && later["last_stamp"].as_u64() >= Some(stamp)
            })
        };
        let stamp = match newest {
            true => last,
            false => self.dice.between(first, last),
        };
        (!is_hidden(stamp)).then(|| Listed {
            point: Point {
                incarnation: incarnation.into(),
                stamp,
            },
            is_newest: newest,
        })
    }

    /// Exports all volumes at one point; none if they cannot be had.
    fn export(&mut self, stamp: u64) -> Option<Images> {
        let mut images = Images::new();
        for number in 0..VOLUMES {
            let file = self.host.path("export");
            let _ = fs::remove_file(&file);
            let (name, at) = (format!("{GROUP}/{}", volume(number)), stamp.to_string());
            let path = file.display().to_string();
            let words = ["volume", "export", &name, &path, "--at", &at];
            let done = self.host.ask_receiver(&words, ASK_PATIENCE);
            if done.code != 0 {
                self.miss(&done);
                return None;
            }
            match fs::read(&file) {
                Ok(image) => images.push((number, contents(&image, number))),
                Err(error) => {
                    self.shared.violation(format!("no export: {error}"));
                    return None;
                }
            }
        }
        Some(images)
    }

    /// The newest point holds all that was acknowledged as durable.
    fn check_newest(&mut self) {
        self.check(true);
    }

    /// Whatever point there is.
    fn check_any(&mut self) {
        self.check(false);
    }

    fn check(&mut self, newest: bool) -> Option<Bounds> {
        let floor = self.floor;
        let listed = self.list(newest)?;
        let images = self.export(listed.point.stamp)?;
        if self.is_renamed(&listed.point) {
            return None;
        }
        let mut bounds = self.bounds(&listed.point);
        if listed.is_newest {
            bounds.low = bounds.low.max(floor);
        }
        let found = self.judge(&listed.point, &images, bounds.met());
        if listed.is_newest {
            self.shared.looks.fetch_add(1, Ordering::Relaxed);
        }
        let found = found?;
        self.note(&listed.point, found);
        if listed.is_newest {
            self.floor = self.floor.max(found.low);
            self.shared.floor.store(self.floor, Ordering::Relaxed);
            self.last = Some(images.clone());
        }
        if self.kept.len() < KEPT_MAX {
            self.kept.push((listed.point, images));
        } else if self.dice.coin() {
            let nth = self.dice.roll(KEPT_MAX as u64) as usize;
            self.kept[nth] = (listed.point, images);
        }
        Some(found)
    }

    /// Whether a newer incarnation has got a point of that stamp meanwhile.
    fn is_renamed(&mut self, point: &Point) -> bool {
        let newest = self.list(true);
        newest.is_none_or(|newest| newest.point.incarnation != point.incarnation)
    }

    fn judge(&mut self, point: &Point, images: &Images, bounds: Bounds) -> Option<Bounds> {
        self.counts.checks += 1;
        let history = self.shared.history().clone();
        let verdict = history.judge(images, bounds);
        if self.is_verbose {
            println!(
                "          {point:?} within {bounds:?}: {:?}",
                verdict.as_ref().ok()
            );
        }
        if let Err(words) = &verdict {
            self.shared.violation(format!("at {point:?}: {words}"));
        }
        let found = verdict.ok()?;
        let judged = Judged {
            history: &history,
            images,
            bounds,
            older: self.last.as_ref(),
        };
        for damage in Damage::ALL {
            let Some(damaged) = judged.damaged(damage, &mut self.dice) else {
                continue;
            };
            self.counts.mutants += 1;
            if history.judge(&damaged, bounds).is_ok() {
                let words = format!("the oracle is blind: {damage:?} at {point:?}, {bounds:?}");
                self.shared.violation(words);
            }
        }
        Some(found)
    }

    /// A point that is kept stays what it was, whatever happens.
    fn check_again(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let nth = self.dice.roll(self.kept.len() as u64) as usize;
        let (point, before) = self.kept[nth].clone();
        let Some(images) = self.export(point.stamp) else {
            self.kept.swap_remove(nth);
            return;
        };
        if self.is_renamed(&point) {
            self.kept.swap_remove(nth);
            return;
        }
        self.counts.again += 1;
        self.counts.checks += 1;
        if images != before {
            let words = format!("P4: {point:?} was another image before");
            self.shared.violation(words);
        }
    }

    /// At rest: the newest point is the disks, all of them, byte for byte.
    pub fn check_rest(&mut self, patience: Duration) {
        // What has only just been started may refuse at first.
        let mut reached = self.barrier(patience);
        for _ in 0..REST_TRIES {
            if reached.is_err() {
                thread::sleep(Duration::from_millis(500));
                reached = self.barrier(patience);
            }
        }
        if let Err(error) = reached {
            let words = format!("P12: no barrier within {patience:?} after all was well: {error}");
            self.shared.violation(words);
            return;
        }
        let now = self.shared.history().now();
        let Some(found) = self.check(true) else {
            self.shared.violation("P7: no good point at rest".into());
            return;
        };
        if found.high != now {
            self.shared
                .violation(format!("P4: at rest the point is {found:?}, now is {now}"));
        }
        let disks = (0..VOLUMES).map(|number| {
            let image = fs::read(self.host.disk(number)).unwrap_or_default();
            (number, contents(&image, number))
        });
        let disks: Images = disks.collect();
        if self.last.as_ref() != Some(&disks) {
            self.shared
                .violation("P4: at rest the replica is not the disk".into());
        }
    }
}
