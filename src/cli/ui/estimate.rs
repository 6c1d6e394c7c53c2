//! How long a run will take, from the tokens it has decoded.
//!
//! Finished records say little while many are running: the first of them finish long before the rest, or all of them at
//! once. Tokens say how fast the run is from its first step on, and how long a response will be follows from those that
//! have ended and from those that have not yet.

use std::collections::VecDeque;

/// Steps of the sum that stands for an integral.
const STEPS: u32 = 64;
/// An estimate needs this many ended responses for each that runs.
const LEAST_ENDED: f64 = 1.0 / 16.0;
/// The speed is that of this many seconds, at most.
const WINDOW: f64 = 30.0;
/// The speed is known after so many seconds: at first, prompts are read beside the responses.
const LEAST_TIME: f64 = 2.0;
/// Seconds between two of the moments that the speed is taken from.
const INTERVAL: f64 = 0.5;

/// The tokens that are left to be decoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TokensLeft {
    /// So many, as far as can be told.
    About(f64),
    /// No more than so many: too few responses have ended to tell more.
    AtMost(f64),
}

/// What is known of the lengths of responses.
///
/// Lengths are taken to follow a Rayleigh distribution: a response becomes likelier to end as it grows, and lengths vary
/// about as much as those of real responses do. Its one parameter is estimated from the responses that have ended and
/// from those that still run, which are known to be longer than they are now.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    /// The longest response.
    limit: f64,
    /// Whether all have this length.
    is_fixed: bool,
    /// Responses that ended before it, and those that did not.
    finished: usize,
    cut: usize,
    /// The sum of the squares of the lengths of all that ended.
    squares: f64,
}

impl Lengths {
    /// For responses of at most `limit` tokens, or of exactly so many if `is_fixed`.
    pub fn new(limit: usize, is_fixed: bool) -> Self {
        Self { limit: limit as f64, is_fixed, finished: 0, cut: 0, squares: 0.0 }
    }

    /// A response ended after so many tokens, by itself or because of the limit.
    pub fn ended(&mut self, tokens: usize, by_itself: bool) {
        *(if by_itself { &mut self.finished } else { &mut self.cut }) += 1;
        self.squares += (tokens as f64).powi(2);
    }

    /// The tokens that are left to be decoded, if `running` responses have `running_tokens` in all and `waiting` ones have
    /// not begun.
    pub fn tokens_left(&self, running: usize, running_tokens: u64, waiting: usize) -> TokensLeft {
        let ended = self.finished + self.cut;
        let (running, waiting) = (running as f64, waiting as f64);
        let age = (running_tokens as f64 / running.max(1.0)).min(self.limit);
        if self.is_fixed || ended == 0 || (ended as f64) < running * LEAST_ENDED {
            let all = running * (self.limit - age) + waiting * self.limit;
            return if self.is_fixed { TokensLeft::About(all) } else { TokensLeft::AtMost(all) };
        }
        let squares = self.squares + running * age.powi(2);
        let scale = squares / self.finished as f64; // Infinite if all were cut.
        TokensLeft::About(running * self.expected(age, scale) + waiting * self.expected(0.0, scale))
    }

    /// How many more tokens a response of `age` tokens will have.
    fn expected(&self, age: f64, scale: f64) -> f64 {
        // Beyond five scales nothing is left of the sum.
        let end = self.limit.min((age.powi(2) + 25.0 * scale).sqrt());
        let step = (end - age).max(0.0) / f64::from(STEPS);
        let survives = |length: f64| (-(length.powi(2) - age.powi(2)) / scale).exp();
        (0..STEPS).map(|index| step * survives(age + step * (f64::from(index) + 0.5))).sum()
    }
}

/// How fast a count grows of late.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Moments in seconds, with the count at each.
    moments: VecDeque<(f64, u64)>,
}

impl Pace {
    /// From the count 0 at the moment 0.
    pub fn new() -> Self {
        Self { moments: VecDeque::from([(0.0, 0)]) }
    }

