//! Reach: which stamps have been taken. A contiguous prefix, and ranges ahead of it.

use std::collections::BTreeMap;
use wire::Stamp;

/// Most ranges ahead of the prefix: as many holes as may be open at once.
const RANGES_MAX: usize = 65_536;

/// A set of stamps.
#[derive(Debug)]
pub(super) struct Reach {
    prefix: Stamp,
    /// First to last stamp, disjoint, not adjacent, all above the prefix.
    ahead: BTreeMap<Stamp, Stamp>,
}

/// There would be more than [`RANGES_MAX`] ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scattered;

impl Reach {
    /// Everything up to `prefix`.
    pub(super) fn new(prefix: Stamp) -> Self {
        Self {
            prefix,
            ahead: BTreeMap::new(),
        }
    }

    pub(super) fn prefix(&self) -> Stamp {
        self.prefix
    }

    pub(super) fn contains(&self, stamp: Stamp) -> bool {
        let before = self.ahead.range(..=stamp).next_back();
        stamp <= self.prefix || before.is_some_and(|(_, last)| *last >= stamp)
    }

    /// Adds a stamp; one that is there already changes nothing.
    pub(super) fn insert(&mut self, stamp: Stamp) -> Result<(), Scattered> {
        if self.contains(stamp) {
            return Ok(());
        }
        let (mut first, mut last) = (stamp, stamp);
        if let Some((&from, &to)) = self.ahead.range(..stamp).next_back()
            && to.next() == stamp
        {
            first = from;
        }
        if let Some(&to) = self.ahead.get(&stamp.next()) {
            self.ahead.remove(&stamp.next());
            last = to;
        }
        if first == stamp && last == stamp && self.ahead.len() >= RANGES_MAX {
            return Err(Scattered);
        }
        self.ahead.insert(first, last);
        self.absorb();
        Ok(())
    }

    /// Adds everything up to `stamp`.
    pub(super) fn skip_to(&mut self, stamp: Stamp) {
        self.prefix = self.prefix.max(stamp);
        while let Some(range) = self.ahead.first_entry() {
            let (first, last) = (*range.key(), *range.get());
            if first > self.prefix {
                break;
            }
            range.remove();
            self.prefix = self.prefix.max(last);
        }
        self.absorb();
    }

    /// How many stamps above `stamp`, which is at most the prefix.
    pub(super) fn count_above(&self, stamp: Stamp) -> u64 {
        let ahead: u64 = self
            .ahead
            .iter()
            .map(|(first, last)| last.0 - first.0 + 1)
            .sum();
        self.prefix.records_since(stamp) + ahead
    }

    fn absorb(&mut self) {
        while let Some(last) = self.ahead.remove(&self.prefix.next()) {
            self.prefix = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_reach_is_the_set_of_what_was_put_in(
            steps in proptest::collection::vec((1u64..60, any::<bool>()), 0..80)
        ) {
            let mut reach = Reach::new(Stamp::ZERO);
            let mut set = BTreeSet::from([0u64]);
            for (stamp, skip) in steps {
                if skip && stamp % 7 == 0 {
                    reach.skip_to(Stamp(stamp));
                    set.extend(0..=stamp);
                } else {
                    reach.insert(Stamp(stamp)).unwrap();
                    set.insert(stamp);
                }
                let prefix = (0..).take_while(|at| set.contains(at)).count() as u64 - 1;
                prop_assert_eq!(reach.prefix(), Stamp(prefix));
                prop_assert_eq!(reach.count_above(Stamp::ZERO), set.len() as u64 - 1);
                for at in 0..70 {
                    prop_assert_eq!(reach.contains(Stamp(at)), set.contains(&at));
                }
            }
        }
    }

    #[test]
    fn holes_have_a_bound_and_filling_them_is_always_possible() {
        let mut reach = Reach::new(Stamp::ZERO);
        for hole in 1..=RANGES_MAX as u64 {
            reach.insert(Stamp(hole * 2)).unwrap();
        }
        let far = Stamp(RANGES_MAX as u64 * 2 + 2);
        assert_eq!(reach.insert(far), Err(Scattered));
        reach.insert(Stamp(1)).unwrap();
        reach.insert(far).unwrap();
        assert_eq!(reach.prefix(), Stamp(2));
    }
}
