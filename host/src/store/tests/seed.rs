//! A small generator of numbers, so that a seed is all that a failing run needs.

#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    /// splitmix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// The numbers of a step.
    pub(super) fn step(&mut self) -> super::driver::Step {
        let numbers = self.next().to_le_bytes();
        [numbers[0], numbers[1], numbers[2], numbers[3]]
    }
}
