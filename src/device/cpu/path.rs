//! The threads and the instruction set of an operation.

use super::amx::Amx;
use super::isa::Isa;
use super::pool::ThreadPool;

/// Elements (of weights, cache or activations) from which a single pass over them is worth several threads.
pub const PARALLEL: usize = 1 << 16;

/// The parts of the machine that an operation uses.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    pub pool: &'a ThreadPool,
    pub isa: Isa,
    pub amx: Option<Amx>,
}
