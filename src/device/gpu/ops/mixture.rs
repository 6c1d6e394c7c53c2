//! Launches of `route.cu` and `weighted_sum.cu`, and the routing between them.

use super::grouped_matmul::Groups;
use super::rows::launch_by_columns;
use crate::device::gpu::abi::{RouteParams, WeightedSumParams};
use crate::device::gpu::buffers::Tensor;
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::inputs::Step;
use crate::device::gpu::runtime::{GpuRuntime, Launch};
use crate::device::{Choice, GroupedRows, RoutingShape};
use crate::error::Result;

/// Rows per block of `route_choose`, one warp each.
const CHOOSING_WARPS: usize = 4;
/// The most threads of a block of `route_sort`.
const SORTING_THREADS: usize = 256;

/// See [`crate::device::Device::Routing`].
pub struct Routing<R: GpuRuntime> {
    shape: RoutingShape,
    /// `[rows, active]` u32: the branches, [`crate::device::gpu::abi::NONE`] in rows of padding.
    branches: R::Memory,
    /// `[rows, active]` f32: their weights.
    weights: R::Memory,
    /// `[rows, active]` u32: the place of each choice in the order of the branches.
    places: R::Memory,
    /// `[rows * active]` u32: the row of each place.
    sources: R::Memory,
    /// `[branches + 1]` u32: the first place of each branch, then the end of the last.
    offsets: R::Memory,
}

impl<R: GpuRuntime> Routing<R> {
    /// See [`crate::device::Device::routing`].
    pub fn new(on: &GpuDevice<R>, rows: usize, shape: RoutingShape) -> Result<Self> {
        let words = |count: usize| on.allocate(count * size_of::<u32>());
        Ok(Self {
            shape,
            branches: words(rows * shape.active)?,
            weights: words(rows * shape.active)?,
            places: words(rows * shape.active)?,
            sources: words(rows * shape.active)?,
            offsets: words(shape.branches + 1)?,
        })
    }

    /// The places as the groups of a product.
    pub fn groups(&self, on: &GpuDevice<R>, step: &Step<R>, rows: GroupedRows) -> Groups {
        Groups {
            count: self.shape.branches,
            rows: step.tokens * self.shape.active,
            sources: match rows {
                GroupedRows::OfRow => on.address(&self.sources),
                GroupedRows::OfPlace => 0,
            },
            offsets: on.address(&self.offsets),
            scatters: false,
        }
    }

    /// See [`crate::device::inspect::Inspect::choices`].
    pub fn choices(&self, on: &GpuDevice<R>, rows: usize) -> Vec<Choice> {
        let read = |memory| {
            let pending =
                on.runtime().read(on.current_role(), memory, rows * self.shape.active * size_of::<u32>());
            // `collect` reports a failure; the choices read after one are meaningless.
            on.runtime().wait(pending).unwrap_or_default()
        };
        let branches: Vec<u32> = bytemuck::pod_collect_to_vec(&read(&self.branches));
        let weights: Vec<f32> = bytemuck::pod_collect_to_vec(&read(&self.weights));
        branches.into_iter().zip(weights).map(|(branch, weight)| Choice { branch, weight }).collect()
    }
}

/// See [`crate::device::Device::route`].
pub fn route<R: GpuRuntime>(on: &GpuDevice<R>, step: &Step<R>, logits: &Tensor<R>, routing: &mut Routing<R>) {
    let RoutingShape { branches, active, normalized } = routing.shape;
    let parameters = RouteParams {
        logits: on.address(&logits.memory),
        slots: step.section(on, |s| s.slots),
        branches: on.address(&routing.branches),
        weights: on.address(&routing.weights),
        places: on.address(&routing.places),
        sources: on.address(&routing.sources),
        offsets: on.address(&routing.offsets),
        rows: step.tokens as u32,
        branch_count: branches as u32,
        active: active as u32,
        normalized: u32::from(normalized),
    };
    if step.tokens == 0 {
        return;
    }
    let choose = Launch {
        kernel: "route_choose",
        grid: [step.tokens.div_ceil(CHOOSING_WARPS) as u32, 1, 1],
        threads: (CHOOSING_WARPS * 32) as u32,
        shared_bytes: (CHOOSING_WARPS * branches * size_of::<f32>()) as u32,
    };
    on.launch(&choose, &parameters);
    let threads = (step.tokens * active).next_multiple_of(32).min(SORTING_THREADS);
    let sort = Launch {
        kernel: "route_sort",
        grid: [branches as u32, 1, 1],
        threads: threads as u32,
        shared_bytes: (threads / 32 * 2 * size_of::<u32>()) as u32,
    };
    on.launch(&sort, &parameters);
}

/// See [`crate::device::Device::weighted_sum`].
pub fn weighted_sum<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &Step<R>,
    routing: &Routing<R>,
    x: &Tensor<R>,
    out: &mut Tensor<R>,
) {
    let parameters = WeightedSumParams {
        x: on.address(&x.memory),
        slots: step.section(on, |s| s.slots),
        weights: on.address(&routing.weights),
        places: on.address(&routing.places),
        out: on.address(&out.memory),
        width: out.width as u32,
        active: routing.shape.active as u32,
    };
    let kernel = on.kernel("weighted_sum_bf16", "weighted_sum_f32");
    launch_by_columns(on, kernel, step.tokens, out.width, out.dtype, &parameters);
}
