//! When the amateur catches up, where it is deferred: a token that the expert alone settles, because no other is
//! plausible, needs no amateur, whose pass over it can wait and join others.
//!
//! Which tokens are drawn does not depend on it. A step of either model costs about what it reads: its weights, and the
//! cache of its rows. The amateur's weights are read once for all rows that wait for it, so that it pays to let more of
//! them gather, until the rows that are still going are too few for steps of the expert.

/// How the amateur is deferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deferral {
    /// Positions that the amateur may be behind a row that decodes.
    pub most_lag: usize,
    /// Bytes that a step of the expert reads in any case, and for each position of each row.
    pub expert: StepCost,
    /// The same of the amateur.
    pub amateur: StepCost,
    /// Tokens to be seen before the models are apart, unless they are in any case.
    pub evidence: usize,
    /// How many times longer a step of one model takes than its part of a step of both; `None` has the models apart in any
    /// case.
    pub alone: Option<f64>,
}

/// Bytes that a step of a model reads, or might have read while it computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCost {
    /// Its weights.
    pub weights: f64,
    /// For each row the products with them.
    pub row: f64,
    /// Keys and values of a position.
    pub position: f64,
}

/// Some rows of a step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows {
    /// How many, or how many are to be expected.
    pub count: f64,
    /// Positions that they attend to, all together.
    pub positions: f64,
}

impl Rows {
    /// One more.
    #[must_use]
    pub fn and(self, positions: usize) -> Self {
        Self { count: self.count + 1.0, positions: self.positions + positions as f64 }
    }

    /// These, and `part` of the others.
    #[must_use]
    pub fn plus(self, part: f64, others: Self) -> Self {
        Self { count: self.count + part * others.count, positions: self.positions + part * others.positions }
    }
}

impl StepCost {
    fn of(&self, rows: Rows) -> f64 {
        self.weights + self.row * rows.count + self.position * rows.positions
    }
}

/// What happened since the amateur ran last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// Bytes.
    cost: f64,
    /// Tokens that the expert settled.
    settled: f64,
    steps: usize,
    /// Tokens that were to be settled, and those that could not; of old ones a part.
    tokens: f64,
    contested: f64,
}

/// Steps of the expert that a row waits for others at most.
const MOST_STEPS: usize = 16;
/// Tokens after which an old one counts for a third of a new one.
const MEMORY: f64 = 256.0;
/// What having them apart must promise: forced tokens come less evenly than the estimate takes them to.
const PROMISE: f64 = 1.1;

impl Phases {
    /// Notes a step of the expert over `rows`, of which so many sampled and so many of these wait for the amateur.
    pub fn expert_ran(&mut self, deferral: &Deferral, rows: Rows, sampled: f64, contested: f64) {
        self.cost += deferral.expert.of(rows);
        self.settled += sampled - contested;
        self.steps += 1;
        self.sampled(sampled, contested);
    }

    /// Notes tokens, of which the expert alone cannot settle or could not have settled so many.
    pub fn sampled(&mut self, tokens: f64, contested: f64) {
        let kept = (-tokens / MEMORY).exp();
        self.tokens = self.tokens * kept + tokens;
        self.contested = self.contested * kept + contested;
    }

    /// Notes a step of the amateur.
    pub fn amateur_ran(&mut self) {
        (self.cost, self.settled, self.steps) = (0.0, 0.0, 0);
    }

    /// The part of all tokens that is contested.
    pub fn contested(&self) -> f64 {
        (self.contested + 1.0) / (self.tokens + 2.0)
    }

    /// As it will be when a step of the expert over `rows` is known, if that is as others were.
    #[must_use]
    pub fn expecting(mut self, deferral: &Deferral, rows: Rows) -> Self {
        if rows.count > 0.0 {
            self.expert_ran(deferral, rows, rows.count, self.contested() * rows.count);
        }
        self
    }

    /// Whether the amateur should run now for those that `wait`, rather than after another step of those that `go` on:
    /// whether that step would give fewer tokens for its cost than all gave since the amateur ran last.
    pub fn amateur_is_due(&self, deferral: &Deferral, wait: Rows, go: Rows) -> bool {
        if go.count < 1.0 || self.steps >= MOST_STEPS {
            return true;
        }
        let now = (self.settled + wait.count) / (self.cost + deferral.amateur.of(wait));
        let later = self.contested() * deferral.amateur.position * go.positions;
        now >= go.count / (deferral.expert.of(go) + later)
    }

    /// Whether the amateur's passes over `rows` that would be saved make up for having the models apart.
    pub fn pays(&self, deferral: &Deferral, rows: Rows) -> bool {
        let Some(alone) = deferral.alone else { return true };
        let together = (deferral.expert.of(rows) + deferral.amateur.of(rows)) / rows.count;
        self.tokens >= deferral.evidence as f64 && together > PROMISE * alone * self.apart(deferral, rows)
    }

    /// Bytes for each token where the amateur follows after as many steps of the expert as is best.
    fn apart(&self, deferral: &Deferral, rows: Rows) -> f64 {
        let contested = self.contested();
        let (mut going, mut cost, mut least) = (1.0, 0.0, f64::INFINITY);
        for steps in 1..=MOST_STEPS {
            cost += deferral.expert.of(Rows::default().plus(going, rows));
            going *= 1.0 - contested;
            let waiting = Rows::default().plus(1.0 - going, rows);
            let tokens = rows.count * (1.0 - going) / contested;
            let any_waits = 1.0 - (1.0 - contested).powf(rows.count * steps as f64);
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
