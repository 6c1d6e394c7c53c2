//! Matrix products by cuBLASLt.
//!
//! cuBLASLt counts by columns: our row-major `[rows, inputs]` is its column-major `[inputs, rows]`. So it is asked for
//! `out^T[outputs, rows] = weight[outputs, inputs] * x^T[inputs, rows]`, in which `weight` is a transposed column-major
//! `[inputs, outputs]`, and a bias of `outputs` numbers is added to each column.
//!
//! What holds of the numbers: sums are f32 and products of f32 are not rounded to tf32. Algorithms that add parts in an
//! order which depends on timing are excluded, so a product repeats bit for bit. A row's bits do not depend on what the
//! other rows hold, but on the algorithm, which is chosen once for all numbers of rows with one [`bucket`]: cuBLASLt
//! promises nothing between two algorithms. The choice is by time, hence the first proposal wins unless another is
//! clearly faster.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::from_ref;
use std::sync::Arc;

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys;
use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags};
use cudarc::driver::{CudaContext, CudaStream};

use super::failure::{blas_cannot, cannot};
use super::memory::Memory;
use crate::device::Dtype;
use crate::device::launch::bucket;
use crate::device::launch::machine::{MATMUL_WORKSPACE, Matmul};
use crate::error::{Error, Result};

/// Products on a GPU, and the algorithms for them.
pub struct Matmuls {
    handle: Handle,
    algorithms: HashMap<Shape, sys::cublasLtMatmulAlgo_t>,
    /// Twice the second-level cache. It is overwritten before a product is timed, which then finds its weight in
    /// memory, as it will between the other layers.
    flush: Memory,
    context: Arc<CudaContext>,
}

/// Products that are computed alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    rows: usize,
    outputs: usize,
    inputs: usize,
    dtype: sys::cudaDataType,
    out_dtype: sys::cudaDataType,
    bias: bool,
}

impl Shape {
    fn of(matmul: &Matmul) -> Self {
        Self {
            rows: bucket(matmul.rows),
            outputs: matmul.outputs,
            inputs: matmul.inputs,
            dtype: data_type(matmul.dtype),
            out_dtype: data_type(matmul.out_dtype),
            bias: matmul.bias.is_some(),
        }
    }
}

impl Matmuls {
    /// Algorithms that are tried.
    const CANDIDATES: usize = 8;
    /// How often each is timed.
    const REPEATS: usize = 8;

    pub fn new(context: &Arc<CudaContext>) -> Result<Self> {
        let cache = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
        let cache_bytes = context.attribute(cache).map_err(cannot("ask for the size of the cache"))?;
        Ok(Self {
            handle: Handle::new(context)?,
            algorithms: HashMap::new(),
            flush: Memory::new(context, 2 * usize::try_from(cache_bytes).unwrap_or(0))?,
            context: Arc::clone(context),
        })
    }

    /// Queues a product on `stream`, to which `workspace` belongs, for partial sums. With `may_wait` an algorithm may be
    /// chosen by time, for which the GPU is stopped.
    pub fn queue(
        &mut self,
        stream: &CudaStream,
        workspace: &Memory,
        matmul: &Matmul,
        may_wait: bool,
    ) -> Result<()> {
        self.context.bind_to_thread().map_err(cannot("use the GPU"))?;
        let product = Product::new(matmul)?;
        let run = Run { handle: &self.handle, product: &product, workspace, stream };
        let shape = Shape::of(matmul);
        if let Some(algorithm) = self.algorithms.get(&shape)
            && run.queue(algorithm).is_ok()
        {
            return Ok(());
        }
        // None yet, or one that does not suit this number of rows.
        let candidates = product.candidates(&self.handle)?;
        let algorithm = if may_wait { self.fastest(&run, &candidates)? } else { candidates[0] };
        run.queue(&algorithm)?;
        self.algorithms.insert(shape, algorithm);
        Ok(())
    }

