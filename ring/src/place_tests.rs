//! The placement rules against a model that marks units one by one.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// A payload area as a row of units, each free or owned by a stamp, padding included.
struct Model {
    owners: Vec<Option<u64>>,
    next_unit: usize,
    live: VecDeque<u64>,
    slots: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Claim { units: u64 },
    FreeOldest { count: usize },
}

impl Model {
    /// The first unit of the payload, found by walking, if everything on the way is free.
    fn claim(&mut self, stamp: u64, units: usize) -> Option<usize> {
        let area = self.owners.len();
        let mut taken = Vec::new();
        let mut start = self.next_unit;
        let fits = |start: usize| (units < 8 || start.is_multiple_of(8)) && start + units <= area;
        while units > 0 && !fits(start) {
            taken.push(start);
            start = (start + 1) % area;
        }
        taken.extend(start..start + units);
        let is_free = taken.iter().all(|unit| self.owners[*unit].is_none());
        if self.live.len() == self.slots || !is_free || taken.len() > area {
            return None;
        }
        for unit in taken {
            self.owners[unit] = Some(stamp);
        }
        self.next_unit = (start + units) % area;
        self.live.push_back(stamp);
        Some(start)
    }

    fn free_oldest(&mut self) -> Option<u64> {
        let stamp = self.live.pop_front()?;
        for owner in self
            .owners
            .iter_mut()
            .filter(|owner| **owner == Some(stamp))
        {
            *owner = None;
        }
        Some(stamp)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u64..=16).prop_map(|units| Step::Claim { units }),
        2 => (1usize..4).prop_map(|count| Step::FreeOldest { count }),
    ];
    prop::collection::vec(step, 1..200)
}

/// Places where 31-bit stamps or 32-bit positions wrap soon, and ordinary ones.
fn origins() -> impl Strategy<Value = Cursor> {
    let near = |edge: u64| (edge.saturating_sub(40)..edge + 40).boxed();
    let stamps = prop_oneof![near(0), near(1 << 31), near(3 << 31), near(1 << 50)];
    let positions = prop_oneof![near(0), near(1 << 32), near(7 << 32), near(1 << 50)];
    (stamps, positions).prop_map(|(stamp, position)| Cursor { stamp, position })
}

