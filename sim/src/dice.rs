//! Dice: where all chance of a run comes from. The same seed rolls the same numbers.

/// A small generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll(high - low + 1)
    }

    /// True so many times of a thousand.
    pub fn permille(&mut self, times: u64) -> bool {
        self.roll(1000) < times
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }

    /// A number from `low` to `high` whose order of magnitude is even.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let (first, last) = (low.max(1).ilog2(), high.max(1).ilog2());
        let bits = self.between(u64::from(first), u64::from(last));
        (1_u64 << bits)
            .saturating_add(self.roll(1 << bits))
            .clamp(low, high)
    }

    /// Dice that go their own way from here.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }
}
