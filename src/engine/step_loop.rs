//! The step loop: token ids in, token ids out.

use std::collections::VecDeque;
use std::iter::Sum;
use std::ops::Range;

use super::config::{EngineConfig, SchedulerConfig, Shortcuts, Windows};
use super::pair::Pair;
use super::pair::source::Model;
use super::scheduler::Scheduler;
use super::sequence::Sequence;
use super::step::StepPlan;
use crate::contrast::Vocabulary;
use crate::device::inspect::Inspect;
use crate::device::{Device, LayerKind, RowResult};
use crate::error::{Error, Result};
use crate::ids::SeqId;
use crate::profile;

/// Counts since the engine was made, and its present load.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Steps in which the expert ran.
    pub steps: u64,
    /// Positions that the expert computed: prompts, recomputation and responses.
    pub expert_tokens: u64,
    /// Positions that the amateur computed.
    pub amateur_tokens: u64,
    /// Tokens that were sampled.
    pub sampled: u64,
    /// Of these, tokens that were the only candidate.
    pub forced: u64,
    /// Steps in which the amateur ran.
    pub amateur_steps: u64,
    /// Positions that were found in the cache instead of being computed.
    pub shared_tokens: u64,
    /// Sum of the numbers of candidates of the sampled tokens.
    pub num_candidates: u64,
    /// How often a device that runs ahead had no step queued while the host decided what comes next.
    pub stalls: u64,
    /// How often a sequence was preempted.
    pub preemptions: u64,
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Blocks that sequences hold of layers that see all positions.
    pub blocks_held: usize,
    /// All such blocks.
    pub blocks: usize,
    /// Blocks that sequences hold of layers with a window.
    pub windowed_blocks_held: usize,
    /// All such blocks; 0 if no layer has a window.
    pub windowed_blocks: usize,
}

/// The sums over several engines.
impl Sum for Stats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            steps: sum.steps + one.steps,
            expert_tokens: sum.expert_tokens + one.expert_tokens,
            amateur_tokens: sum.amateur_tokens + one.amateur_tokens,
            sampled: sum.sampled + one.sampled,
            forced: sum.forced + one.forced,
            amateur_steps: sum.amateur_steps + one.amateur_steps,
            shared_tokens: sum.shared_tokens + one.shared_tokens,
            num_candidates: sum.num_candidates + one.num_candidates,
            stalls: sum.stalls + one.stalls,
            preemptions: sum.preemptions + one.preemptions,
            running: sum.running + one.running,
            waiting: sum.waiting + one.waiting,
            blocks_held: sum.blocks_held + one.blocks_held,
            blocks: sum.blocks + one.blocks,
            windowed_blocks_held: sum.windowed_blocks_held + one.windowed_blocks_held,
            windowed_blocks: sum.windowed_blocks + one.windowed_blocks,
        })
    }
}

/// A pair, its scheduler, and the steps between them.
pub struct StepLoop<D: Device> {
    pair: Pair<D>,
    scheduler: Scheduler,
    /// Steps that are queued and not committed, oldest first.
    in_flight: VecDeque<StepPlan>,
    runs_ahead: bool,
    windows: Windows,
    max_num_seqs: usize,
    profile_steps: Option<Range<u64>>,
    stats: Stats,
}

impl<D: Device> StepLoop<D> {
    /// Loads a pair onto `device`, and allocates the cache.
    ///
    /// # Errors
    /// A checkpoint that cannot be used, settings that contradict each other, or too little memory.
    pub fn load(
        device: D,
        expert: Model<'_>,
        amateur: Option<Model<'_>>,
        vocabulary: &Vocabulary,
        config: &EngineConfig,
    ) -> Result<Self> {
        let shortcuts = config.shortcuts.unwrap_or_else(|| Shortcuts::of(&device));
        let pair_config = config.pair_config(device.info().default_batched_tokens, shortcuts)?;
        let capacity = pair_config.capacity;
        let (pair, blocks) = Pair::load(device, expert, amateur, vocabulary, &pair_config)?;
        if config.profile_steps.is_some() {
            // A device that cannot be profiled is refused now.
            pair.device().profile(false)?;
        }
        let scheduler_config = SchedulerConfig {
            capacity,
            num_blocks: blocks,
            window: pair.window(&pair_config),
            shared_prefixes: shortcuts.shared_prefixes,
            deferral: pair.deferral(&pair_config),
        };
        Ok(Self {
            windows: config.windows(pair.windows(), blocks.full * capacity.block_size)?,
            runs_ahead: config.async_scheduling.unwrap_or_else(|| pair.device().info().runs_ahead),
            pair,
            max_num_seqs: capacity.max_num_seqs,
            profile_steps: config.profile_steps.clone(),
            scheduler: Scheduler::new(scheduler_config),
            in_flight: VecDeque::new(),
            stats: Stats { blocks: blocks.full, windowed_blocks: blocks.windowed, ..Stats::default() },
        })
    }

    /// Token ids below this number are known to both models.
    pub fn known_ids(&self) -> usize {
        self.pair.known_ids()
    }

    /// Queues a sequence, whose length must be within [`StepLoop::windows`].
    pub fn add(&mut self, sequence: Sequence) -> SeqId {
        self.scheduler.add(sequence)
    }

    /// Drops a sequence and returns it; `None` if it has ended before.
    pub fn cancel(&mut self, seq: SeqId) -> Option<Sequence> {
        self.scheduler.cancel(seq)
    }

