//! CUDA graphs: what was queued once, to be queued again by one call.

use cudarc::driver::CudaGraph;

/// Graphs by key, the least recently used first; those of the keys that were seen once are still to be captured.
#[derive(Default)]
pub struct Graphs(Vec<(u64, State)>);

/// How far a key has come.
pub enum State {
    /// Its work was queued directly, by which kernels were loaded and algorithms chosen: both may stop the GPU, which
    /// a capture forbids.
    Warm,
    /// Its work is one call.
    Captured(Graph),
}

/// A graph that may change threads.
pub struct Graph(pub CudaGraph);

// SAFETY: graphs are bound to no thread, only to be used by one at a time; `Graphs` are behind a mutex.
unsafe impl Send for Graph {}

impl Graphs {
    /// A graph takes some megabytes. Decoding passes through few keys at a time.
    const MOST: usize = 128;

    /// The state of `key`, which becomes the most recently used.
    pub fn get(&mut self, key: u64) -> Option<&State> {
        let index = self.0.iter().position(|(found, _)| *found == key)?;
        self.0[index..].rotate_left(1);
        self.0.last().map(|(_, state)| state)
    }

    /// Sets it, and forgets the least recently used if there are too many. A graph that runs is freed when it ends.
    pub fn set(&mut self, key: u64, state: State) {
        self.0.retain(|(found, _)| *found != key);
        if self.0.len() >= Self::MOST {
            self.0.remove(0);
        }
        self.0.push((key, state));
    }
}