    /// At this moment the count is this. What was before the first count, such as the reading of prompts, is no part of it.
    pub fn record(&mut self, seconds: f64, count: u64) {
        if count == 0 {
            self.moments = VecDeque::from([(seconds, 0)]);
            return;
        }
        if self.moments.back().is_some_and(|(last, _)| seconds - last < INTERVAL) {
            return;
        }
        self.moments.push_back((seconds, count));
        while self.moments.len() > 2 && seconds - self.moments[0].0 > WINDOW {
            self.moments.pop_front();
        }
    }

    /// Counts per second; `None` if the count has not grown for long enough.
    pub fn per_second(&self) -> Option<f64> {
        let ((from, first), (to, last)) = (*self.moments.front()?, *self.moments.back()?);
        if to - from < LEAST_TIME {
            return None;
        }
        let pace = last.saturating_sub(first) as f64 / (to - from);
        (pace.is_finite() && pace > 0.0).then_some(pace)
    }
}

#[cfg(test)]
fn about(lengths: &Lengths, running: usize, running_tokens: u64, waiting: usize) -> f64 {
    match lengths.tokens_left(running, running_tokens, waiting) {
        TokensLeft::About(tokens) => tokens,
        TokensLeft::AtMost(_) => panic!("too little is known"),
    }
}

/// A run whose responses all end near 100 tokens, of 4,096 that they may have: the estimate is never off by more than a
/// few times, though only one in twelve has ended.
#[test]
fn a_few_ended_responses_tell_how_long_the_others_will_be() {
    let mut lengths = Lengths::new(4096, false);
    assert_eq!(lengths.tokens_left(48, 48 * 60, 0), TokensLeft::AtMost(48.0 * 4036.0));
    for tokens in [70, 75, 80, 82] {
        lengths.ended(tokens, true);
    }
    let left = about(&lengths, 44, 44 * 82, 0);
    let truth = 44.0 * 20.0;
    assert!((truth * 0.5..truth * 10.0).contains(&left), "{left}");
    // In the middle of a long run: 48 at once, 2,000 ended, 1,000 wait.
    (0..2000).for_each(|index| lengths.ended(80 + index % 41, true));
    let left = about(&lengths, 48, 48 * 50, 1000);
    let truth = 1000.0 * 100.0 + 48.0 * 50.0;
    assert!((truth * 0.7..truth * 1.3).contains(&left), "{left}");
}

/// Memoryless lengths are as far from the assumption as real ones get.
#[test]
fn lengths_that_vary_much_are_estimated_too() {
    let mut lengths = Lengths::new(100_000, false);
    let mut sum = 0.0;
    for index in 0..1000 {
        let length = -300.0 * (1.0 - (f64::from(index) + 0.5) / 1000.0).ln();
        sum += length;
        lengths.ended(length as usize, true);
    }
    let left = about(&lengths, 0, 0, 1000);
    assert!((sum * 0.7..sum * 1.5).contains(&left), "{left} of {sum}");
}

#[test]
fn responses_that_are_cut_have_the_length_of_the_limit() {
    let mut lengths = Lengths::new(48, false);
    lengths.ended(48, false);
    let left = about(&lengths, 10, 10 * 8, 5);
    assert!((left - (10.0 * 40.0 + 5.0 * 48.0)).abs() < 1e-6, "{left}");
    assert_eq!(Lengths::new(48, true).tokens_left(10, 10 * 8, 5), TokensLeft::About(640.0));
}

#[test]
fn the_pace_is_that_of_the_last_half_minute() {
    let mut pace = Pace::new();
    assert_eq!(pace.per_second(), None);
    (1..=100).for_each(|second| pace.record(f64::from(second), 10 * second as u64));
    (101..=200).for_each(|second| pace.record(f64::from(second), 1000 + 50 * (second as u64 - 100)));
    assert!((pace.per_second().unwrap() - 50.0).abs() < 1e-6);
}