    /// Runs one step: of both models, or of the expert and then of the amateur if that is due. Returns the sequences that are
    /// known to have ended.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed or blocks were lost: the loop must not go on.
    pub fn step(&mut self) -> Result<Vec<Sequence>> {
        self.switch_profiler()?;
        let _range = profile::range(c"step");
        let plan = {
            let _range = profile::range(c"schedule");
            self.scheduler.plan()
        };
        let mut ended = self.submit_and_commit(plan)?;
        if self.scheduler.catch_up_is_due() {
            // Which rows wait for the amateur is known once nothing is in flight.
            self.stats.stalls += u64::from(!self.in_flight.is_empty());
            ended.extend(self.commit_all_but(0)?);
            let plan = self.scheduler.plan_catch_up();
            ended.extend(self.submit_and_commit(plan)?);
        }
        self.check_idle()?;
        Ok(ended)
    }

    /// Submits a plan unless it is empty, and commits the plans before it. Commits the plan itself too, unless the device runs
    /// ahead.
    fn submit_and_commit(&mut self, plan: StepPlan) -> Result<Vec<Sequence>> {
        let stay_in_flight = usize::from(self.runs_ahead && !plan.is_empty());
        if !plan.is_empty() {
            self.submit(&plan);
            self.in_flight.push_back(plan);
        }
        self.commit_all_but(stay_in_flight)
    }

    fn commit_all_but(&mut self, stay_in_flight: usize) -> Result<Vec<Sequence>> {
        let mut ended = Vec::new();
        while self.in_flight.len() > stay_in_flight {
            ended.extend(self.commit()?);
        }
        Ok(ended)
    }

    fn check_idle(&self) -> Result<()> {
        if self.is_idle() && !self.scheduler.is_sound() {
            return Err(Error::Device(
                "internal error: cache blocks were lost; please report this".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether nothing runs, waits or is in flight.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.in_flight.is_empty()
    }

    /// Sequences that run or wait.
    pub fn pending(&self) -> usize {
        self.scheduler.running() + self.scheduler.waiting()
    }

    /// See [`Scheduler::preempt_youngest`].
    pub fn preempt_youngest(&mut self) -> bool {
        self.scheduler.preempt_youngest()
    }

    /// The context limits.
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// Lowers the context limits.
    pub(super) fn limit_windows(&mut self, windows: Windows) {
        self.windows = self.windows.min(windows);
    }

    /// Sequences that run at once.
    pub fn max_num_seqs(&self) -> usize {
        self.max_num_seqs
    }

    /// Whether there is an amateur.
    pub fn has_amateur(&self) -> bool {
        self.pair.has_amateur()
    }

    /// The device.
    pub fn device(&self) -> &D {
        self.pair.device()
    }

    /// Counts and load.
    pub fn stats(&self) -> Stats {
        let held = |kind| {
            let pool = &self.scheduler.pools()[kind];
            pool.total() - pool.free()
        };
        Stats {
            preemptions: self.scheduler.preemptions(),
            running: self.scheduler.running(),
            waiting: self.scheduler.waiting(),
            blocks_held: held(LayerKind::Full),
            windowed_blocks_held: held(LayerKind::Windowed),
            shared_tokens: self.scheduler.shared_tokens(),
            ..self.stats
        }
    }

    /// Switches the profiler if the next step is the first that is profiled, or the first that is not any more.
    fn switch_profiler(&self) -> Result<()> {
        match &self.profile_steps {
            Some(steps) if [steps.start, steps.end].contains(&self.stats.steps) => {
                self.pair.device().profile(self.stats.steps == steps.start)
            }
            _ => Ok(()),
        }
    }

    /// Submits a plan to the pair, and counts it.
    fn submit(&mut self, plan: &StepPlan) {
        let (has_expert, has_amateur) = (plan.runs_expert(), plan.runs_amateur());
        let tokens = plan.batch.tokens.len() as u64;
        self.stats.steps += u64::from(has_expert);
        self.stats.expert_tokens += if has_expert { tokens } else { 0 };
        self.stats.amateur_steps += u64::from(has_amateur);
        self.stats.amateur_tokens += if has_amateur { tokens } else { 0 };
        self.pair.submit(plan);
    }

    /// Waits for the results of the oldest step in flight and takes them in.
    fn commit(&mut self) -> Result<Vec<Sequence>> {
        let Some(plan) = self.in_flight.pop_front() else { return Ok(Vec::new()) };
        let results = self.pair.collect()?;
        let _range = profile::range(c"commit");
        self.count(&plan, &results);
        Ok(self.scheduler.commit(&plan, &results))
    }

    /// Counts the tokens of the rows whose results are wanted.
    fn count(&mut self, plan: &StepPlan, results: &[RowResult]) {
        let rows = plan.rows.iter().filter(|row| row.samples).zip(results);
        for (_, result) in rows.filter(|(row, _)| self.scheduler.wants_result(plan, row)) {
            let RowResult::Sampled(sampled) = result else { continue };
            self.stats.sampled += 1;
            self.stats.forced += u64::from(sampled.num_candidates == 1);
            self.stats.num_candidates += u64::from(sampled.num_candidates);
        }
    }
}

impl<D: Inspect> StepLoop<D> {
    /// Starts to record when steps begin and end on the device, for [`StepLoop::idle_share`].
    pub fn trace(&mut self) {
        self.pair.trace();
    }

    /// The share of the recorded time in which the device had no step to run.
    ///
    /// # Errors
    /// Those of [`Inspect::seconds`].
    pub fn idle_share(&self) -> Result<f64> {
        self.pair.idle_share()
    }
}
