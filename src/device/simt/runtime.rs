//! Launches kernels on the SIMT runtime and manages its memory (`kernels/simt/simt.h`).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::{ptr, slice};

use bytemuck::{AnyBitPattern, NoUninit, Pod};
use rayon::prelude::*;

use super::code::{Code, Loaded};

// kernels/simt/simt.h
unsafe extern "C" {
    fn codit_simt_run(
        kernel: *const c_char,
        params: *const c_void,
        params_bytes: usize,
        grid: *const u32,
        block: *const u32,
        shared_bytes: usize,
        seed: u64,
        first_block: u64,
        blocks: u64,
        message: *mut c_char,
        capacity: usize,
    ) -> c_int;
    fn codit_ptx_run(
        loaded: *const Loaded,
        kernel: *const c_char,
        params: *const c_void,
        params_bytes: usize,
        grid: *const u32,
        block: *const u32,
        shared_bytes: usize,
        seed: u64,
        first_block: u64,
        blocks: u64,
        message: *mut c_char,
        capacity: usize,
    ) -> c_int;
    fn codit_simt_allocate(bytes: usize) -> *mut c_void;
    fn codit_simt_free(memory: *mut c_void);
    fn codit_simt_kernels(names: *mut *const c_char, params_bytes: *mut usize, capacity: usize) -> usize;
}

/// A kernel and the geometry of its launch.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The kernel's name on its KERNEL line.
    pub kernel: &'a str,
    /// Blocks of the grid, `[x, y, z]`.
    pub grid: [u32; 3],
    /// Threads per block, `[x, y, z]`.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory per block.
    pub shared_bytes: usize,
    /// Seed of the order in which threads and blocks run; 0 is index order.
    pub seed: u64,
}

impl Launch<'_> {
    /// Runs all blocks of the kernel that the host's compiler built, on rayon's threads.
    ///
    /// # Errors
    ///
    /// If the runtime refuses the launch, or if a thread does something that is undefined on a GPU. The message of
    /// such a fault names the kernel, the block and the thread.
    ///
    /// # Safety
    ///
    /// `params` must be the parameters of this kernel, and every address in it must be valid for the kernel's
    /// accesses. A wrong bound in the kernel breaks memory safety here, as on a GPU. Nothing else may use that memory
    /// during the call.
    pub unsafe fn run<P: NoUninit>(&self, params: &P) -> Result<(), String> {
        // SAFETY: the caller upholds the contract, which is the same for both functions.
        unsafe { self.run_bytes(&Code::Host, bytemuck::bytes_of(params)) }
    }

    /// As [`Launch::run`], from any code and given the bytes of the parameters.
    ///
    /// # Errors
    ///
    /// As [`Launch::run`].
    ///
    /// # Safety
    ///
    /// The same as for [`Launch::run`].
    pub unsafe fn run_bytes(&self, code: &Code, params: &[u8]) -> Result<(), String> {
        let kernel =
            CString::new(self.kernel).map_err(|_| "a kernel's name holds no zero byte".to_owned())?;
        let blocks: u64 = self.grid.iter().map(|&n| u64::from(n)).product();
        let parts = (rayon::current_num_threads() as u64).clamp(1, blocks.max(1));
        (0..parts).into_par_iter().try_for_each(|part| {
            let (first, end) = (blocks * part / parts, blocks * (part + 1) / parts);
            // SAFETY: the caller upholds the contract; each part runs other blocks of the same launch.
            unsafe { self.run_blocks(code, &kernel, params, first, end - first) }
        })
    }

    /// # Safety
    ///
    /// The same as for [`Launch::run`].
    unsafe fn run_blocks(
        &self,
        code: &Code,
        kernel: &CStr,
        params: &[u8],
        first: u64,
        blocks: u64,
    ) -> Result<(), String> {
        let mut message = [0_u8; 512];
        macro_rules! run {
            ($function:ident, $($loaded:expr)?) => {
                $function(
                    $($loaded,)?
                    kernel.as_ptr(),
                    params.as_ptr().cast(),
                    params.len(),
                    self.grid.as_ptr(),
                    self.block.as_ptr(),
                    self.shared_bytes,
                    self.seed,
                    first,
                    blocks,
                    message.as_mut_ptr().cast(),
                    message.len(),
                )
            };
        }
        // SAFETY: all pointers are valid for the call. The call copies `params` before it runs a kernel and writes at
        // most `message.len()` bytes, including the zero byte. The caller vouches for the kernel's own accesses.
        let status = unsafe {
            match code {
                Code::Host => run!(codit_simt_run,),
                Code::Ptx(ptx) => run!(codit_ptx_run, ptx.as_ptr()),
            }
        };
        if status == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&message).unwrap_or_default();
        Err(text.to_string_lossy().into_owned())
    }
}

/// Global memory, aligned to 256 bytes. Every byte starts as 0xFF.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `Memory` is the only owner of its bytes, as a Box is.
unsafe impl Send for Memory {}
// SAFETY: shared access only reads; launches that write are `unsafe`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Allocates memory; `None` if there is too little.
    pub fn new(bytes: usize) -> Option<Self> {
        // SAFETY: the function accepts any size.
        let start = unsafe { codit_simt_allocate(bytes) };
        Some(Self { start: NonNull::new(start.cast())?, bytes })
    }

    /// Memory that holds a copy of `values`; `None` if there is too little.
    pub fn of<T: NoUninit>(values: &[T]) -> Option<Self> {
        let source: &[u8] = bytemuck::cast_slice(values);
        let memory = Self::new(source.len())?;
        // SAFETY: both regions have `source.len()` bytes, and the new allocation does not overlap the source.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), memory.start.as_ptr(), source.len()) };
        Some(memory)
    }

    /// The address, for a kernel's parameters.
    pub fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    /// The length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The contents as values of type `T`.
    ///
    /// # Panics
    ///
    /// If `T` needs more than 256-byte alignment, or if its size does not divide the length.
    pub fn as_slice<T: AnyBitPattern>(&self) -> &[T] {
        // SAFETY: the allocation has `self.bytes` initialized bytes. Without `&mut self`, only `unsafe` launches
        // write to it.
        bytemuck::cast_slice::<u8, T>(unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) })
    }

    /// As [`Memory::as_slice`], but writable.
    ///
    /// # Panics
    ///
    /// As [`Memory::as_slice`].
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; `&mut self` excludes any other borrow.
        bytemuck::cast_slice_mut(unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the address came from codit_simt_allocate, and drop runs once.
        unsafe { codit_simt_free(self.start.as_ptr().cast()) }
    }
}

/// A kernel that is built into this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// The name on its KERNEL line.
    pub name: &'static str,
    /// Size of its parameters in bytes.
    pub params_bytes: usize,
}

/// All kernels, in arbitrary order.
pub fn kernels() -> Vec<Kernel> {
    // SAFETY: with a capacity of zero, the function writes nothing.
    let count = unsafe { codit_simt_kernels(ptr::null_mut(), ptr::null_mut(), 0) };
    let (mut names, mut sizes) = (vec![ptr::null(); count], vec![0; count]);
    // SAFETY: both arrays have room for `count` entries. Kernels register before main, so their number has not
    // changed.
    unsafe { codit_simt_kernels(names.as_mut_ptr(), sizes.as_mut_ptr(), count) };
    let kernel = |(name, params_bytes)| {
        // SAFETY: the names are string literals of the library, so they live as long as the program.
        let name = unsafe { CStr::from_ptr::<'static>(name) };
        Kernel { name: name.to_str().unwrap_or_default(), params_bytes }
    };
    names.into_iter().zip(sizes).map(kernel).collect()
}
