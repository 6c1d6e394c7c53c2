//! The GPU path without a GPU: the same launches of the same kernels, compiled for the host and run with one fibre
//! per CUDA thread, or compiled to PTX and interpreted. Matrix products, which a library computes on the GPU, are plain
//! loops here.

pub mod code;
pub mod runtime;

use std::collections::BTreeSet;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use half::bf16;
use rayon::prelude::*;

use super::gpu::runtime::{GpuRuntime, Launch, Matmul, Role, Stream};
use super::gpu::{GpuConfig, GpuDevice};
use super::{Dtype, Format, MemoryInfo};
use crate::error::{Error, Result};
use code::Code;
use runtime::Memory;

/// The device.
pub type Simt = GpuDevice<Host>;

/// The memory that the stand-in claims to have: enough for small models, and quickly full.
const MEMORY: usize = 256 << 20;
/// The multiprocessors that it claims to have: so few that small products fill them.
const MULTIPROCESSORS: usize = 2;
/// Partial sums of an output of a matrix product.
const LANES: usize = 16;

/// The host in place of one GPU, or of two.
#[derive(Debug)]
pub struct Host {
    /// Seeds the order of threads and blocks of the next launch.
    seed: AtomicU64,
    is_split: bool,
    multiprocessors: AtomicUsize,
    code: Code,
    failure: Mutex<Option<String>>,
    /// The names of the launched kernels.
    launched: Mutex<BTreeSet<&'static str>>,
    /// The kernels that wait on the side stream of each [`Role`].
    aside: [Mutex<Vec<Queued>>; 2],
}

/// A kernel that has not run yet.
#[derive(Debug)]
struct Queued {
    launch: runtime::Launch<'static>,
    parameters: Vec<u8>,
}

impl Simt {
    /// A device with activations of format `dtype`. Threads and blocks take turns in an order drawn from `seed`, a
    /// different one for each launch; seed 0 is always index order.
    pub fn simt(dtype: Dtype, seed: u64) -> Self {
        Self::simt_with(GpuConfig::of(Format::of(dtype)), seed, false)
    }

    /// Like [`Simt::simt`] with other formats, and in place of two GPUs if `is_split`. The environment chooses the
    /// kernels' code; where it is wrong ([`Code::chosen`]), the device ends its first step with that error.
    pub fn simt_with(config: GpuConfig, seed: u64, is_split: bool) -> Self {
        match Code::chosen() {
            Ok(code) => Self::simt_from(code, config, seed, is_split),
            Err(error) => {
                let device = Self::simt_from(Code::Host, config, seed, is_split);
                device.runtime().note(Err(error.to_string()));
                device
            }
        }
    }

    /// Like [`Simt::simt_with`], with the kernels of `code`.
    pub fn simt_from(code: Code, config: GpuConfig, seed: u64, is_split: bool) -> Self {
        let host = Host {
            seed: AtomicU64::new(seed),
            is_split,
            multiprocessors: AtomicUsize::new(MULTIPROCESSORS),
            code,
            failure: Mutex::default(),
            launched: Mutex::default(),
            aside: Default::default(),
        };
        Self::new(host, config)
    }
}

impl Host {
    /// The names of the kernels that were launched.
    pub fn launched(&self) -> BTreeSet<&'static str> {
        self.launched.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |names| names.clone())
    }

    /// Claims to have so many multiprocessors, by which launches choose their geometry; at least 1.
    pub fn claim_multiprocessors(&self, count: usize) {
        self.multiprocessors.store(count.max(1), Ordering::Relaxed);
    }

    /// Keeps the first failure.
    fn note(&self, result: std::result::Result<(), String>) {
        if let (Err(message), Ok(mut failure)) = (result, self.failure.lock()) {
            failure.get_or_insert(message);
        }
    }

    fn run(&self, launch: &runtime::Launch<'_>, parameters: &[u8]) {
        // SAFETY: `GpuDevice` packs the kernel's own parameters, with addresses of memory that it holds. Work runs on the
        // thread that queues it, one launch after another, so nothing else uses that memory now.
        self.note(unsafe { launch.run_bytes(&self.code, parameters) });
    }

    /// Runs what waits on a role's side stream.
    fn run_aside(&self, role: Role) {
        let waiting = self.aside[role as usize].lock().map(|mut waiting| std::mem::take(&mut *waiting));
        for Queued { launch, parameters } in waiting.unwrap_or_default() {
            self.run(&launch, &parameters);
        }
    }

    /// The first failure. It stays, as on a GPU: results that are computed after it are invalid.
    fn check(&self) -> Result<()> {
        let failure =
            self.failure.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |f| f.clone());
        failure.map_or(Ok(()), |message| Err(Error::Device(message)))
    }

    fn next_seed(&self) -> u64 {
        match self.seed.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.seed.fetch_add(1, Ordering::Relaxed).max(1),
        }
    }
}

impl GpuRuntime for Host {
    type Memory = Memory;
    type Pending = Vec<u8>;
    type Mark = Instant;

    fn describe(&self) -> String {
        match self.code {
            Code::Host => "simt: the GPU's kernels on the host".to_owned(),
            Code::Ptx(_) => "simt: the GPU's kernels on the host, from their PTX".to_owned(),
        }
    }

    fn allocate(&self, _: Role, bytes: usize) -> Result<Memory> {
        Memory::new(bytes).ok_or_else(|| Error::Device(format!("no memory for {bytes} bytes")))
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address()
    }

