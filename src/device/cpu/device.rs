//! The CPU device: the state that all operations need.

use std::sync::{Arc, Mutex};

use super::amx::Amx;
use super::arena::Arena;
use super::buffer::Populating;
use super::isa::Isa;
use super::path::{PARALLEL, Path};
use super::pool::ThreadPool;
use super::tensor::Tensor;
use super::weight::{Layout, Weight};
use crate::device::info::DeviceInfo;
use crate::device::number::dtype::{Dtype, Format};
use crate::device::types::role::Role;
use crate::device::types::tensor::TensorView;
use crate::error::Result;

/// Bytes of logits that are held at once. More would leave the caches before they are sampled.
const LOGITS_BYTES: usize = 64 << 20;
/// Tokens per step. The activations of more would leave the caches between two operations.
const BATCHED_TOKENS: usize = 256;
/// See [`DeviceInfo::solo_slowdown`]. Threads that share a model's operations wait for each other after each
/// operation. `cargo bench --bench cpu` with a pair prints the times of both kinds of step.
const SOLO_SLOWDOWN: f64 = 1.15;
/// See [`DeviceInfo::row_cost`]: with AMX, and without. Both were measured by steps of 1 and of 16 rows, which the same
/// bench prints.
const ROW_COST: (f64, f64) = (0.03, 0.12);

/// The CPU device, as one of the models sees it. Both roles share everything but their number formats.
pub struct Cpu {
    pub(super) common: Arc<Common>,
    /// The information of each [`Role`].
    info: Arc<[DeviceInfo; 2]>,
    role: Role,
}

/// The state that both roles share.
pub(super) struct Common {
    pub pool: ThreadPool,
    pub isa: Isa,
    pub amx: Option<Amx>,
    weights: Arena,
    /// Caches whose pages are populated while weights load, both at the same rate.
    pub populating: Mutex<Vec<Populating>>,
}

impl Common {
    pub fn path(&self) -> Path<'_> {
        Path { pool: &self.pool, isa: self.isa, amx: self.amx }
    }

    /// How matrices are laid out.
    pub fn layout(&self) -> Layout<'_> {
        Layout { arena: &self.weights, pool: &self.pool, tiles: self.amx.is_some() }
    }

    fn info(&self, format: Format) -> DeviceInfo {
        let (threads, isa, best) = (self.pool.threads(), self.isa.name(), Isa::detect());
        let lowered = if self.isa < best { format!(", lowered from {}", best.name()) } else { String::new() };
        let noun = if threads == 1 { "thread" } else { "threads" };
        DeviceInfo {
            description: format!("CPU, {threads} {noun}, instruction set {isa}{lowered}"),
            format,
            dtype: Dtype::F32,
            is_split: false,
            is_deterministic: true,
            runs_ahead: false,
            default_batched_tokens: BATCHED_TOKENS,
            logits_bytes: LOGITS_BYTES,
            gathers_candidates: true,
            solo_slowdown: Some(if threads > 1 { SOLO_SLOWDOWN } else { 1.0 }),
            row_cost: if self.amx.is_some() { ROW_COST.0 } else { ROW_COST.1 },
        }
    }
}

impl Cpu {
    /// A device with `threads` threads; by default as many as the process may use. It uses the machine's best
    /// instruction set, or a lower one that [`ISA_VARIABLE`](super::ISA_VARIABLE) names.
    ///
    /// # Errors
    /// If [`ISA_VARIABLE`](super::ISA_VARIABLE) names no instruction set, or the system refuses the threads.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        Self::limited(threads, Isa::chosen()?)
    }

    /// Like [`Cpu::new`], limited to `isa` regardless of [`ISA_VARIABLE`](super::ISA_VARIABLE), to compare
    /// instruction sets.
    ///
    /// # Errors
    /// If the system refuses the threads.
    pub fn limited(threads: Option<usize>, isa: Isa) -> Result<Self> {
        let isa = isa.min(Isa::detect());
        let amx = if isa == Isa::Amx { Amx::detect() } else { None };
        let threads =
            threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
        let (weights, populating) = (Arena::default(), Mutex::default());
        let common = Common { pool: ThreadPool::new(threads)?, isa, amx, weights, populating };
        let info = [Format::of(Dtype::F32); 2].map(|format| common.info(format));
        Ok(Self { common: Arc::new(common), info: Arc::new(info), role: Role::Expert })
    }

    /// Whether it multiplies bf16 faster than f32.
    pub fn has_bf16_products(&self) -> bool {
        self.common.isa >= Isa::Avx512Bf16
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.common.isa
    }

    /// The same device with other formats for expert and amateur. [`Dtype::Bf16`] rounds weights and, where they enter a
    /// product, activations; [`Dtype::F8E4m3`] rounds weights or the cache; otherwise weights stay as they are stored,
    /// and the cache is f32.
    #[must_use]
    pub fn with_formats(self, formats: [Format; 2]) -> Self {
        let formats = formats.map(|Format { weights, cache }| Format {
            weights: if weights == Dtype::F16 { Dtype::F32 } else { weights },
            cache: if cache == Dtype::F8E4m3 { cache } else { Dtype::F32 },
        });
        let info = Arc::new(formats.map(|format| self.common.info(format)));
        Self { info, ..self }
    }

    /// See [`crate::device::Device::info`].
    pub(super) fn role_info(&self) -> &DeviceInfo {
        &self.info[self.role as usize]
    }

    /// The device in a role.
    pub(super) fn in_role(&self, role: Role) -> Self {
        Self { common: Arc::clone(&self.common), info: Arc::clone(&self.info), role }
    }

    /// Loads a weight ([`Weight::new`]) and populates pages of the caches meanwhile.
    pub(super) fn load_stored(&self, parts: &[TensorView], to: Dtype) -> Result<Weight> {
        let bytes = parts.iter().map(|part| part.range.len()).sum();
        let load = || Weight::new(parts, to, self.common.layout());
        self.common.pool.join(load, || self.populate(bytes)).0
    }

    /// Populates `bytes` of the caches, the same share of each.
    fn populate(&self, bytes: usize) {
        let Ok(mut caches) = self.common.populating.lock() else { return };
        let each = bytes / caches.len().max(1);
        caches.iter_mut().for_each(|cache| cache.advance(each));
    }

    /// Runs `row` over the first `rows` rows of `out`; `elements` is the amount of work in all.
    pub(super) fn each_row(
        &self,
        rows: usize,
        elements: usize,
        out: &mut Tensor,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let width = out.width.max(1);
        let out = out.rows_mut(rows);
        if elements < PARALLEL {
            out.chunks_exact_mut(width).enumerate().for_each(|(index, out)| row(index, out));
        } else {
            self.common
                .pool
                .for_each(out.chunks_exact_mut(width).enumerate(), |(index, out)| row(index, out));
        }
    }
}
