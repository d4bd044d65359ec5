//! The oracle, proved: legal images of random concurrent runs are taken, damaged ones are refused.

use super::*;
use crate::mutants::{Damage, Judged};
use sim::dice::Dice;

const VOLUMES: usize = 2;
const SECTORS: usize = 24;

/// Applications, and a disk that takes requests in an order of its own within what they allow.
struct Model {
    dice: Dice,
    history: History,
    disk: Images,
    /// Asked for, not yet done.
    waiting: Vec<Change>,
    /// Done, not yet answered.
    done: Vec<Change>,
    /// After each effect: the moment, and what the disk held.
    states: Vec<(Moment, Images)>,
}

impl Model {
    fn run(seed: u64, steps: usize) -> Self {
        let mut dice = Dice::new(seed);
        let mut content = || match dice.coin() {
            true => ZERO,
            false => INITIAL,
        };
        let initial: Vec<Vec<u64>> = (0..VOLUMES)
            .map(|_| (0..SECTORS).map(|_| content()).collect())
            .collect();
        let mut model = Self {
            dice,
            history: History::new(&initial),
            disk: initial.into_iter().enumerate().collect(),
            waiting: Vec::new(),
            done: Vec::new(),
            states: Vec::new(),
        };
        model.states.push((0, model.disk.clone()));
        (0..steps).for_each(|_| model.step());
        model
    }

    fn step(&mut self) {
        match self.dice.roll(3) {
            0 => self.ask(),
            1 if !self.waiting.is_empty() => self.happen(),
            _ if !self.done.is_empty() => {
                let nth = self.dice.roll(self.done.len() as u64) as usize;
                self.history.answer(self.done.swap_remove(nth));
            }
            _ => {}
        }
    }

    fn ask(&mut self) {
        let first = self.dice.roll(SECTORS as u64) as usize;
        let count = 1 + self.dice.roll(4) as usize;
        let extent = Extent {
            volume: self.dice.roll(VOLUMES as u64) as usize,
            sectors: first..(first + count).min(SECTORS),
        };
        let zeroes = self.dice.permille(250);
        self.waiting.extend(self.history.ask(&extent, zeroes, true));
    }

    fn happen(&mut self) {
        let nth = self.dice.roll(self.waiting.len() as u64) as usize;
        let change = self.waiting.swap_remove(nth);
        let extent = self.history.extent(change);
        let content = self.history.asked[change].content;
        self.disk[extent.volume].1[extent.sectors].fill(content);
        self.done.push(change);
        self.states.push((self.history.now(), self.disk.clone()));
    }
}

#[test]
fn every_moment_of_a_random_run_is_taken_at_its_time() {
    for seed in 0..40 {
        let model = Model::run(seed, 600);
        for (moment, images) in &model.states {
            let bounds = Bounds {
                low: *moment,
                high: *moment,
            };
            let judged = model.history.judge(images, bounds);
            assert_eq!(judged, Ok(bounds), "seed {seed}");
        }
    }
}

#[test]
fn every_damaged_image_of_a_random_run_is_refused() {
    let mut found = [0; Damage::ALL.len()];
    for seed in 0..40 {
        let mut model = Model::run(seed, 600);
        let mut dice = model.dice.split();
        let states = std::mem::take(&mut model.states);
        for pair in states.windows(8).step_by(3) {
            let ((low, older), (moment, images)) = (&pair[0], &pair[7]);
            let bounds = |low| Bounds { low, high: *moment };
            for (nth, damage) in Damage::ALL.into_iter().enumerate() {
                let judged = Judged {
                    history: &model.history,
                    images,
                    bounds: match damage {
                        Damage::Stale => bounds(*moment),
                        _ => bounds(low + 1),
                    },
                    older: Some(older),
                };
                let Some(damaged) = judged.damaged(damage, &mut dice) else {
                    continue;
                };
                let verdict = model.history.judge(&damaged, judged.bounds);
                assert!(verdict.is_err(), "seed {seed}: {damage:?} is not seen");
                found[nth] += 1;
            }
        }
    }
    for (damage, found) in Damage::ALL.iter().zip(found) {
        assert!(found > 20, "{damage:?}: only {found} places");
    }
}

