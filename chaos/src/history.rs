//! History: what applications asked for and were told, and which images are a moment of it.
//!
//! Simpler than what it judges, and without its stamps: there is one clock, which ticks with each request
//! and each answer. A request takes effect somewhere between the two. So at moment `t` everything
//! answered before must be there, nothing asked after may be, and what is in flight is either. Requests
//! on one sector follow each other, hence what a sector held is valid from its own request to the
//! answer of the next one. An image is a moment of the source if all its sectors' spans contain that
//! moment, counted over all moments in one pass, and each request in flight is there as a whole or not at
//! all. Zeroes do not say whose they are; they are valid in several spans.
//!
//! A request whose answer was lost with the tap is settled by reading: per sector it has happened
//! or it never will have.

use sim::oracle::{GARBAGE, INITIAL, ZERO};
use std::ops::Range;
use words::shown;

/// A tick of the clock.
pub type Moment = u64;

/// Sectors of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of the volume.
    pub volume: usize,
    /// Its sectors.
    pub sectors: Range<usize>,
}

/// Number of a change; a write stamps its sectors with it.
pub type Change = usize;

/// What all volumes held, and when.
#[derive(Clone, Debug)]
pub struct History {
    now: Moment,
    asked: Vec<Asked>,
    volumes: Vec<Volume>,
}

/// One change.
#[derive(Clone, Debug)]
struct Asked {
    extent: Extent,
    /// What it leaves: its own number, or zeroes.
    content: u64,
    at: Moment,
    answered: Moment,
    /// It is there as a whole or not at all.
    is_whole: bool,
}

#[derive(Clone, Debug)]
struct Volume {
    /// Per sector, what changed it, in order.
    changes: Vec<Vec<u32>>,
    is_busy: Vec<bool>,
}

/// The moments an image may be: not before `low`, not after `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Everything answered before is in it.
    pub low: Moment,
    /// Nothing asked later is in it.
    pub high: Moment,
}

impl Bounds {
    /// Bounds that meet: where `high` was seen first, and only answers came until `low`, both are the same
    /// state, and `low` names it.
    #[must_use]
    pub fn met(self) -> Self {
        Self {
            high: self.high.max(self.low),
            ..self
        }
    }
}

/// Volumes by number, and what their sectors hold.
pub type Images = Vec<(usize, Vec<u64>)>;

/// Not answered yet.
const NEVER: Moment = Moment::MAX;