    /// The first of `candidates`, which are not none, unless another takes a twentieth less.
    fn fastest(
        &self,
        run: &Run<'_>,
        candidates: &[sys::cublasLtMatmulAlgo_t],
    ) -> Result<sys::cublasLtMatmulAlgo_t> {
        // The other lane must not disturb.
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

    /// Milliseconds, the best of some; infinite for an algorithm that is refused.
    fn time(&self, run: &Run<'_>, algorithm: &sys::cublasLtMatmulAlgo_t) -> Result<f32> {
        if run.queue(algorithm).is_err() {
            return Ok(f32::INFINITY);
        }
        let mut best = f32::INFINITY;
        for _ in 0..Self::REPEATS {
            // While the cache is cleared, the host queues the rest: its own time is not measured.
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

/// A product with where it runs.
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
        // SAFETY: all handles live; the addresses are those of the matrices that the layouts describe, which the caller
        // of Machine::matmul answers for; scalars are read before this returns; C is D, and with a beta of 0 unread.
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

/// A product as cuBLASLt is told of it.
struct Product {
    operation: Operation,
    weight: Layout,
    x: Layout,
    out: Layout,
    matmul: Matmul,
}

impl Product {
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

    /// Algorithms for it, the one that cuBLASLt thinks best first; at least one.
    fn candidates(&self, handle: &Handle) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
        let preference = Preference::new()?;
        let mut found =
            [const { MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit() }; Matmuls::CANDIDATES];
        let mut count = 0;
        // SAFETY: all handles live; no more than the asked number of results is written, and `count` says how many.
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
        let none = || Error::Device(format!("cuBLASLt has no algorithm to {}", self.name()));
        status.result().map_err(|_| none())?;
        let candidates: Vec<_> = found[..usize::try_from(count).unwrap_or(0).min(found.len())]
            .iter()
            // SAFETY: it is one of the first `count`.
            .map(|result| unsafe { result.assume_init_ref() })
            .filter(|result| result.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS)
            .map(|result| result.algo)
            .collect();
        if candidates.is_empty() { Err(none()) } else { Ok(candidates) }
    }

    fn name(&self) -> String {
        let Matmul { rows, outputs, inputs, dtype, out_dtype, .. } = self.matmul;
        format!("multiply [{rows}, {inputs}] and [{outputs}, {inputs}]^T, {dtype:?} to {out_dtype:?}")
    }
}

fn data_type(dtype: Dtype) -> sys::cudaDataType {
    match dtype {
        Dtype::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Dtype::F16 => sys::cudaDataType::CUDA_R_16F,
        Dtype::F32 => sys::cudaDataType::CUDA_R_32F,
        Dtype::F8E4m3 => sys::cudaDataType::CUDA_R_8F_E4M3,
    }
}

/// The library, for one GPU.
struct Handle(sys::cublasLtHandle_t);

// SAFETY: a handle is bound to no thread, and `Matmuls` are behind a mutex.
unsafe impl Send for Handle {}

impl Handle {
    fn new(context: &CudaContext) -> Result<Self> {
        // SAFETY: loads the library as any use of it would.
        if !unsafe { sys::is_culib_present() } {
            let message = "cuBLASLt was not found: libcublasLt.so.13 or .12 must be installed where the loader looks \
                           (LD_LIBRARY_PATH, ldconfig). It comes with CUDA's toolkit, or from the Python registry as \
                           nvidia-cublas";
            return Err(Error::Device(message.to_owned()));
        }
        context.bind_to_thread().map_err(cannot("use the GPU"))?;
        lt::create_handle().map(Self).map_err(blas_cannot("start"))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it was created, and is destroyed once.
        let _ = unsafe { lt::destroy_handle(self.0) };
    }
}

/// A column-major matrix without gaps.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(dtype: sys::cudaDataType, rows: usize, columns: usize) -> Result<Self> {
        lt::create_matrix_layout(dtype, rows as u64, columns as u64, rows as i64)
            .map(Self)
            .map_err(blas_cannot("describe a matrix"))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it was created, and is destroyed once.
        let _ = unsafe { lt::destroy_matrix_layout(self.0) };
    }
}

/// The first matrix transposed, f32 sums, and a bias.
struct Operation(sys::cublasLtMatmulDesc_t);

impl Operation {
    fn new(dtype: sys::cudaDataType, bias: Option<u64>) -> Result<Self> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;

        let (sums, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F);
        let operation =
            lt::create_matmul_desc(sums, scale).map(Self).map_err(blas_cannot("describe a product"))?;
        let transpose = 1_i32; // CUBLAS_OP_T
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &transpose)?;
        if let Some(address) = bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            operation.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            operation.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &address)?;
            operation.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &dtype)?;
        }
        Ok(operation)
    }

    fn set<T: Copy>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<()> {
        // SAFETY: the value is as long as is said, and is copied.
        unsafe { lt::set_matmul_desc_attribute(self.0, attribute, from_ref(value).cast(), size_of::<T>()) }
            .map_err(blas_cannot("describe a product"))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: it was created, and is destroyed once.
        let _ = unsafe { lt::destroy_matmul_desc(self.0) };
    }
}

/// What an algorithm may use.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new() -> Result<Self> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;

        let preference = lt::create_matmul_pref().map(Self).map_err(blas_cannot("describe a preference"))?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &(MATMUL_WORKSPACE as u64))?;
        // Parts of a sum, where there are parts, are added as f32 and in order.
        let reductions = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions)?;
        Ok(preference)
    }

    fn set<T: Copy>(&self, attribute: sys::cublasLtMatmulPreferenceAttributes_t, value: &T) -> Result<()> {
        // SAFETY: the value is as long as is said, and is copied.
        unsafe { lt::set_matmul_pref_attribute(self.0, attribute, from_ref(value).cast(), size_of::<T>()) }
            .map_err(blas_cannot("describe a preference"))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it was created, and is destroyed once.
        let _ = unsafe { lt::destroy_matmul_pref(self.0) };
    }
}
