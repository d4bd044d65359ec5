//! Mutants: images as a broken product would make them, of an image that was just judged good. The oracle
//! must refuse each, or it is blind.

use crate::history::{Bounds, Change, History, Images};
use sim::dice::Dice;
use sim::oracle::{GARBAGE, INITIAL, ZERO};

/// What is done to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A sector is changed, or is one of another place.
    Corrupt,
    /// A write acknowledged as durable is not there.
    Lost,
    /// A write is not there, one that was asked for after its answer is.
    Reordered,
    /// A write that came after the point is there.
    Early,
    /// A write is there in part.
    Torn,
    /// The image is one from before what was acknowledged as durable.
    Stale,
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Corrupt,
        Self::Lost,
        Self::Reordered,
        Self::Early,
        Self::Torn,
        Self::Stale,
    ];
}

/// What was judged good, and an older image that was.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// What was asked for since the beginning.
    pub history: &'a History,
    /// The image.
    pub images: &'a Images,
    /// What it was judged by.
    pub bounds: Bounds,
    /// One that was good before.
    pub older: Option<&'a Images>,
}

/// How often a place for the damage is looked for.
const TRIES: usize = 200;

impl Judged<'_> {
    /// The image, damaged so that it cannot be any legal one; none where it has no place for that.
    pub fn damaged(&self, damage: Damage, dice: &mut Dice) -> Option<Images> {
        if damage == Damage::Stale {
            let older = self.older?;
            return self.lacks_something(older).then(|| older.clone());
        }
        (0..TRIES).find_map(|_| {
            let nth = dice.roll(self.images.len() as u64) as usize;
            let sector = dice.roll(self.images[nth].1.len() as u64) as usize;
            let mut images = self.images.clone();
            self.damage((nth, sector), damage, &mut images)
                .then_some(images)
        })
    }

    fn damage(&self, place: (usize, usize), damage: Damage, images: &mut Images) -> bool {
        let (nth, sector) = place;
        match damage {
            Damage::Corrupt => images[nth].1[sector] = GARBAGE,
            Damage::Early => return self.bring_forward(place, images),
            Damage::Lost | Damage::Reordered | Damage::Torn => {
                let Some(change) = self.standing(place) else {
                    return false;
                };
                let (asked, answered) = self.history.span(change);
                let extent = self.history.extent(change).sectors;
                let is_fit = match damage {
                    Damage::Lost => answered < self.bounds.low,
                    Damage::Reordered => self.shows_one_after(answered),
                    _ => {
                        self.history.is_whole(change)
                            && extent.len() > 1
                            && asked <= self.bounds.high
                            && extent
                                .clone()
                                .all(|other| self.standing((nth, other)) == Some(change))
                    }
                };
                if !is_fit {
                    return false;
                }
                let half = extent.start + extent.len() / 2;
                let gone = match damage {
                    Damage::Torn => extent.start..half,
                    _ => extent,
                };
                self.take_back(nth, change, gone, images);
            }
            Damage::Stale => return false,
        }
        true
    }

    /// Whether a write that was answered before the image's first moment is not in an older one.
    ///
    /// Not told by the moments found for the older one: what was in flight then was answered later, or
    /// cut off, and either makes them more.
    fn lacks_something(&self, older: &Images) -> bool {
        let places = older
            .iter()
            .enumerate()
            .flat_map(|(nth, (_, image))| (0..image.len()).map(move |sector| (nth, sector)));
        let mut missing = places.filter(|&(nth, sector)| {
            self.standing((nth, sector)).is_some_and(|change| {
                let is_old = self.history.span(change).1 < self.bounds.low;
                is_old && older[nth].1[sector] != change as u64
            })
        });
        missing.next().is_some()
    }

    /// The write a sector shows, if nothing came after it that may be in the image.
    fn standing(&self, (nth, sector): (usize, usize)) -> Option<Change> {
        let (volume, image) = &self.images[nth];
        let change = match image[sector] {
            ZERO | INITIAL | GARBAGE => return None,
            change => change as usize,
        };
        let next = self.history.next(*volume, sector, change);
        let may_show = |next| self.history.span(next).0 <= self.bounds.high;
        (!next.is_some_and(may_show)).then_some(change)
    }

    /// Whether some sector shows what was asked for after this moment.
    fn shows_one_after(&self, moment: u64) -> bool {
        let mut contents = self.images.iter().flat_map(|(_, image)| image);
        contents.any(|content| {
            *content > INITIAL
                && *content != GARBAGE
                && self.history.span(*content as usize).0 > moment
        })
    }

    /// Sectors of a change hold what they held before it, as far as they show it.
    fn take_back(
        &self,
        nth: usize,
        change: Change,
        sectors: std::ops::Range<usize>,
        images: &mut Images,
    ) {
        let (volume, image) = &mut images[nth];
        for sector in sectors {
            if image[sector] == change as u64 {
                let before = self.history.before(*volume, sector, change);
                image[sector] = before.unwrap_or(GARBAGE);
            }
        }
    }

    /// A sector shows the first write that was asked for too late to be in the image.
    fn bring_forward(&self, (nth, sector): (usize, usize), images: &mut Images) -> bool {
        let (volume, image) = &mut images[nth];
        let mut change = 1;
        while let Some(next) = self.history.next(*volume, sector, change) {
            let is_late = self.history.span(next).0 > self.bounds.high;
            if is_late && self.history.writes(next) {
                image[sector] = next as u64;
                return true;
            }
            change = next;
        }
        false
    }
}