/// Volume 0 with sectors 0 (old data), 1 (zeroes) and 2 (old data); each change answered in turn.
fn story() -> History {
    let mut history = History::new(&[vec![INITIAL, ZERO, INITIAL], vec![ZERO]]);
    for (volume, sector, zeroes) in [(0, 0, false), (0, 1, false), (0, 0, true), (1, 0, false)] {
        let extent = Extent {
            volume,
            sectors: sector..sector + 1,
        };
        let change = history.ask(&extent, zeroes, true).unwrap();
        history.answer(change);
    }
    history
}

fn verdict(history: &History, first: [u64; 3], second: u64) -> Option<Moment> {
    let images = vec![(0, first.to_vec()), (1, vec![second])];
    let bounds = Bounds {
        low: 0,
        high: history.now(),
    };
    history.judge(&images, bounds).ok().map(|found| found.low)
}

#[test]
fn a_dropped_write_a_stale_volume_and_a_discard_out_of_order_are_refused() {
    let history = story();
    assert_eq!(verdict(&history, [INITIAL, ZERO, INITIAL], ZERO), Some(0));
    assert_eq!(verdict(&history, [2, 3, INITIAL], ZERO), Some(3));
    assert_eq!(verdict(&history, [ZERO, 3, INITIAL], 5), Some(7));
    assert_eq!(
        verdict(&history, [INITIAL, 3, INITIAL], ZERO),
        None,
        "change 2 was dropped"
    );
    assert_eq!(
        verdict(&history, [ZERO, ZERO, INITIAL], ZERO),
        None,
        "the discard came before change 3"
    );
    assert_eq!(
        verdict(&history, [2, 3, INITIAL], 5),
        None,
        "one volume is older than the other"
    );
    assert_eq!(verdict(&history, [2, GARBAGE, INITIAL], ZERO), None);
}

#[test]
fn what_was_cut_off_is_what_a_read_finds_and_nothing_else() {
    let mut history = story();
    let extent = Extent {
        volume: 0,
        sectors: 0..3,
    };
    let change = history.ask(&extent, false, true).unwrap();
    let cut = change as u64;
    let found = [cut, 3, cut];
    history.cut_off();
    assert_eq!(verdict(&history, found, 5), Some(9), "not read yet");
    history.settle(change, &found).unwrap();
    assert_eq!(verdict(&history, found, 5), Some(9), "torn, as the disk is");
    assert_eq!(verdict(&history, [cut, cut, cut], 5), None, "it never was");
    let change = history.ask(&extent, false, true).unwrap();
    let lost = history.settle(change, &[cut, 2, cut]);
    assert!(lost.is_err_and(|words| words.starts_with("P1: ")));
}

#[test]
fn a_write_in_flight_is_whole_or_not_there() {
    let mut history = story();
    let extent = Extent {
        volume: 0,
        sectors: 0..2,
    };
    let change = history.ask(&extent, false, true).unwrap() as u64;
    assert!(verdict(&history, [change, change, INITIAL], 5).is_some());
    assert!(verdict(&history, [ZERO, 3, INITIAL], 5).is_some());
    assert!(verdict(&history, [change, 3, INITIAL], 5).is_none(), "torn");
    let mut history = story();
    let change = history.ask(&extent, false, false).unwrap() as u64;
    let parts = verdict(&history, [change, 3, INITIAL], 5);
    assert!(parts.is_some(), "a large request is no record");
}

#[test]
fn a_stamp_seen_before_an_answer_and_a_barrier_after_it_name_the_same_point() {
    let mut history = story();
    let extent = Extent {
        volume: 1,
        sectors: 0..1,
    };
    let change = history.ask(&extent, false, true).unwrap();
    let high = history.now();
    history.answer(change);
    let low = history.now();
    let bounds = Bounds { low, high }.met();
    let judge = |second| {
        let images = vec![(0, vec![ZERO, 3, INITIAL]), (1, vec![second])];
        history.judge(&images, bounds)
    };
    assert!(judge(change as u64).is_ok());
    let later = history.clone().ask(&extent, false, true).unwrap();
    assert!(judge(later as u64).is_err(), "nothing later is in it");
}
