//! How a run is going: a live line on a terminal, a plain line or a JSON object now and then elsewhere, and a summary.

use std::iter::Sum;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::estimate::{Lengths, Pace, TokensLeft};
use super::screen::{self, Mode};
use super::words::{self, count, thousands};
use codit::engine::{Completion, Finish, Stats};

/// The first plain line comes this long after the start, for those who want to know whether it works.
pub const FIRST_LINE: Duration = Duration::from_secs(5);
/// Between plain lines.
pub const PLAIN_INTERVAL: Duration = Duration::from_secs(30);
/// Between JSON objects.
const JSON_INTERVAL: Duration = Duration::from_secs(5);
/// How records ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// Responses that the expert ended.
    pub finished: usize,
    /// Responses that were cut at their length limit.
    pub cut: usize,
    /// Records without a response.
    pub errors: usize,
}

impl Ends {
    /// How one record ends.
    pub fn of(completion: &Completion) -> Self {
        let none = Self::default();
        match completion.finish {
            Finish::Stop => Self { finished: 1, ..none },
            Finish::Length => Self { cut: 1, ..none },
            Finish::Cancelled | Finish::Failed(_) => Self { errors: 1, ..none },
        }
    }

    /// Records in all.
    pub fn records(self) -> usize {
        self.finished + self.cut + self.errors
    }

    fn plus(self, other: Self) -> Self {
        Self {
            finished: self.finished + other.finished,
            cut: self.cut + other.cut,
            errors: self.errors + other.errors,
        }
    }
}

impl Sum for Ends {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

/// The time that is left, by the tokens that are left.
enum SecondsLeft {
    About(f64),
    AtMost(f64),
}

/// What a run is to do.
pub struct Work {
    /// The output, or what several of them are called together.
    pub output: String,
    /// Records when all is done.
    pub total: usize,
    /// Records of earlier runs.
    pub earlier: Ends,
    /// The longest response, in tokens.
    pub limit: usize,
    /// Whether every response has this length.
    pub ignores_stop_tokens: bool,
    /// The limit that the user asked for, if any.
    pub max_tokens: Option<u32>,
}

/// The run's progress, on standard error.
pub struct Progress {
    work: Work,
    started: Instant,
    printed: Option<Instant>,
    /// Of this run.
    ends: Ends,
    /// Tokens of the responses that have ended.
    ended_tokens: u64,
    lengths: Lengths,
    pace: Pace,
    stats: Stats,
}

impl Progress {
    pub fn new(work: Work) -> Self {
        let (done, total) = (work.earlier.records(), work.total);
        let text = format!("{}, reading prompts", records_of(&work, done));
        screen::show_bar(done as u64, total as u64, &text);
        Self {
            started: Instant::now(),
            printed: None,
            ends: Ends::default(),
            ended_tokens: 0,
            lengths: Lengths::new(work.limit, work.ignores_stop_tokens),
            pace: Pace::new(),
            stats: Stats::default(),
            work,
        }
    }

    /// A record is written, of so many tokens.
    pub fn record(&mut self, end: Ends, tokens: usize) {
        self.ended_tokens += tokens as u64;
        self.ends = self.ends.plus(end);
        if end.errors == 0 {
            self.lengths.ended(tokens, end.finished > 0);
        }
    }

    /// A step is done.
    pub fn step(&mut self, stats: Stats) {
        self.stats = stats;
        self.pace.record(self.seconds(), stats.sampled);
        if screen::mode() == Mode::Bar {
            screen::show_bar(self.done() as u64, self.work.total as u64, &self.text());
        }
        match screen::mode() {
            Mode::Plain if self.is_due(PLAIN_INTERVAL) => note!("{}", self.text()),
            Mode::Json if self.is_due(JSON_INTERVAL) => screen::event(&self.report("progress")),
            _ => {}
        }
    }

    /// Prints the summary. The line about records is the last one.
    pub fn finish(self) {
        screen::close_bar();
        if screen::mode() == Mode::Json {
            screen::event(&self.report("end"));
            return;
        }
        detail!("{}", self.engine_text());
        let (sampled, seconds) = (self.stats.sampled as usize, self.seconds());
        if sampled > 0 {
            let rate = self.rates(sampled as f64 / seconds);
            note!("{} in {seconds:.2} s: {rate}", count(sampled, "response token"));
        }
        note!("{}", self.summary());
    }

    /// Whether all is done.
    pub fn is_complete(&self) -> bool {
        self.done() == self.work.total
    }

    fn is_due(&mut self, interval: Duration) -> bool {
        let is_due = match self.printed {
            None => self.started.elapsed() >= FIRST_LINE,
            Some(printed) => printed.elapsed() >= interval,
        };
        if is_due {
            self.printed = Some(Instant::now());
        }
        is_due
    }

