//! The cost model of the deferred amateur: when to defer it, and when it catches up.
//!
//! A token that is the expert's only candidate needs no amateur, so the amateur's pass over it can wait and join later ones.
//! Which tokens are drawn does not depend on this.
//!
//! A step of either model costs about what it reads: its weights, and the cache of its rows. The amateur's weights are read once
//! for all rows that wait for it. So it pays to let more rows gather, until too few rows are left for the expert's steps.

/// How the amateur is deferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deferral {
    /// Positions that the amateur may be behind a row that decodes.
    pub max_lag: usize,
    /// Tokens to be seen before the amateur is deferred, unless it is always.
    pub min_tokens_seen: usize,
    /// What a step of the expert costs.
    pub expert: StepCost,
    /// What a step of the amateur costs.
    pub amateur: StepCost,
    /// Time of a solo step divided by that model's share of a joint step. `None` always defers the amateur.
    pub solo_slowdown: Option<f64>,
}

/// Bytes that a step of a model reads, or could have read in the time of its products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCost {
    /// The weights.
    pub weights: f64,
    /// For each row, the products with the weights.
    pub row: f64,
    /// The keys and values of a position.
    pub position: f64,
}

/// The rows of a step. Both numbers may be expected values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows {
    /// How many rows there are.
    pub count: f64,
    /// Positions that they attend to, all together.
    pub positions: f64,
}

impl Rows {
    /// These and one more row, which attends to so many positions.
    #[must_use]
    pub fn and(self, positions: usize) -> Self {
        Self { count: self.count + 1.0, positions: self.positions + positions as f64 }
    }

    /// These and a `share` of the others.
    #[must_use]
    pub fn plus(self, share: f64, others: Self) -> Self {
        Self {
            count: self.count + share * others.count,
            positions: self.positions + share * others.positions,
        }
    }
}

impl StepCost {
    fn of(&self, rows: Rows) -> f64 {
        self.weights + self.row * rows.count + self.position * rows.positions
    }
}

/// What the steps since the amateur's last one cost and gave, and which share of the tokens needs the amateur.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepHistory {
    /// Bytes that the expert's steps read since the amateur ran last.
    cost: f64,
    /// Tokens that the expert decided since then.
    num_decided: f64,
    /// The expert's steps since then.
    num_steps: usize,
    /// Tokens seen, and those of them that needed the amateur. Older tokens count less.
    tokens: f64,
    awaiting_tokens: f64,
}

/// Steps of the expert after which the amateur catches up in any case.
const MAX_EXPERT_STEPS: usize = 16;
/// After so many tokens, an old token counts 1/e of a new one.
const MEMORY: f64 = 256.0;
/// The gain that the estimate must promise. The estimate takes tokens that the expert decides to come evenly, and they do not.
const MIN_GAIN: f64 = 1.1;

impl StepHistory {
    /// Records a step of the expert over `rows`, which sampled `sampled` tokens and left `awaiting` of these to the amateur.
    pub fn record_expert_step(&mut self, deferral: &Deferral, rows: Rows, sampled: f64, awaiting: f64) {
        self.cost += deferral.expert.of(rows);
        self.num_decided += sampled - awaiting;
        self.num_steps += 1;
        self.record_tokens(sampled, awaiting);
    }

    /// Records tokens, of which the expert alone cannot decide, or could not have decided, `awaiting`.
    pub fn record_tokens(&mut self, tokens: f64, awaiting: f64) {
        let decay = (-tokens / MEMORY).exp();
        self.tokens = self.tokens * decay + tokens;
        self.awaiting_tokens = self.awaiting_tokens * decay + awaiting;
    }

    /// Records a step of the amateur.
    pub fn record_amateur_step(&mut self) {
        (self.cost, self.num_decided, self.num_steps) = (0.0, 0.0, 0);
    }

    /// The share of all tokens that needs the amateur.
    pub fn awaiting_share(&self) -> f64 {
        (self.awaiting_tokens + 1.0) / (self.tokens + 2.0)
    }

    /// The history after a step of the expert over `rows` whose results are not known, if it is like the steps before.
    #[must_use]
    pub fn after_expected_step(mut self, deferral: &Deferral, rows: Rows) -> Self {
        if rows.count > 0.0 {
            self.record_expert_step(deferral, rows, rows.count, self.awaiting_share() * rows.count);
        }
        self
    }

    /// Whether the amateur should run now for the rows that are `waiting`, rather than after another step of the rows that are
    /// `going`: whether that step would give fewer tokens for its cost than all steps since the amateur ran last.
    pub fn amateur_is_due(&self, deferral: &Deferral, waiting: Rows, going: Rows) -> bool {
        if going.count < 1.0 || self.num_steps >= MAX_EXPERT_STEPS {
            return true;
        }
        // The amateur computes every position that it has missed, those of decided tokens too.
        let tokens = self.num_decided + waiting.count;
        let amateur = deferral.amateur.weights
            + deferral.amateur.row * tokens
            + deferral.amateur.position * waiting.positions;
        let later = deferral.amateur.row * going.count
            + self.awaiting_share() * deferral.amateur.position * going.positions;
        tokens / (self.cost + amateur) >= going.count / (deferral.expert.of(going) + later)
    }

    /// Whether deferring the amateur over `rows` saves more than running the models one after the other costs.
    pub fn is_worthwhile(&self, deferral: &Deferral, rows: Rows) -> bool {
        let Some(solo_slowdown) = deferral.solo_slowdown else { return true };
        let joint = (deferral.expert.of(rows) + deferral.amateur.of(rows)) / rows.count;
        self.tokens >= deferral.min_tokens_seen as f64
            && joint > MIN_GAIN * solo_slowdown * self.deferred_cost_per_token(deferral, rows)
    }

    /// Bytes per token if the amateur runs after the best number of the expert's steps.
    fn deferred_cost_per_token(&self, deferral: &Deferral, rows: Rows) -> f64 {
        let awaiting = self.awaiting_share();
        let (mut going, mut cost, mut least) = (1.0, 0.0, f64::INFINITY);
        for steps in 1..=MAX_EXPERT_STEPS {
            cost += deferral.expert.of(Rows::default().plus(going, rows));
            going *= 1.0 - awaiting;
            let waiting = Rows::default().plus(1.0 - going, rows);
            let tokens = rows.count * (1.0 - going) / awaiting;
            let any_waits = 1.0 - (1.0 - awaiting).powf(rows.count * steps as f64);
            let amateur = any_waits * deferral.amateur.weights
                + deferral.amateur.row * tokens
                + deferral.amateur.position * waiting.positions;
            least = least.min((cost + amateur) / tokens);
            if going * rows.count < 1.0 {
                break;
            }
        }
        least
    }
}
