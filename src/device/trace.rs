//! Records when the steps of a device begin and end.

/// The times of steps, if they are recorded.
pub struct Trace<M> {
    steps: Option<Vec<[M; 2]>>,
    began: Option<M>,
}

impl<M> Trace<M> {
    /// Records nothing until it is started.
    pub fn off() -> Self {
        Self { steps: None, began: None }
    }

    /// Starts to record.
    pub fn start(&mut self) {
        self.steps = Some(Vec::new());
    }

    /// Records the begin of a step.
    pub fn begin(&mut self, mark: impl FnOnce() -> M) {
        self.began = self.steps.is_some().then(mark);
    }

    /// Records the end of a step.
    pub fn end(&mut self, mark: impl FnOnce() -> M) {
        if let (Some(steps), Some(began)) = (&mut self.steps, self.began.take()) {
            steps.push([began, mark()]);
        }
    }

    /// The begin and end of each step.
    pub fn steps(&self) -> &[[M; 2]] {
        self.steps.as_deref().unwrap_or_default()
    }
}
