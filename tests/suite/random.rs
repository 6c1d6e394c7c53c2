//! Seeded random numbers for tests, so that a failure repeats.

use codit::contrast::philox4x32_10;

pub struct Random {
    seed: u64,
    draws: u32,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { seed, draws: 0 }
    }

    pub fn bits(&mut self) -> u32 {
        self.draws += 1;
        philox4x32_10([self.draws, 0, 0, 0], [self.seed as u32, (self.seed >> 32) as u32])[0]
    }

    /// Uniform in `low..=high`.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.bits() as usize % (high - low + 1)
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.within(1, n) == 1
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.within(0, last));
        }
    }
}
