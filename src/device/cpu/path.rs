//! How operations are computed: by which threads, in which instructions.

use super::amx::Amx;
use super::isa::Isa;
use super::pool::ThreadPool;

/// Elements (of weights, cache, activations) from which threads are worth waking for one pass over them.
pub const PARALLEL: usize = 1 << 16;

/// What of the machine an operation uses.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    pub pool: &'a ThreadPool,
    pub isa: Isa,
    pub amx: Option<Amx>,
}
