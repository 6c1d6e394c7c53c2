//! The device that is made of a [`GpuRuntime`] and the project's kernels: the state that all operations need.

use std::sync::Arc;

use super::buffers::Cache;
use super::runtime::{GpuRuntime, Launch, Role, Stream};
use crate::device::info::DeviceInfo;
use crate::device::number::dtype::{Dtype, Format};
use crate::error::Result;

/// Tokens per step: enough that a reading of the weights serves many rows, few enough that decoding rows do not wait
/// long.
pub const BATCHED_TOKENS: usize = 2048;

/// The settings of a device.
#[derive(Debug, Clone, Copy)]
pub struct GpuConfig {
    /// The formats of the expert and of the amateur. Weights are [`Dtype::Bf16`], [`Dtype::F32`] or
    /// [`Dtype::F8E4m3`]; the cache has the format of activations ([`Format::working`]) or [`Dtype::F8E4m3`].
    pub formats: [Format; 2],
    /// The share of the GPU's memory that may be used in all, `0..=1`.
    pub memory_utilization: f64,
    /// Whether a row's bits depend on the row alone: one algorithm for products of any number of rows, and one
    /// attention kernel for prefill and decoding.
    pub is_deterministic: bool,
    /// Whether the models of one GPU share a stream, so that their work does not overlap; for measurements.
    pub has_one_stream: bool,
}

impl GpuConfig {
    /// Both models in one format, with all of the memory.
    pub fn of(format: Format) -> Self {
        Self { formats: [format; 2], memory_utilization: 1.0, is_deterministic: false, has_one_stream: false }
    }
}

/// Both models in bfloat16, with nine tenths of the memory.
impl Default for GpuConfig {
    fn default() -> Self {
        Self { memory_utilization: 0.9, ..Self::of(Format::of(Dtype::Bf16)) }
    }
}

/// The device in one of the two roles.
pub struct GpuDevice<R> {
    shared: Arc<Shared<R>>,
    /// Where this handle queues kernels.
    stream: Stream,
}

/// The state that both roles share.
struct Shared<R> {
    runtime: R,
    config: GpuConfig,
    /// The information of each [`Role`].
    info: [DeviceInfo; 2],
}

impl<R: GpuRuntime> GpuDevice<R> {
    /// A device over `runtime`.
    pub fn new(runtime: R, config: GpuConfig) -> Self {
        let info = config.formats.map(|format| DeviceInfo {
            description: runtime.describe(),
            format,
            dtype: format.working(),
            is_split: runtime.is_split(),
            is_deterministic: config.is_deterministic,
            runs_ahead: runtime.runs_ahead(),
            default_batched_tokens: BATCHED_TOKENS,
            logits_bytes: usize::MAX,
            gathers_candidates: !runtime.is_split(),
            solo_slowdown: None,
            row_cost: 0.0,
        });
        Self { shared: Arc::new(Shared { runtime, config, info }), stream: Stream::Main(Role::Expert) }
    }

    /// The runtime.
    pub fn runtime(&self) -> &R {
        &self.shared.runtime
    }

    /// The settings of the device.
    pub(super) fn config(&self) -> &GpuConfig {
        &self.shared.config
    }

    /// See [`crate::device::Device::info`].
    pub(super) fn role_info(&self) -> &DeviceInfo {
        &self.shared.info[self.current_role() as usize]
    }

    /// The role of this handle.
    pub(super) fn current_role(&self) -> Role {
        self.stream.role()
    }

    /// The same device in a role.
    pub(super) fn in_role(&self, role: Role) -> Self {
        self.on(Stream::Main(role))
    }

    fn on(&self, stream: Stream) -> Self {
        Self { shared: Arc::clone(&self.shared), stream }
    }

    /// Queues a kernel on this handle's stream.
    pub(super) fn launch(&self, launch: &Launch, parameters: &impl bytemuck::NoUninit) {
        self.runtime().launch(self.stream, launch, bytemuck::bytes_of(parameters));
    }

    /// Queues kernels that may run side by side: those of `first` on this role's main stream, then those of `second` on
    /// its side stream. Work queued later runs after all of them.
    pub(super) fn side_by_side(&self, first: impl FnOnce(&Self), second: impl FnOnce(&Self)) {
        let role = self.current_role();
        let (main, side) = (Stream::Main(role), Stream::Side(role));
        self.runtime().order(main, side);
        first(&self.on(main));
        second(&self.on(side));
        self.runtime().order(side, main);
    }

    pub(super) fn address(&self, memory: &R::Memory) -> u64 {
        self.runtime().address(memory)
    }

    /// Allocates memory of this role.
    pub(super) fn allocate(&self, bytes: usize) -> Result<R::Memory> {
        self.runtime().allocate(self.current_role(), bytes)
    }

    /// The kernel for activations of this role's number format.
    pub(super) fn kernel(&self, bf16: &'static str, f32: &'static str) -> &'static str {
        if self.role_info().dtype == Dtype::F32 { f32 } else { bf16 }
    }

    /// The kernel for activations of this role's number format and for `cache`, which has the same format or e4m3.
    pub(super) fn cache_kernel(
        &self,
        cache: &Cache<R>,
        own: [&'static str; 2],
        e4m3: [&'static str; 2],
    ) -> &'static str {
        let [bf16, f32] = if cache.dtype == Dtype::F8E4m3 { e4m3 } else { own };
        self.kernel(bf16, f32)
    }
}
