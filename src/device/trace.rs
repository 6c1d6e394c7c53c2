//! When the steps of a device began and ended.

/// The times of steps, once they are wanted.
pub struct Trace<M> {
    steps: Option<Vec<[M; 2]>>,
    began: Option<M>,
}

impl<M> Trace<M> {
    /// Notes nothing yet.
    pub fn off() -> Self {
        Self { steps: None, began: None }
    }

    /// Begins to note times.
    pub fn start(&mut self) {
        self.steps = Some(Vec::new());
    }

    /// Notes that a step begins.
    pub fn begin(&mut self, mark: impl FnOnce() -> M) {
        self.began = self.steps.is_some().then(mark);
    }

    /// Notes that a step ends.
    pub fn end(&mut self, mark: impl FnOnce() -> M) {
        if let (Some(steps), Some(began)) = (&mut self.steps, self.began.take()) {
            steps.push([began, mark()]);
        }
    }

    /// Begin and end of each step.
    pub fn steps(&self) -> &[[M; 2]] {
        self.steps.as_deref().unwrap_or_default()
    }
}