impl History {
    /// Volumes that hold `initial`: [`ZERO`] or [`INITIAL`] each sector.
    pub fn new(initial: &[Vec<u64>]) -> Self {
        let before = |content| Asked {
            extent: Extent {
                volume: 0,
                sectors: 0..0,
            },
            content,
            at: 0,
            answered: 0,
            is_whole: false,
        };
        let volume = |contents: &Vec<u64>| Volume {
            changes: contents.iter().map(|held| vec![*held as u32]).collect(),
            is_busy: vec![false; contents.len()],
        };
        Self {
            now: 0,
            asked: vec![before(ZERO), before(INITIAL)],
            volumes: initial.iter().map(volume).collect(),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// How many changes were asked for.
    pub fn changes(&self) -> usize {
        self.asked.len() - 2
    }

    /// A change is about to be asked for, unless another of these sectors is in flight. One that is
    /// larger than a record need not be `whole`.
    pub fn ask(&mut self, extent: &Extent, zeroes: bool, whole: bool) -> Option<Change> {
        if !self.hold(extent) {
            return None;
        }
        self.now += 1;
        let change = self.asked.len();
        for changes in &mut self.volumes[extent.volume].changes[extent.sectors.clone()] {
            changes.push(change as u32);
        }
        self.asked.push(Asked {
            extent: extent.clone(),
            content: if zeroes { ZERO } else { change as u64 },
            at: self.now,
            answered: NEVER,
            is_whole: whole,
        });
        Some(change)
    }

    /// A change was answered well.
    pub fn answer(&mut self, change: Change) {
        self.now += 1;
        assert_eq!(self.asked[change].answered, NEVER, "one answer each");
        self.asked[change].answered = self.now;
        let extent = self.asked[change].extent.clone();
        self.release(&extent);
    }

    /// The sectors of a change.
    pub fn extent(&self, change: Change) -> Extent {
        self.asked[change].extent.clone()
    }

    /// The tap is dead: what is in flight may be there in part.
    pub fn cut_off(&mut self) {
        let in_flight = self
            .asked
            .iter_mut()
            .filter(|asked| asked.answered == NEVER);
        in_flight.for_each(|asked| asked.is_whole = false);
    }

    /// The answer of a change was lost, and this is what its sectors hold. An error: they hold what was
    /// not there before either.
    pub fn settle(&mut self, change: Change, found: &[u64]) -> Result<(), String> {
        let asked = self.asked[change].clone();
        let (volume, first) = (asked.extent.volume, asked.extent.sectors.start);
        for (nth, &found) in found.iter().enumerate() {
            let changes = &mut self.volumes[volume].changes[first + nth];
            assert_eq!(changes.last(), Some(&(change as u32)), "it was held");
            if found == asked.content {
                continue;
            }
            changes.pop();
            let before = changes.last().map(|before| *before as usize);
            let before = before.map(|before| self.asked[before].content);
            if before != Some(found) {
                return Err(format!(
                    "P1: after change {change} was cut off, {volume}/{} holds {}, neither it nor {}",
                    first + nth,
                    shown(found),
                    shown(before.unwrap_or(GARBAGE))
                ));
            }
        }
        self.answer(change);
        Ok(())
    }

    /// Keeps sectors from being changed; not if they are.
    pub fn hold(&mut self, extent: &Extent) -> bool {
        let busy = &mut self.volumes[extent.volume].is_busy[extent.sectors.clone()];
        let is_free = !busy.contains(&true);
        if is_free {
            busy.fill(true);
        }
        is_free
    }

    /// Lets them be changed.
    pub fn release(&mut self, extent: &Extent) {
        self.volumes[extent.volume].is_busy[extent.sectors.clone()].fill(false);
    }

    /// Sectors that are held were read. An error: this is not what they hold.
    pub fn compare(&self, extent: &Extent, found: &[u64]) -> Result<(), String> {
        let changes = &self.volumes[extent.volume].changes[extent.sectors.clone()];
        for (nth, (changes, &found)) in changes.iter().zip(found).enumerate() {
            let last = changes.last().map_or(0, |last| *last as usize);
            let expected = self.asked[last].content;
            if found != expected {
                return Err(format!(
                    "P1: {}/{} reads as {}, last was {} (change {last})",
                    extent.volume,
                    extent.sectors.start + nth,
                    shown(found),
                    shown(expected)
                ));
            }
        }
        Ok(())
    }

    /// Which moments these images are together, within bounds: the first and the last. An error: none.
    pub fn judge(&self, images: &Images, bounds: Bounds) -> Result<Bounds, String> {
        let (agreeing, sectors) = self.count(images);
        let high = bounds.high.min(self.now);
        let all = bounds.low..=high;
        let fits = |moment: &Moment| {
            agreeing[*moment as usize] == sectors && self.torn_at(images, *moment).is_none()
        };
        let first = all.clone().find(fits);
        let Some(first) = first else {
            return Err(self.words(images, &agreeing, bounds));
        };
        let last = all.rev().find(fits).unwrap_or(first);
        Ok(Bounds {
            low: first,
            high: last,
        })
    }

    /// How many sectors agree with each moment, and how many there are.
    fn count(&self, images: &Images) -> (Vec<u32>, u32) {
        let mut steps = vec![0_i64; self.now as usize + 2];
        let mut sectors = 0;
        for (volume, image) in images {
            for (changes, &content) in self.volumes[*volume].changes.iter().zip(image) {
                sectors += 1;
                self.count_sector(changes, content, &mut steps);
            }
        }
        let mut sum = 0;
        let agreeing = steps[..=self.now as usize].iter().map(|step| {
            sum += step;
            sum as u32
        });
        (agreeing.collect(), sectors)
    }

    /// Adds the moments at which a sector may have held `content`, each once: the spans of two changes
    /// that follow each other overlap while the later one is in flight.
    fn count_sector(&self, changes: &[u32], content: u64, steps: &mut [i64]) {
        let mut counted_from = self.now + 1;
        for nth in (0..changes.len()).rev() {
            let own = &self.asked[changes[nth] as usize];
            if own.content != content {
                continue;
            }
            let (from, until) = (own.at, self.until(changes, nth).min(counted_from - 1));
            if from <= until {
                steps[from as usize] += 1;
                steps[until as usize + 1] -= 1;
                counted_from = from;
            }
            if content != ZERO {
                return;
            }
        }
    }

    /// The last moment at which the `nth` change of a sector may be what it holds.
    fn until(&self, changes: &[u32], nth: usize) -> Moment {
        let next = changes.get(nth + 1);
        let next = next.map(|next| self.asked[*next as usize].answered);
        next.unwrap_or(NEVER).min(self.now)
    }

    /// A change in flight at this moment that should be there in all its sectors or in none, and is not.
    fn torn_at(&self, images: &Images, moment: Moment) -> Option<Change> {
        let asked = self.asked.iter().enumerate().skip(2);
        let in_flight = asked.filter(|(_, asked)| asked.at <= moment && moment <= asked.answered);
        let mut whole = in_flight.filter(|(_, asked)| asked.is_whole);
        let torn = whole.find(|(change, asked)| {
            let image = images
                .iter()
                .find(|(volume, _)| *volume == asked.extent.volume);
            image.is_some_and(|(_, image)| {
                let mut told = asked.extent.sectors.clone();
                let first = told.find_map(|sector| self.has(*change, sector, image));
                told.any(|sector| {
                    let has = self.has(*change, sector, image);
                    has.is_some() && has != first
                })
            })
        });
        torn.map(|(change, _)| change)
    }

    /// Whether a change is there in one sector; none if that cannot be told.
    fn has(&self, change: Change, sector: usize, image: &[u64]) -> Option<bool> {
        let asked = &self.asked[change];
        let before = self.before(asked.extent.volume, sector, change)?;
        (before != asked.content).then(|| image[sector] == asked.content)
    }
}

mod facts;
#[cfg(test)]
mod tests;
mod words;
