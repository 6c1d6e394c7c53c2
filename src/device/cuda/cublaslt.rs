//! The library cuBLASLt, and the descriptors of a product.

use std::ptr::from_ref;

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys;
use cudarc::driver::CudaContext;

use super::failure::{blas_cannot, cannot};
use crate::device::gpu::runtime::MATMUL_WORKSPACE;
use crate::device::number::dtype::Dtype;
use crate::error::{Error, Result};

/// cuBLASLt's name for a number format.
pub fn data_type(dtype: Dtype) -> sys::cudaDataType {
    match dtype {
        Dtype::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Dtype::F16 => sys::cudaDataType::CUDA_R_16F,
        Dtype::F32 => sys::cudaDataType::CUDA_R_32F,
        Dtype::F8E4m3 => sys::cudaDataType::CUDA_R_8F_E4M3,
    }
}

/// The library, for one GPU.
pub struct Handle(pub sys::cublasLtHandle_t);

// SAFETY: a handle is not bound to a thread, and its only user, `Matmuls`, is behind a mutex.
unsafe impl Send for Handle {}

impl Handle {
    /// Loads the library.
    pub fn new(context: &CudaContext) -> Result<Self> {
        // SAFETY: loads the library, as any use of it would.
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

/// Describes a column-major matrix without gaps.
pub struct Layout(pub sys::cublasLtMatrixLayout_t);

impl Layout {
    pub fn new(dtype: sys::cudaDataType, rows: usize, columns: usize) -> Result<Self> {
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

/// Describes a product: the first matrix is transposed, sums are f32, a bias is added.
pub struct Operation(pub sys::cublasLtMatmulDesc_t);

impl Operation {
    pub fn new(dtype: sys::cudaDataType, bias: Option<u64>) -> Result<Self> {
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
        // SAFETY: the value has the length that is passed, and is copied.
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

/// Restricts the algorithms of a product.
pub struct Preference(pub sys::cublasLtMatmulPreference_t);

impl Preference {
    /// Sums may be split; the parts are added as f32 in a fixed order.
    pub fn fast() -> Result<Self> {
        let scheme = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        Self::new(scheme, MATMUL_WORKSPACE)
    }

    /// Sums are not split, and there is no workspace for parts.
    pub fn in_sequence() -> Result<Self> {
        Self::new(sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE, 0)
    }

    fn new(reductions: sys::cublasLtReductionScheme_t, workspace: usize) -> Result<Self> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;

        let preference = lt::create_matmul_pref().map(Self).map_err(blas_cannot("describe a preference"))?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &(workspace as u64))?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &(reductions as u32))?;
        Ok(preference)
    }

    fn set<T: Copy>(&self, attribute: sys::cublasLtMatmulPreferenceAttributes_t, value: &T) -> Result<()> {
        // SAFETY: the value has the length that is passed, and is copied.
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