    fn fill(
        &self,
        _: Role,
        memory: &Memory,
        bytes: usize,
        source: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        // SAFETY: as in `write`.
        source(0, unsafe { bytes_at(memory, bytes) });
        Ok(())
    }

    fn write(&self, _: Role, memory: &Memory, bytes: &[u8]) {
        // SAFETY: queued work runs at once, so nothing else uses the memory now.
        unsafe { bytes_at(memory, bytes.len()) }.copy_from_slice(bytes);
    }

    fn read(&self, _: Role, memory: &Memory, bytes: usize) -> Vec<u8> {
        memory.as_slice()[..bytes].to_vec()
    }

    fn wait(&self, pending: Vec<u8>) -> Result<Vec<u8>> {
        self.check()?;
        Ok(pending)
    }

    /// Work on the main streams runs at once. Work on a side stream runs at the last moment, when a main stream is to run
    /// after it, or, as a seed draws, at once. So a kernel that relies on an order that was not asked for fails.
    fn order(&self, before: Stream, _: Stream) {
        if let Stream::Side(role) = before {
            self.run_aside(role);
        }
    }

    fn launch(&self, stream: Stream, launch: &Launch, parameters: &[u8]) {
        if let Ok(mut launched) = self.launched.lock() {
            launched.insert(launch.kernel);
        }
        let launch = runtime::Launch {
            kernel: launch.kernel,
            grid: launch.grid,
            block: [launch.threads, 1, 1],
            shared_bytes: launch.shared_bytes as usize,
            seed: self.next_seed(),
        };
        match stream {
            Stream::Main(_) => self.run(&launch, parameters),
            Stream::Side(role) => {
                if let Ok(mut waiting) = self.aside[role as usize].lock() {
                    waiting.push(Queued { launch, parameters: parameters.to_vec() });
                }
                if launch.seed % 2 == 1 {
                    self.run_aside(role);
                }
            }
        }
    }

    fn matmul(&self, _: Role, matmul: &Matmul) -> bool {
        // SAFETY: `GpuDevice` passes addresses of tensors with these shapes and formats, and `out` does not overlap
        // the others. Queued work runs at once.
        unsafe {
            match matmul.dtype {
                Dtype::F32 => multiply::<f32>(matmul),
                _ => multiply::<bf16>(matmul),
            }
        }
        true
    }

    fn copy(&self, _: Role, from: &Memory, to: &Memory, bytes: usize) {
        // SAFETY: as in `write`; the two do not overlap.
        unsafe { bytes_at(to, bytes) }.copy_from_slice(&from.as_slice()[..bytes]);
    }

    fn mark(&self, _: Role) -> Instant {
        Instant::now()
    }

    fn seconds(&self, from: &Instant, to: &Instant) -> Result<f64> {
        self.check()?;
        Ok(to.duration_since(*from).as_secs_f64())
    }

    fn replay(&self, _: u64, record: &mut dyn FnMut()) {
        record();
    }

    fn is_split(&self) -> bool {
        self.is_split
    }

    fn memory_info(&self, _: Role) -> Result<MemoryInfo> {
        Ok(MemoryInfo { free: MEMORY, total: MEMORY })
    }

    fn multiprocessors(&self, _: Role) -> usize {
        self.multiprocessors.load(Ordering::Relaxed)
    }

    fn runs_ahead(&self) -> bool {
        true
    }
}

/// The first bytes of memory that a [`GpuRuntime`] writes through a shared reference, as a GPU does.
///
/// # Safety
///
/// Nothing else may use the bytes while they are borrowed, and the memory must have that many.
#[allow(clippy::mut_from_ref)]
unsafe fn bytes_at(memory: &Memory, bytes: usize) -> &mut [u8] {
    assert!(bytes <= memory.bytes(), "{bytes} bytes in memory of {}", memory.bytes());
    // SAFETY: the caller ensures it.
    unsafe { slice::from_raw_parts_mut(memory.address() as *mut u8, bytes) }
}

/// # Safety
///
/// The addresses must be those of tensors with the shapes and formats that `matmul` describes, and nothing else may
/// use them now.
unsafe fn multiply<T: Copy + Into<f32> + Sync>(matmul: &Matmul) {
    let &Matmul { rows, outputs, inputs, .. } = matmul;
    // SAFETY: the caller ensures it.
    let (x, weight, bias) = unsafe {
        (
            slice::from_raw_parts(matmul.x as *const T, rows * inputs),
            slice::from_raw_parts(matmul.weight as *const T, outputs * inputs),
            matmul.bias.map(|bias| slice::from_raw_parts(bias as *const T, outputs)),
        )
    };
    let element = |index: usize| {
        let (row, output) = (index / outputs, index % outputs);
        let sum = dot(&x[row * inputs..][..inputs], &weight[output * inputs..][..inputs]);
        bias.map_or(sum, |bias| sum + bias[output].into())
    };
    // SAFETY: the caller ensures it.
    unsafe {
        if matmul.out_dtype == Dtype::F32 {
            let out = slice::from_raw_parts_mut(matmul.out as *mut f32, rows * outputs);
            out.par_iter_mut().enumerate().with_min_len(64).for_each(|(index, out)| *out = element(index));
        } else {
            let out = slice::from_raw_parts_mut(matmul.out as *mut bf16, rows * outputs);
            let round = |(index, out): (usize, &mut bf16)| *out = bf16::from_f32(element(index));
            out.par_iter_mut().enumerate().with_min_len(64).for_each(round);
        }
    }
}

fn dot<T: Copy + Into<f32>>(x: &[T], y: &[T]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += (*x).into() * (*y).into();
        }
    }
    sums.iter().sum()
}