proptest! {
    #[test]
    fn every_placement_is_the_one_a_walk_over_free_units_finds(
        origin in origins(),
        slots_shift in 1u32..5,
        steps in steps(),
    ) {
        let geometry = Geometry::new(1 << slots_shift, 32);
        let mut model = Model {
            owners: vec![None; 32],
            next_unit: (origin.position % 32) as usize,
            live: VecDeque::new(),
            slots: 1 << slots_shift,
        };
        let mut ends = VecDeque::new();
        let (mut freed, mut word) = (origin, ClaimWord::pack(origin, false));
        let mut claimed = origin;
        for step in steps {
            match step {
                Step::Claim { units } => {
                    let seen = word.rebuild(freed, geometry);
                    prop_assert_eq!(seen, Some(claimed), "the word stands for the full cursor");
                    let expected = model.claim(claimed.stamp + 1, units as usize);
                    let Ok(placement) = geometry.place(freed, claimed, units) else {
                        prop_assert_eq!(expected, None, "room was refused that exists");
                        continue;
                    };
                    prop_assert_eq!(placement.stamp, claimed.stamp + 1);
                    let first_unit = geometry.byte_of(placement.start) / UNIT_BYTES as usize;
                    if units > 0 {
                        prop_assert_eq!(Some(first_unit), expected);
                    }
                    prop_assert!(expected.is_some(), "room was found that does not exist");
                    prop_assert!(geometry.holds(placement, freed));
                    claimed = placement.after();
                    ends.push_back(claimed);
                    word = ClaimWord::pack(claimed, false);
                }
                Step::FreeOldest { count } => {
                    for _ in 0..count {
                        let stamp = model.free_oldest();
                        let end = ends.pop_front();
                        prop_assert_eq!(stamp, end.map(|end: Cursor| end.stamp));
                        freed = end.unwrap_or(freed);
                    }
                }
            }
        }
    }

    #[test]
    fn a_word_is_rebuilt_from_any_freed_cursor_of_its_ring_and_from_no_newer_one(
        freed in origins(),
        ahead_stamps in 0u64..=16,
        ahead_units in 0u64..=32,
        closed: bool,
        newer in 1u64..1000,
    ) {
        let geometry = Geometry::new(16, 32);
        let claimed = Cursor {
            stamp: freed.stamp + ahead_stamps,
            position: freed.position + ahead_units,
        };
        let word = ClaimWord::pack(claimed, closed);
        prop_assert_eq!(word.is_closed(), closed);
        prop_assert_eq!(word.rebuild(freed, geometry), Some(claimed));
        let later = Cursor { stamp: claimed.stamp + newer, position: claimed.position };
        prop_assert_eq!(word.rebuild(later, geometry), None);
    }

    #[test]
    fn the_largest_payload_fits_an_empty_ring_wherever_it_stands(
        position in 0u64..1_000_000,
        area_shift in 4u32..12,
    ) {
        let geometry = Geometry::new(2, 1 << area_shift);
        let empty = Cursor { stamp: 9, position };
        let placement = geometry.place(empty, empty, geometry.payload_units_max());
        prop_assert!(placement.is_ok());
    }

    #[test]
    fn a_place_that_would_reach_outside_the_ring_is_not_held(
        stamp: u64, start: u64, end: u64, freed in origins(),
    ) {
        let geometry = Geometry::new(16, 32);
        if geometry.holds(Placement { stamp, start, end }, freed) {
            prop_assert!(stamp > freed.stamp && stamp <= freed.stamp + 16);
            let first_byte = geometry.byte_of(start) as u64;
            prop_assert!(first_byte + (end - start) * UNIT_BYTES <= 32 * UNIT_BYTES);
            prop_assert!(start >= freed.position && end <= freed.position + 32);
        }
    }
}

#[test]
fn a_payload_that_would_cross_the_end_starts_over_and_owns_the_padding() {
    let geometry = Geometry::new(8, 32);
    let claimed = Cursor {
        stamp: 3,
        position: 27,
    };
    let freed = Cursor {
        stamp: 2,
        position: 24,
    };
    let placement = geometry.place(freed, claimed, 7).unwrap();
    assert_eq!(
        placement,
        Placement {
            stamp: 4,
            start: 32,
            end: 39
        }
    );
    let full = geometry.place(freed, placement.after(), 16).unwrap();
    assert_eq!(full.end, freed.position + 32);
    assert_eq!(geometry.place(freed, full.after(), 1), Err(NoRoom));
    assert!(geometry.place(freed, full.after(), 0).is_ok());
}

#[test]
fn a_page_of_payload_starts_on_a_page_and_a_sector_anywhere() {
    let geometry = Geometry::new(8, 32);
    let claimed = Cursor {
        stamp: 1,
        position: 1,
    };
    let freed = Cursor::default();
    assert_eq!(geometry.place(freed, claimed, 7).unwrap().start, 1);
    assert_eq!(geometry.place(freed, claimed, 8).unwrap().start, 8);
    assert_eq!(geometry.place(freed, claimed, 0).unwrap().start, 1);
}

#[test]
fn closing_bits_touch_nothing_but_the_flag() {
    let claimed = Cursor {
        stamp: (1 << 31) - 1,
        position: (1 << 32) - 1,
    };
    let open = ClaimWord::pack(claimed, false);
    let closed = ClaimWord(open.0 | ClaimWord::closing_bits());
    assert!(!open.is_closed());
    assert_eq!(closed, ClaimWord::pack(claimed, true));
}
