//! How a run is going: a live line on a terminal, a plain line now and then elsewhere, and a summary at the end.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use codit::engine::{Finish, Stats};

/// Between lines where there is no terminal.
pub const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// Counts of how records ended.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    stop: usize,
    length: usize,
    failed: usize,
}

/// The run's progress, on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    printed: Instant,
    /// Records to be done in all, and those that an earlier run had done.
    total: usize,
    earlier: usize,
    ends: Ends,
    stats: Stats,
}

impl Progress {
    /// For `total` records of which `earlier` were done before this run.
    pub fn new(total: usize, earlier: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr_with_hz(4));
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} records  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let now = Instant::now();
        let (ends, stats) = (Ends::default(), Stats::default());
        Self { bar, started: now, printed: now, total, earlier, ends, stats }
    }

    /// A record is written.
    pub fn record(&mut self, finish: &Finish) {
        match finish {
            Finish::Stop => self.ends.stop += 1,
            Finish::Length => self.ends.length += 1,
            Finish::Cancelled | Finish::Failed(_) => self.ends.failed += 1,
        }
    }

    /// A step is done.
    pub fn step(&mut self, stats: Stats) {
        self.stats = stats;
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done() as u64);
                bar.set_message(self.load());
            }
            None if self.printed.elapsed() >= PLAIN_INTERVAL => {
                self.printed = Instant::now();
                message!("{}/{} records, {}", self.done(), self.total, self.load());
            }
            None => {}
        }
    }

    /// Prints the summary.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        message!("{self}");
    }

    fn written(&self) -> usize {
        self.ends.stop + self.ends.length + self.ends.failed
    }

    fn done(&self) -> usize {
        self.earlier + self.written()
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Speed, rows, cache and time left.
    fn load(&self) -> String {
        let Stats { expert_tokens, amateur_tokens, sampled, running, waiting, blocks_held, blocks, .. } =
            self.stats;
        let seconds = self.seconds();
        let left = match self.written() {
            0 => String::new(),
            written => {
                let each = seconds / written as f64;
                let left = Duration::from_secs_f64(each * (self.total - self.done()) as f64);
                format!(", {} left", HumanDuration(left))
            }
        };
        format!(
            "{:.0} tok/s ({:.0} through both models), {running} running, {waiting} waiting, cache {:.0}%{left}",
            sampled as f64 / seconds,
            (expert_tokens + amateur_tokens) as f64 / seconds,
            100.0 * blocks_held as f64 / blocks.max(1) as f64,
        )
    }
}

/// The summary.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats {
            expert_tokens,
            amateur_tokens,
            shared_tokens,
            sampled,
            forced,
            num_candidates,
            preemptions,
            ..
        } = self.stats;
        let (seconds, Ends { stop, length, failed }) = (self.seconds(), self.ends);
        let share = |part: u64| part as f64 / sampled.max(1) as f64;
        write!(
            f,
            "{} records ({stop} stop, {length} length, {failed} error), {sampled} tokens in {seconds:.2} s: \
             {:.1} tok/s, {:.1} through both models; the expert computed {expert_tokens} and found {shared_tokens} in \
             the cache; forced {:.1}%, mean candidates {:.2}, {preemptions} preemptions",
            self.written(),
            sampled as f64 / seconds,
            (expert_tokens + amateur_tokens) as f64 / seconds,
            100.0 * share(forced),
            share(num_candidates),
        )
    }
}
