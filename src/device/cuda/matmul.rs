//! Matrix products by cuBLASLt.
//!
//! cuBLASLt is column-major: a row-major `[rows, inputs]` is its column-major `[inputs, rows]`. The product is
//! therefore described as `out^T[outputs, rows] = weight[outputs, inputs] * x^T[inputs, rows]`, where `weight` is a
//! transposed column-major `[inputs, outputs]`. A bias of `outputs` numbers is added to each column.
//!
//! Sums are f32, and products of f32 are not rounded to tf32. Algorithms that add parts in an order that depends on
//! timing are excluded, so a product repeats bit for bit. A row's bits do not depend on the contents of the other
//! rows, but they depend on the algorithm: cuBLASLt promises nothing between two algorithms. The algorithm is chosen
//!
//! - once for all numbers of rows in one [`bucket`], by time. The first proposal wins unless another is clearly
//!   faster;
//! - or, if a row's bits must not depend on the number of rows, once for all of them: the first proposal for
//!   [`Product::USUAL_ROWS`], then for other numbers, that sums the inputs in one sequence and accepts any number of
//!   rows. Tile, stages, cluster shape and instruction of an algorithm fix the order of an output's sum, together with
//!   the number of parts, which is one. Time plays no role, so GPUs of one kind choose alike, and so does a process
//!   that resumes another's run.
//!
//! Where there is no such algorithm, the caller multiplies by its own kernel, whose sums do not depend on the number of rows.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::from_ref;
use std::sync::Arc;

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys;
use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags};
use cudarc::driver::{CudaContext, CudaStream};

use super::cublaslt::{Handle, Layout, Operation, Preference, data_type};
use super::failure::{blas_cannot, cannot};
use super::memory::Memory;
use crate::device::gpu::bucket;
use crate::device::gpu::runtime::Matmul;
use crate::error::Result;

/// Products on a GPU, and the algorithms for them.
pub struct Matmuls {
    handle: Handle,
    /// `None` where cuBLASLt has none.
    algorithms: HashMap<Shape, Option<sys::cublasLtMatmulAlgo_t>>,
    /// Whether one algorithm serves all numbers of rows.
    is_deterministic: bool,
    /// Memory of twice the L2 cache's size. It is overwritten before a product is timed, so that the product reads
    /// its weight from memory, as it does in a step.
    flush: Memory,
    context: Arc<CudaContext>,
}

/// The key of products that share an algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// The bucket of the number of rows; 0 if one algorithm serves all.
    rows: usize,
    outputs: usize,
    inputs: usize,
    dtype: sys::cudaDataType,
    out_dtype: sys::cudaDataType,
    bias: bool,
}

impl Shape {
    fn of(matmul: &Matmul, is_deterministic: bool) -> Self {
        Self {
            rows: if is_deterministic { 0 } else { bucket(matmul.rows) },
            outputs: matmul.outputs,
            inputs: matmul.inputs,
            dtype: data_type(matmul.dtype),
            out_dtype: data_type(matmul.out_dtype),
            bias: matmul.bias.is_some(),
        }
    }
}

impl Matmuls {
    /// Algorithms that are timed.
    const CANDIDATES: usize = 8;
    /// How often each is timed.
    const REPEATS: usize = 8;

    pub fn new(context: &Arc<CudaContext>, is_deterministic: bool) -> Result<Self> {
        let cache = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
        let cache_bytes = context.attribute(cache).map_err(cannot("ask for the size of the cache"))?;
        Ok(Self {
            handle: Handle::new(context)?,
            algorithms: HashMap::new(),
            is_deterministic,
            flush: Memory::new(context, 2 * usize::try_from(cache_bytes).unwrap_or(0))?,
            context: Arc::clone(context),
        })
    }

