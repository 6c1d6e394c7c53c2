//! Launches and memory of the SIMT runtime (`kernels/simt/simt.h`).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::{ptr, slice};

use bytemuck::{AnyBitPattern, NoUninit, Pod};
use rayon::prelude::*;

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
    fn codit_simt_allocate(bytes: usize) -> *mut c_void;
    fn codit_simt_free(memory: *mut c_void);
    fn codit_simt_kernels(names: *mut *const c_char, params_bytes: *mut usize, capacity: usize) -> usize;
}

/// A kernel's geometry.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Its name on the KERNEL line.
    pub kernel: &'a str,
    /// Blocks, `[x, y, z]`.
    pub grid: [u32; 3],
    /// Threads a block, `[x, y, z]`.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory a block.
    pub shared_bytes: usize,
    /// Draws the order in which threads and blocks take their turns; 0 is index order.
    pub seed: u64,
}

impl Launch<'_> {
    /// Runs all blocks, on rayon's threads.
    ///
    /// # Errors
    ///
    /// Where the launch is refused, or a thread does what is undefined on a GPU: names kernel, block and thread.
    ///
    /// # Safety
    ///
    /// `params` are those of the kernel, and what they point to is valid for what the kernel does with it: a bound
    /// that the kernel gets wrong is memory unsafety here as on a GPU. Nothing else uses that memory meanwhile.
    pub unsafe fn run<P: NoUninit>(&self, params: &P) -> Result<(), String> {
        // SAFETY: as of the caller.
        unsafe { self.run_bytes(bytemuck::bytes_of(params)) }
    }

    /// As [`Launch::run`], given the bytes of the parameters.
    ///
    /// # Errors
    ///
    /// As [`Launch::run`].
    ///
    /// # Safety
    ///
    /// As of [`Launch::run`].
    pub unsafe fn run_bytes(&self, params: &[u8]) -> Result<(), String> {
        let kernel =
            CString::new(self.kernel).map_err(|_| "a kernel's name holds no zero byte".to_owned())?;
        let blocks: u64 = self.grid.iter().map(|&n| u64::from(n)).product();
        let parts = (rayon::current_num_threads() as u64).clamp(1, blocks.max(1));
        (0..parts).into_par_iter().try_for_each(|part| {
            let (first, end) = (blocks * part / parts, blocks * (part + 1) / parts);
            // SAFETY: as of the caller.
            unsafe { self.run_blocks(&kernel, params, first, end - first) }
        })
    }

    /// # Safety
    ///
    /// As of [`Launch::run`].
    unsafe fn run_blocks(&self, kernel: &CStr, params: &[u8], first: u64, blocks: u64) -> Result<(), String> {
        let mut message = [0_u8; 512];
        // SAFETY: all pointers are valid for the call, which copies `params` before it runs a kernel and writes no
        // more than `message.len()` bytes, with their zero; what the kernel does is as the caller says.
        let status = unsafe {
            codit_simt_run(
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
        if status == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&message).unwrap_or_default();
        Err(text.to_string_lossy().into_owned())
    }
}

/// Global memory: 256-byte aligned, at first every byte 0xFF.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns its bytes as a Box does.
unsafe impl Send for Memory {}
// SAFETY: shared access only reads; launches that write are `unsafe`.
unsafe impl Sync for Memory {}

impl Memory {
    /// `None` where there is no memory.
    pub fn new(bytes: usize) -> Option<Self> {
        // SAFETY: takes any size.
        let start = unsafe { codit_simt_allocate(bytes) };
        Some(Self { start: NonNull::new(start.cast())?, bytes })
    }

    /// Holding a copy of `values`. `None` where there is no memory.
    pub fn of<T: NoUninit>(values: &[T]) -> Option<Self> {
        let source: &[u8] = bytemuck::cast_slice(values);
        let memory = Self::new(source.len())?;
        // SAFETY: both are that long, and the second is new.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), memory.start.as_ptr(), source.len()) };
        Some(memory)
    }

    /// Its address, for a kernel's parameters.
    pub fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// As many whole `T` as it holds.
    ///
    /// # Panics
    ///
    /// Where `T` needs more than 256-byte alignment, or does not divide the length.
    pub fn as_slice<T: AnyBitPattern>(&self) -> &[T] {
        // SAFETY: allocated that long and initialised; only `unsafe` launches write without `&mut self`.
        bytemuck::cast_slice::<u8, T>(unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) })
    }

    /// As [`Memory::as_slice`], to be written.
    ///
    /// # Panics
    ///
    /// As [`Memory::as_slice`].
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and `self` is borrowed alone.
        bytemuck::cast_slice_mut(unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it came from codit_simt_allocate and is freed once.
        unsafe { codit_simt_free(self.start.as_ptr().cast()) }
    }
}

/// A kernel of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Its name on the KERNEL line.
    pub name: &'static str,
    /// Size of its parameters.
    pub params_bytes: usize,
}

/// All kernels, in no order.
pub fn kernels() -> Vec<Kernel> {
    // SAFETY: a capacity of zero writes nothing.
    let count = unsafe { codit_simt_kernels(ptr::null_mut(), ptr::null_mut(), 0) };
    let (mut names, mut sizes) = (vec![ptr::null(); count], vec![0; count]);
    // SAFETY: both have room for `count`. Kernels are registered before main: there are as many as before.
    unsafe { codit_simt_kernels(names.as_mut_ptr(), sizes.as_mut_ptr(), count) };
    let kernel = |(name, params_bytes)| {
        // SAFETY: names are string literals of the library.
        let name = unsafe { CStr::from_ptr::<'static>(name) };
        Kernel { name: name.to_str().unwrap_or_default(), params_bytes }
    };
    names.into_iter().zip(sizes).map(kernel).collect()
}
