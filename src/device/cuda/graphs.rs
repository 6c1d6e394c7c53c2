//! CUDA graphs: recorded work that one call queues again.

use cudarc::driver::CudaGraph;

use crate::device::Role;

/// Graphs by key.
#[derive(Default)]
pub struct Graphs {
    /// The states of the keys, least recently used first. A key that occurred once is not captured yet.
    states: Vec<(u64, State)>,
    /// How many graphs were captured, and how much of each role's memory they took. The driver allocates it in large
    /// pieces.
    captured: usize,
    bytes: [usize; 2],
}

/// How far the work of a key is recorded.
pub enum State {
    /// Queued directly once. This loaded kernels and chose algorithms, either of which can synchronize the GPU, and a
    /// capture forbids that.
    Warm,
    /// Captured as a graph.
    Captured(Graph),
}

/// A graph that may move between threads.
pub struct Graph(pub CudaGraph);

// SAFETY: a graph is not bound to a thread but must be used by one at a time; `Graphs` is behind a mutex.
unsafe impl Send for Graph {}

impl Graphs {
    /// The most graphs. A graph takes some megabytes, and decoding uses few keys at a time: one or two numbers of rows
    /// and of splits for each pass.
    const MOST: usize = 128;

    /// The state of `key`, which becomes the most recently used.
    pub fn get(&mut self, key: u64) -> Option<&State> {
        let index = self.states.iter().position(|(found, _)| *found == key)?;
        self.states[index..].rotate_left(1);
        self.states.last().map(|(_, state)| state)
    }

    /// Sets the state of `key`, and drops the least recently used graph if there are too many. A graph that runs is
    /// freed when it ends.
    pub fn set(&mut self, key: u64, state: State) {
        self.states.retain(|(found, _)| *found != key);
        if self.states.len() >= Self::MOST {
            self.states.remove(0);
        }
        self.states.push((key, state));
    }

    /// Records that a capture took `bytes` of each role's memory.
    pub fn took(&mut self, bytes: [usize; 2]) {
        self.captured += 1;
        self.bytes.iter_mut().zip(bytes).for_each(|(all, bytes)| *all += bytes);
    }

    /// Bytes of a role's memory that graphs still to be captured will take, estimated from those captured so far.
    pub fn to_come(&self, role: Role) -> usize {
        Self::MOST.saturating_sub(self.captured) * self.bytes[role as usize] / self.captured.max(1)
    }
}