    fn done(&self) -> usize {
        self.work.earlier.records() + self.ends.records()
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// The time that is left, as soon as a token says how fast the run is.
    fn seconds_left(&self) -> Option<SecondsLeft> {
        let left = self.work.total - self.done().min(self.work.total);
        let running = self.stats.running.min(left);
        let running_tokens = self.stats.sampled.saturating_sub(self.ended_tokens);
        let pace = self.pace.per_second()?;
        Some(match self.lengths.tokens_left(running, running_tokens, left - running) {
            TokensLeft::About(tokens) => SecondsLeft::About(tokens / pace),
            TokensLeft::AtMost(tokens) => SecondsLeft::AtMost(tokens / pace),
        })
    }

    /// Records, time left, speed and rows, the most important first: a narrow terminal cuts the end off.
    fn text(&self) -> String {
        let left = self.seconds_left().map(|left| match left {
            SecondsLeft::About(seconds) => format!(", about {} left", words::time(seconds)),
            SecondsLeft::AtMost(seconds) => format!(", at most {} left", words::time(seconds)),
        });
        let records = records_of(&self.work, self.done());
        let pace = match self.pace.per_second() {
            Some(pace) => format!("{} tokens/s", thousands(pace)),
            None if self.stats.sampled == 0 => "reading prompts".to_owned(),
            None => count(self.stats.sampled as usize, "token"),
        };
        let running = self.stats.running;
        format!("{records}{}, {pace}, {running} running", left.unwrap_or_default())
    }

    /// Speed in words; `response` is in tokens per second.
    fn rates(&self, response: f64) -> String {
        let computed = self.computed() as f64 / self.seconds();
        let (response, computed) = (thousands(response), thousands(computed));
        format!("{response} response tokens/s ({computed}/s computed, prompts and both models counted)")
    }

    fn computed(&self) -> u64 {
        self.stats.expert_tokens + self.stats.amateur_tokens
    }

    fn summary(&self) -> String {
        let Work { output, earlier, max_tokens, limit, .. } = &self.work;
        let all = earlier.plus(self.ends);
        let parts = match (self.ends.records(), earlier.records()) {
            (_, 0) => String::new(),
            (now, before) => format!(" ({now} now, {before} before)"),
        };
        let limit = match max_tokens.map(|most| most as usize) {
            None => "max-tokens".to_owned(),
            Some(most) if most > *limit => "the context limit".to_owned(),
            Some(most) => count(most, "token"),
        };
        format!(
            "{output}: {}{parts}: {} finished, {} cut at {limit}, {}",
            records_of(&self.work, all.records()),
            all.finished,
            all.cut,
            count(all.errors, "error"),
        )
    }

    /// What the engine counted.
    fn engine_text(&self) -> String {
        let Stats { expert_tokens, amateur_tokens, shared_tokens, preemptions, steps, .. } = self.stats;
        let [decided, plausible] = self.shares();
        format!(
            "engine: {}; the expert computed {expert_tokens} positions and found {shared_tokens} in the cache, the amateur \
             computed {amateur_tokens}; {:.1}% of the tokens decided by the expert alone, {plausible:.2} plausible tokens on \
             average; {}",
            count(steps as usize, "step"),
            100.0 * decided,
            count(preemptions as usize, "preemption"),
        )
    }

    /// The share of tokens that the expert decided, and the mean size of the plausible set.
    fn shares(&self) -> [f64; 2] {
        let Stats { sampled, forced, num_candidates, .. } = self.stats;
        [forced, num_candidates].map(|part| part as f64 / sampled.max(1) as f64)
    }

    /// The JSON object of an event: what docs/reference/progress.md lists.
    fn report(&self, event: &str) -> Value {
        let Stats { running, waiting, blocks_held, blocks, windowed_blocks_held, windowed_blocks, .. } =
            self.stats;
        let (seconds, ends) = (self.seconds(), self.work.earlier.plus(self.ends));
        let mut report = json!({
            "event": event,
            "seconds": seconds,
            "records": self.done(),
            "records_before": self.work.earlier.records(),
            "records_total": self.work.total,
            "finished": ends.finished,
            "cut": ends.cut,
            "errors": ends.errors,
            "response_tokens": self.stats.sampled,
            "response_tokens_per_second": self.stats.sampled as f64 / seconds,
            "computed_tokens": self.computed(),
        });
        if event == "progress" {
            match self.seconds_left() {
                Some(SecondsLeft::About(seconds)) => report["seconds_left"] = json!(seconds),
                Some(SecondsLeft::AtMost(seconds)) => report["seconds_left_at_most"] = json!(seconds),
                None => {}
            }
            report["running"] = json!(running);
            report["waiting"] = json!(waiting);
            // Sequences wait for the pool that is fuller.
            let used = [(blocks_held, blocks), (windowed_blocks_held, windowed_blocks)]
                .map(|(held, all)| held as f64 / all.max(1) as f64);
            report["cache_used"] = json!(used[0].max(used[1]));
        } else {
            report["engine"] = self.engine_report();
        }
        report
    }

    fn engine_report(&self) -> Value {
        let [decided, plausible] = self.shares();
        json!({
            "steps": self.stats.steps,
            "expert_positions": self.stats.expert_tokens,
            "amateur_positions": self.stats.amateur_tokens,
            "cached_positions": self.stats.shared_tokens,
            "decided_by_expert": decided,
            "mean_plausible_set": plausible,
            "preemptions": self.stats.preemptions,
        })
    }
}

fn records_of(work: &Work, done: usize) -> String {
    format!("{} of {}", thousands(done as f64), count(work.total, "record"))
}
