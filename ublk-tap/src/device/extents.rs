//! Which parts of a buffer pool are free. Pure.
//!
//! First fit over free extents in ascending order, merged with their neighbours when given back. A
//! queue has at most as many leases as tags, so the list stays short.

/// Contiguous units of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u32,
    pub(super) count: u32,
}

/// Free units.
#[derive(Debug)]
pub(super) struct Extents {
    /// Ascending, never empty, never adjacent.
    free: Vec<Extent>,
    units: u32,
}

impl Extents {
    /// All of `units` free.
    pub(super) fn new(units: u32) -> Self {
        assert!(units > 0, "a pool has room for something");
        Self {
            free: vec![Extent {
                start: 0,
                count: units,
            }],
            units,
        }
    }

    /// Takes `count` contiguous units, or none if there is no such place.
    pub(super) fn take(&mut self, count: u32) -> Option<Extent> {
        assert!(count > 0, "nothing needs no room");
        let place = self.free.iter().position(|extent| extent.count >= count)?;
        let found = &mut self.free[place];
        let taken = Extent {
            start: found.start,
            count,
        };
        if found.count == count {
            self.free.remove(place);
        } else {
            found.start += count;
            found.count -= count;
        }
        Some(taken)
    }

    /// Gives units back.
    pub(super) fn give(&mut self, extent: Extent) {
        let end = extent.start + extent.count;
        let place = self.free.partition_point(|free| free.start < extent.start);
        let next = self.free.get(place).copied();
        let last = place.checked_sub(1).map(|before| self.free[before]);
        assert!(end <= self.units, "given back to the pool it came from");
        assert!(next.is_none_or(|next| end <= next.start), "given back once");
        assert!(
            last.is_none_or(|last| last.start + last.count <= extent.start),
            "given back once"
        );
        let joins_last = last.is_some_and(|last| last.start + last.count == extent.start);
        let joins_next = next.is_some_and(|next| end == next.start);
        match (joins_last, joins_next) {
            (true, true) => {
                self.free[place - 1].count += extent.count + self.free[place].count;
                self.free.remove(place);
            }
            (true, false) => self.free[place - 1].count += extent.count,
            (false, true) => {
                let next = &mut self.free[place];
                *next = Extent {
                    start: extent.start,
                    count: extent.count + next.count,
                };
            }
            (false, false) => self.free.insert(place, extent),
        }
    }

    /// Whether everything is free.
    #[cfg(test)]
    pub(super) fn is_whole(&self) -> bool {
        self.free
            == [Extent {
                start: 0,
                count: self.units,
            }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_unit_is_leased_twice_and_all_come_back(
            steps in proptest::collection::vec((1_u32..9, any::<bool>(), any::<u8>()), 1..300),
        ) {
            let mut extents = Extents::new(40);
            let (mut leased, mut owned) = (Vec::<Extent>::new(), [false; 40]);
            for (count, give, which) in steps {
                if give && !leased.is_empty() {
                    let extent = leased.swap_remove(which as usize % leased.len());
                    owned[extent.start as usize..][..extent.count as usize].fill(false);
                    extents.give(extent);
                } else if let Some(extent) = extents.take(count) {
                    let units = &mut owned[extent.start as usize..][..extent.count as usize];
                    prop_assert!(units.iter().all(|unit| !unit));
                    units.fill(true);
                    leased.push(extent);
                } else {
                    let run = owned.split(|owned| *owned).map(<[bool]>::len).max().unwrap_or(0);
                    prop_assert!(run < count as usize, "refused although there is a place");
                }
            }
            leased.into_iter().for_each(|extent| extents.give(extent));
            prop_assert!(extents.is_whole());
        }
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn giving_back_twice_is_noticed() {
        let mut extents = Extents::new(8);
        let extent = extents.take(4).unwrap();
        extents.give(extent);
        extents.give(extent);
    }
}
