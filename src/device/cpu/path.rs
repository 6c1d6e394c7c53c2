//! How operations are computed: by which threads, in which instructions.

use super::amx::Amx;
use super::isa::Isa;
use super::pool::Team;

/// Elements (of weights, cache, activations) from which threads are worth waking for one pass over them.
pub const PARALLEL: usize = 1 << 16;

/// What of the machine an operation uses.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    pub team: &'a Team,
    pub isa: Isa,
    pub amx: Option<Amx>,
}
