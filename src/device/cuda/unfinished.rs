//! The kernels and products that may still be running. CUDA reports a fault of queued work by a later call, so their names
//! are all that is known of where it happened.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::failure::lock;

/// The names of what was queued, up to the last of which it is known that it ended.
#[derive(Default)]
pub struct Unfinished(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    names: VecDeque<&'static str>,
    /// How many names were removed from the front.
    removed: u64,
}

impl Unfinished {
    /// The most names that are kept; a step of prefill has fewer.
    const MOST: usize = 4096;
    /// The most names that are told.
    const TOLD: usize = 6;

    /// Adds what was queued.
    pub fn add(&self, name: &'static str) {
        let mut queue = lock(&self.0);
        if queue.names.len() == Self::MOST {
            queue.names.pop_front();
            queue.removed += 1;
        }
        queue.names.push_back(name);
    }

    /// How many names were added so far.
    pub fn count(&self) -> u64 {
        let queue = lock(&self.0);
        queue.removed + queue.names.len() as u64
    }

    /// Removes the first `count` of all names that were added: that work has ended.
    pub fn remove(&self, count: u64) {
        let mut queue = lock(&self.0);
        let ended = (count.saturating_sub(queue.removed) as usize).min(queue.names.len());
        queue.names.drain(..ended);
        queue.removed += ended as u64;
    }

    /// In words after an error: the last distinct names, newest first; nothing if there are none.
    pub fn describe(&self) -> String {
        let queue = lock(&self.0);
        let mut told: Vec<&str> = Vec::new();
        for name in queue.names.iter().rev() {
            if !told.contains(name) {
                told.push(name);
            }
        }
        let more = if told.len() > Self::TOLD { ", ..." } else { "" };
        told.truncate(Self::TOLD);
        if told.is_empty() {
            return String::new();
        }
        format!("; queued before it and not known to have ended, newest first: {}{more}", told.join(", "))
    }
}
