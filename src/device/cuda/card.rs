//! One GPU: its context and the state that belongs to it, whichever role uses it.

use std::ffi::{c_int, c_uint};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use cudarc::driver::{CudaContext, DriverError, result};

use super::failure::cannot;
use super::kernels::{ARCHITECTURES, Kernels, RELEASE};
use super::matmul::Matmuls;
use super::memory::Staging;
use crate::device::MemoryInfo;
use crate::error::{Error, Result};

/// In the units of `cuDriverGetVersion`. CUDA 12.8 has every function that is called here (12.7 lacks
/// `cuEventElapsedTime_v2`).
const OLDEST_DRIVER: c_int = 12_080;

/// A GPU.
pub struct Card {
    pub kernels: Mutex<Kernels>,
    pub matmuls: Mutex<Matmuls>,
    pub staging: Staging,
    pub multiprocessors: usize,
    pub context: Arc<CudaContext>,
}

impl Card {
    /// Opens GPU number `ordinal` of those that the driver shows. Its products are deterministic or not, see
    /// [`Matmuls`].
    ///
    /// # Errors
    /// [`Error::Device`] that says what is missing: a driver, a GPU, a newer one of either, or cuBLASLt;
    /// [`Error::Setting`] if there are fewer GPUs.
    pub fn open(ordinal: usize, is_deterministic: bool) -> Result<Self> {
        let count = count()?;
        if ordinal >= count {
            return Err(Error::Setting(format!(
                "there is no GPU {ordinal}: the driver shows {count}, counted from 0 (CUDA_VISIBLE_DEVICES chooses)"
            )));
        }
        let context = CudaContext::new(ordinal).map_err(cannot(&format!("open GPU {ordinal}")))?;
        let (major, minor) =
            context.compute_capability().map_err(cannot("ask for the GPU's architecture"))?;
        if major < 8 {
            let message =
                format!("the compute capability of GPU {ordinal} is {major}.{minor}; 8.0 or newer is needed");
            return Err(unusable(&message));
        }
        let multiprocessors = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(cannot("ask for its multiprocessors"))?;
        Ok(Self {
            kernels: Mutex::new(Kernels::load(&context)?),
            matmuls: Mutex::new(Matmuls::new(&context, is_deterministic)?),
            staging: Staging::new(&context),
            multiprocessors: usize::try_from(multiprocessors).map_or(1, |count| count.max(1)),
            context,
        })
    }

    /// Enables direct copies between this GPU and `other`, if the two are connected. Otherwise copies pass through
    /// the host.
    pub fn connect(&self, other: &Self) {
        for [from, to] in [[self, other], [other, self]] {
            let mut may_reach: c_int = 0;
            // SAFETY: the number is valid for a write, and both contexts are alive. A refusal (already enabled, or
            // too many peers) leaves the copies as they were.
            unsafe {
                let [own, peer] = [from, to].map(|card| card.context.cu_device());
                let asked = sys::cuDeviceCanAccessPeer(&raw mut may_reach, own, peer).result();
                if asked.is_ok() && may_reach != 0 && from.context.bind_to_thread().is_ok() {
                    let flags: c_uint = 0;
                    let _ = sys::cuCtxEnablePeerAccess(to.context.cu_ctx(), flags);
                }
            }
        }
    }

    /// Its number, name, memory and architecture, for people.
    pub fn describe(&self) -> String {
        let unknown = || "?".to_owned();
        let name = self.context.name().unwrap_or_else(|_| unknown());
        let capability = self.context.compute_capability();
        let capability = capability.map_or_else(|_| unknown(), |(major, minor)| format!("{major}.{minor}"));
        let memory = self.memory_info().map_or(0.0, |memory| memory.total as f64 / f64::from(1 << 30));
        let ordinal = self.context.ordinal();
        format!("GPU {ordinal}, {name}, {memory:.1} GiB, compute capability {capability}")
    }

    pub fn memory_info(&self) -> Result<MemoryInfo> {
        let (free, total) = self.context.mem_get_info().map_err(cannot("ask for its memory"))?;
        Ok(MemoryInfo { free, total })
    }
}

/// How many GPUs the driver shows.
///
/// # Errors
/// [`Error::Device`] if there is none, or no driver, or an older one than the kernels need.
pub fn count() -> Result<usize> {
    // SAFETY: loads the driver, as any use of it would.
    if !unsafe { sys::is_culib_present() } {
        return Err(unusable("there is no NVIDIA driver (libcuda.so was not found)"));
    }
    let no_gpu = || unusable("the NVIDIA driver shows no GPU");
    match result::init() {
        Ok(()) => {}
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(no_gpu()),
        Err(DriverError(reason)) => {
            return Err(unusable(&format!("the NVIDIA driver does not start: {reason:?}")));
        }
    }
    let version = driver_version()?;
    let needed =
        RELEASE.split('.').next().and_then(|major| major.parse().ok()).map_or(0, |major: c_int| 1000 * major);
    if version < needed.max(OLDEST_DRIVER) {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let message = format!(
            "the NVIDIA driver supports CUDA {major}.{minor}; CUDA 12.8 is needed, and that of the nvcc that built the \
             kernels, {RELEASE}. Install a newer driver, or build with an older nvcc (CUDA_HOME)"
        );
        return Err(unusable(&message));
    }
    match CudaContext::device_count().map_err(cannot("count the GPUs"))? {
        count if count > 0 => Ok(count as usize),
        _ => Err(no_gpu()),
    }
}

/// The driver and the kernels, for people.
pub fn describe_driver() -> String {
    let driver =
        driver_version().map_or_else(|_| "?".to_owned(), |v| format!("{}.{}", v / 1000, v % 1000 / 10));
    let architectures = ARCHITECTURES.join(", ");
    format!("the driver knows CUDA {driver}; kernels built by CUDA {RELEASE} for {architectures} and as PTX")
}

/// In the units of `cuDriverGetVersion`: 1000 times the major release plus 10 times the minor.
fn driver_version() -> Result<c_int> {
    let mut version: c_int = 0;
    // SAFETY: the number is valid for a write.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    asked.result().map_err(cannot("ask for the driver's version"))?;
    Ok(version)
}

fn unusable(reason: &str) -> Error {
    Error::Device(format!("no GPU can be used: {reason}. --device cpu does without"))
}