    /// Queues a product on `stream`, with that stream's `workspace` for partial sums. With `may_wait` it may choose
    /// an algorithm by time, which synchronizes the GPU. False if cuBLASLt has no algorithm for it.
    pub fn queue(
        &mut self,
        stream: &CudaStream,
        workspace: &Memory,
        matmul: &Matmul,
        may_wait: bool,
    ) -> Result<bool> {
        self.context.bind_to_thread().map_err(cannot("use the GPU"))?;
        let product = Product::new(matmul)?;
        let run = Run { handle: &self.handle, product: &product, workspace, stream };
        let shape = Shape::of(matmul, self.is_deterministic);
        match self.algorithms.get(&shape) {
            Some(None) => return Ok(false),
            Some(Some(algorithm)) => {
                let queued = run.queue(algorithm);
                if queued.is_ok() || self.is_deterministic {
                    return queued.map(|()| true);
                }
            }
            None => {}
        }
        // There is no algorithm yet, or it does not accept this number of rows.
        let algorithm = if self.is_deterministic {
            Product::algorithm_for_all_rows(matmul, &self.handle)?
        } else {
            match product.candidates(&self.handle, &Preference::fast()?)[..] {
                [] => None,
                [first, ..] if !may_wait => Some(first),
                ref candidates => Some(self.fastest(&run, candidates)?),
            }
        };
        algorithm.as_ref().map(|algorithm| run.queue(algorithm)).transpose()?;
        self.algorithms.insert(shape, algorithm);
        Ok(algorithm.is_some())
    }

    /// The fastest of `candidates`, which must not be empty. The first wins unless another takes 5% less time.
    fn fastest(
        &self,
        run: &Run<'_>,
        candidates: &[sys::cublasLtMatmulAlgo_t],
    ) -> Result<sys::cublasLtMatmulAlgo_t> {
        // Work on other streams would disturb the measurement.
        self.context.synchronize().map_err(cannot("compute"))?;
        let (mut best, mut limit) = (candidates[0], f32::INFINITY);
        for (index, algorithm) in candidates.iter().enumerate() {
            let time = self.time(run, algorithm)?;
            if time < limit {
                (best, limit) = (*algorithm, if index == 0 { 0.95 * time } else { time });
            }
        }
        Ok(best)
    }

    /// The best time of several runs in milliseconds; infinite if the algorithm is refused.
    fn time(&self, run: &Run<'_>, algorithm: &sys::cublasLtMatmulAlgo_t) -> Result<f32> {
        if run.queue(algorithm).is_err() {
            return Ok(f32::INFINITY);
        }
        let mut best = f32::INFINITY;
        for _ in 0..Self::REPEATS {
            // The host queues the rest while the cache is cleared, so its own time is not measured.
            self.flush.clear(run.stream)?;
            let mark = || {
                run.stream
                    .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
                    .map_err(cannot("record an event"))
            };
            let start = mark()?;
            run.queue(algorithm)?;
            best = best.min(start.elapsed_ms(&mark()?).map_err(cannot("compute"))?);
        }
        Ok(best)
    }
}

/// A product and the stream, workspace and handle to run it with.
struct Run<'a> {
    handle: &'a Handle,
    product: &'a Product,
    workspace: &'a Memory,
    stream: &'a CudaStream,
}

impl Run<'_> {
    fn queue(&self, algorithm: &sys::cublasLtMatmulAlgo_t) -> Result<()> {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let Product { operation, weight, x, out, matmul } = self.product;
        // SAFETY: all handles are alive. The addresses are those of the matrices that the layouts describe, as the
        // caller of GpuRuntime::matmul ensures. Scalars are read before this returns. C is D, and is not read with a
        // beta of 0.
        unsafe {
            lt::matmul(
                self.handle.0,
                operation.0,
                from_ref(&one).cast(),
                from_ref(&zero).cast(),
                matmul.weight as *const c_void,
                weight.0,
                matmul.x as *const c_void,
                x.0,
                matmul.out as *const c_void,
                out.0,
                matmul.out as *mut c_void,
                out.0,
                from_ref(algorithm),
                self.workspace.address() as *mut c_void,
                self.workspace.bytes(),
                self.stream.cu_stream().cast(),
            )
        }
        .map_err(blas_cannot(&self.product.name()))
    }
}

/// A product's description for cuBLASLt.
struct Product {
    operation: Operation,
    weight: Layout,
    x: Layout,
    out: Layout,
    matmul: Matmul,
}

impl Product {
    /// A usual number of decoding rows.
    const USUAL_ROWS: usize = 64;
    /// Numbers of rows of all kinds. Algorithms are proposed for them, and an algorithm for all rows must accept
    /// each.
    const ALL_ROWS: [usize; 14] = [1, 2, 3, 4, 8, 15, 16, 33, 64, 100, 256, 1000, 2048, 8192];

