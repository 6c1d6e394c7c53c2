//! CUDA graphs: what was queued once, to be queued again by one call.

use cudarc::driver::CudaGraph;

use crate::device::Role;

/// Graphs by key.
#[derive(Default)]
pub struct Graphs {
    /// The least recently used first; those of the keys that were seen once are still to be captured.
    states: Vec<(u64, State)>,
    /// How many were captured, and what they took of each role's memory, which the driver hands out in pieces.
    captured: usize,
    bytes: [usize; 2],
}

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
        let index = self.states.iter().position(|(found, _)| *found == key)?;
        self.states[index..].rotate_left(1);
        self.states.last().map(|(_, state)| state)
    }

    /// Sets it, and forgets the least recently used if there are too many. A graph that runs is freed when it ends.
    pub fn set(&mut self, key: u64, state: State) {
        self.states.retain(|(found, _)| *found != key);
        if self.states.len() >= Self::MOST {
            self.states.remove(0);
        }
        self.states.push((key, state));
    }

    /// Notes that a capture took `bytes` of each role's memory.
    pub fn took(&mut self, bytes: [usize; 2]) {
        self.captured += 1;
        self.bytes.iter_mut().zip(bytes).for_each(|(all, bytes)| *all += bytes);
    }

    /// Bytes of a role's memory that graphs will take beside those that they have, by what they took so far.
    pub fn to_come(&self, role: Role) -> usize {
        Self::MOST.saturating_sub(self.captured) * self.bytes[role as usize] / self.captured.max(1)
    }
}
