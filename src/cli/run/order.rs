//! Which response is decoded when.

/// The order of requests, each called by its place in it: all responses to one prompt one after another, so that what
/// they begin with is computed once.
#[derive(Clone, Copy)]
pub struct Order {
    pub settings: usize,
    pub samples: usize,
}

/// A response to be had.
pub struct JobIndex {
    pub row: usize,
    pub setting: usize,
    pub sample: u32,
}

impl Order {
    /// The response of this number.
    pub fn job(self, number: usize) -> JobIndex {
        let (prompt_and_setting, sample) = (number / self.samples, number % self.samples);
        let (row, setting) = (prompt_and_setting / self.settings, prompt_and_setting % self.settings);
        JobIndex { row, setting, sample: sample as u32 }
    }
}