    /// The algorithm of this product for any number of rows, if there is one.
    fn algorithm_for_all_rows(matmul: &Matmul, handle: &Handle) -> Result<Option<sys::cublasLtMatmulAlgo_t>> {
        let preference = Preference::in_sequence()?;
        let with_rows = |rows| Self::new(&Matmul { rows, ..*matmul });
        let all = Self::ALL_ROWS.into_iter().map(with_rows).collect::<Result<Vec<_>>>()?;
        for product in [&with_rows(Self::USUAL_ROWS)?].into_iter().chain(&all) {
            let candidates = product.candidates(handle, &preference);
            let serves_all = |algorithm: &sys::cublasLtMatmulAlgo_t| {
                sums_in_sequence(algorithm) && all.iter().all(|product| product.takes(handle, algorithm))
            };
            if let Some(algorithm) = candidates.into_iter().find(serves_all) {
                return Ok(Some(algorithm));
            }
        }
        Ok(None)
    }

    /// Whether cuBLASLt can compute the product by this algorithm without memory for partial sums.
    fn takes(&self, handle: &Handle, algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
        let mut result = MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
        let Self { operation, weight, x, out, .. } = self;
        // SAFETY: all handles are alive, and the library returned the algorithm. The result is read only if the call
        // succeeds.
        unsafe {
            let status = sys::cublasLtMatmulAlgoCheck(
                handle.0,
                operation.0,
                weight.0,
                x.0,
                out.0,
                out.0,
                from_ref(algorithm),
                result.as_mut_ptr(),
            );
            status.result().is_ok() && result.assume_init_ref().workspaceSize == 0
        }
    }

    fn new(matmul: &Matmul) -> Result<Self> {
        let &Matmul { rows, outputs, inputs, dtype, out_dtype, bias, .. } = matmul;
        Ok(Self {
            operation: Operation::new(data_type(dtype), bias)?,
            weight: Layout::new(data_type(dtype), inputs, outputs)?,
            x: Layout::new(data_type(dtype), inputs, rows)?,
            out: Layout::new(data_type(out_dtype), outputs, rows)?,
            matmul: *matmul,
        })
    }

    /// Algorithms for the product, cuBLASLt's favourite first.
    fn candidates(&self, handle: &Handle, preference: &Preference) -> Vec<sys::cublasLtMatmulAlgo_t> {
        let mut found =
            [const { MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit() }; Matmuls::CANDIDATES];
        let mut count = 0;
        // SAFETY: all handles are alive. At most the requested number of results is written, and `count` tells how
        // many.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle.0,
                self.operation.0,
                self.weight.0,
                self.x.0,
                self.out.0,
                self.out.0,
                preference.0,
                found.len() as i32,
                found.as_mut_ptr().cast(),
                &raw mut count,
            )
        };
        // It has none, for example, for a bias of another number format than the output's.
        if status.result().is_err() {
            return Vec::new();
        }
        found[..usize::try_from(count).unwrap_or(0).min(found.len())]
            .iter()
            // SAFETY: the result is one of the first `count`, which are initialized.
            .map(|result| unsafe { result.assume_init_ref() })
            .filter(|result| result.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS)
            .map(|result| result.algo)
            .collect()
    }

    fn name(&self) -> String {
        let Matmul { rows, outputs, inputs, dtype, out_dtype, .. } = self.matmul;
        format!("multiply [{rows}, {inputs}] and [{outputs}, {inputs}]^T, {dtype:?} to {out_dtype:?}")
    }
}

/// Whether an output is one sum, not several parts that are added.
fn sums_in_sequence(algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;

    let get = |attribute| {
        let (mut value, mut written) = (0_u32, 0);
        let place = (&raw mut value).cast();
        // SAFETY: the value has the length that is passed.
        let status = unsafe {
            sys::cublasLtMatmulAlgoConfigGetAttribute(
                from_ref(algorithm),
                attribute,
                place,
                size_of::<u32>(),
                &raw mut written,
            )
        };
        status.result().ok().map(|()| value)
    };
    let parts = get(Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    let scheme = get(Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    matches!(parts, Some(0 | 1)) && scheme == Some(0)
}
