//! History: what the source's disks held after each of their changes, and which of these states
//! an image is.
//!
//! Simpler than what it judges: every change has a number, in the order the disks were first asked
//! for it. What a sector held is valid from its own number up to just before the next one of that
//! sector; zeroes, which do not say whose they are, are valid in several such spans. An image is the
//! source after change `k` if every sector's spans contain `k`: the spans are counted over all
//! numbers in one pass.

use super::sector::{GARBAGE, ZERO};

/// What all sectors of all volumes held, and when.
#[derive(Clone, Debug)]
pub struct History {
    /// Per volume, per sector: number of the change, and what it left.
    sectors: Vec<Vec<Vec<(u64, u64)>>>,
    /// Number of the last change.
    last: u64,
}

/// The states an image can be.
#[derive(Clone, Debug)]
pub struct Cuts {
    /// How many sectors agree with the state after each change.
    agreeing: Vec<u32>,
    sectors: u32,
}

impl History {
    /// Volumes with these contents, before any change.
    pub fn new(initial: &[Vec<u64>]) -> Self {
        let sectors = initial.iter().map(|volume| {
            let first = |content: &u64| vec![(0, *content)];
            volume.iter().map(first).collect()
        });
        Self {
            sectors: sectors.collect(),
            last: super::sector::INITIAL,
        }
    }

    /// Number of the last change.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// A number for the next change.
    pub fn take_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Change `number` left `content` in a sector. An error: a later one did before.
    pub fn note(&mut self, place: (usize, usize), number: u64, content: u64) -> Result<(), String> {
        let (volume, sector) = place;
        let versions = &mut self.sectors[volume][sector];
        match versions.last() {
            Some(&(before, _)) if before > number => Err(format!(
                "P3: change {number} of sector {volume}/{sector} reached the disk after {before}"
            )),
            Some(&(before, _)) if before == number => {
                // A remainder of the same request.
                versions.pop();
                versions.push((number, content));
                Ok(())
            }
            _ => {
                versions.push((number, content));
                Ok(())
            }
        }
    }

    /// Which states these images are together: pairs of a volume and what its sectors hold.
    pub fn cuts(&self, images: &[(usize, &[u64])]) -> Cuts {
        let mut changes = vec![0_i64; self.last as usize + 2];
        let mut sectors = 0;
        for &(volume, image) in images {
            for (versions, &content) in self.sectors[volume].iter().zip(image) {
                sectors += 1;
                count(versions, content, &mut changes);
            }
        }
        let mut sum = 0;
        let agreeing = changes[..=self.last as usize].iter().map(|change| {
            sum += change;
            sum as u32
        });
        Cuts {
            agreeing: agreeing.collect(),
            sectors,
        }
    }

    /// The first sectors of an image that do not agree with the state after change `cut`, in words.
    pub fn differences(&self, volume: usize, image: &[u64], cut: u64) -> Vec<String> {
        let all = self.sectors[volume].iter().zip(image).enumerate();
        let differs = all.filter_map(|(sector, (versions, &content))| {
            let at = versions.partition_point(|(number, _)| *number <= cut);
            let expected = versions[at.saturating_sub(1)].1;
            let shown = |content| match content {
                ZERO => "zeroes".into(),
                GARBAGE => "garbage".into(),
                number => format!("change {number}"),
            };
            (expected != content).then(|| {
                format!(
                    "{volume}/{sector} has {}, should have {}",
                    shown(content),
                    shown(expected)
                )
            })
        });
        differs.take(8).collect()
    }
}

/// Adds the spans in which a sector held `content`.
fn count(versions: &[(u64, u64)], content: u64, changes: &mut [i64]) {
    let end = changes.len() - 1;
    let mut until = end;
    for &(number, held) in versions.iter().rev() {
        let from = number as usize;
        if held == content {
            changes[from] += 1;
            changes[until] -= 1;
            if content != ZERO && content != super::sector::INITIAL && from as u64 == content {
                // A write's own span, and after a power cut perhaps later ones, seen already.
                return;
            }
        }
        until = from;
    }
}

impl Cuts {
    /// Whether the image is the state after change `cut`.
    pub fn contains(&self, cut: u64) -> bool {
        self.agreeing.get(cut as usize) == Some(&self.sectors)
    }

    /// The newest state the image is.
    pub fn newest(&self) -> Option<u64> {
        let newest = self.agreeing.iter().rposition(|n| *n == self.sectors);
        newest.map(|cut| cut as u64)
    }

    /// The newest of the states the image comes closest to.
    pub fn closest(&self) -> u64 {
        let most = self.agreeing.iter().max().copied().unwrap_or(0);
        let at = self.agreeing.iter().rposition(|n| *n == most);
        at.unwrap_or(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::sector::INITIAL;
    use super::*;

    fn history() -> History {
        let mut history = History::new(&[vec![INITIAL, ZERO, INITIAL]]);
        for (sector, is_discard) in [(0, false), (1, false), (0, true), (2, false), (0, false)] {
            let number = history.take_number();
            let content = if is_discard { ZERO } else { number };
            history.note((0, sector), number, content).unwrap();
        }
        history
    }

    #[test]
    fn every_prefix_is_one_and_what_leaves_out_an_earlier_change_is_none() {
        let history = history();
        let newest = |image: [u64; 3]| history.cuts(&[(0, &image)]).newest();
        assert_eq!(newest([INITIAL, ZERO, INITIAL]), Some(1));
        assert_eq!(newest([2, ZERO, INITIAL]), Some(2));
        assert_eq!(newest([ZERO, 3, INITIAL]), Some(4));
        assert_eq!(newest([6, 3, 5]), Some(6));
        assert_eq!(newest([INITIAL, 3, INITIAL]), None, "change 2 is missing");
    }

    #[test]
    fn a_discard_out_of_order_is_found() {
        let history = history();
        let cuts = history.cuts(&[(0, &[ZERO, ZERO, INITIAL])]);
        assert_eq!(
            cuts.newest(),
            None,
            "the discard is there, change 3 before it is not"
        );
        let words = history.differences(0, &[ZERO, ZERO, INITIAL], 4);
        assert_eq!(words, ["0/1 has zeroes, should have change 3"]);
    }

    #[test]
    fn an_old_content_that_comes_back_is_valid_again() {
        let mut history = history();
        let cut = history.take_number();
        history.note((0, 0), cut, 2).unwrap();
        let cuts = history.cuts(&[(0, &[2, 3, 5])]);
        assert_eq!(cuts.newest(), Some(cut));
        assert!(
            history.note((0, 0), 3, 3).is_err(),
            "numbers of a sector only rise"
        );
    }
}
