//! The kernels that were built in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError};
use cudarc::nvrtc::Ptx;

use super::failure::cannot;
use crate::error::{Error, Result};

/// Written by `build/nvcc.rs`.
mod built {
    include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));
}

/// CUDA's release that built the kernels, such as "13.0".
pub use built::{ARCHITECTURES, RELEASE};

/// The kernels of all families, by name.
pub struct Kernels {
    modules: Vec<Arc<CudaModule>>,
    functions: HashMap<&'static str, CudaFunction>,
    /// Bytes of shared memory that a block may ask for.
    most_shared_bytes: i32,
}

impl Kernels {
    pub fn load(context: &Arc<CudaContext>) -> Result<Self> {
        let load = |(family, fatbin): &(&str, &[u8])| {
            let module = context.load_module(Ptx::from_binary(fatbin.to_vec()));
            module.map_err(|DriverError(reason)| {
                let architectures = built::ARCHITECTURES.join(", ");
                Error::Device(format!(
                    "CUDA could not load the kernels of {family}: {reason:?}. They were built by CUDA {RELEASE} for \
                     the architectures {architectures} and newer ones"
                ))
            })
        };
        let most_shared = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        Ok(Self {
            modules: built::FATBINS.iter().map(load).collect::<Result<_>>()?,
            functions: HashMap::new(),
            most_shared_bytes: context.attribute(most_shared).map_err(cannot("ask for shared memory"))?,
        })
    }

    /// The kernel of that name; it may be launched with as much dynamic shared memory as the GPU has for a block.
    pub fn get(&mut self, name: &'static str) -> Result<&CudaFunction> {
        match self.functions.entry(name) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let function = find(&self.modules, name)?;
                let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                function
                    .set_attribute(most, self.most_shared_bytes)
                    .map_err(cannot(&format!("give {name} shared memory")))?;
                Ok(entry.insert(function))
            }
        }
    }
}

fn find(modules: &[Arc<CudaModule>], name: &str) -> Result<CudaFunction> {
    for module in modules {
        match module.load_function(name) {
            Ok(function) => return Ok(function),
            Err(DriverError(CUresult::CUDA_ERROR_NOT_FOUND)) => {}
            Err(error) => return Err(cannot(&format!("load {name}"))(error)),
        }
    }
    Err(Error::Device(format!("internal error: there is no kernel {name}; please report this")))
}
