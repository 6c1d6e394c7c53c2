//! Zeroed, aligned memory that the system may refuse.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// A cache line, and the widest vector.
const ALIGNMENT: usize = 64;

/// f32s, zeroed by the system page by page as they are first touched.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
    layout: Layout,
}

// SAFETY: a Buffer owns its memory alone, as a Vec does.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `rows * width` zeros, to hold `what`.
    pub fn zeroed(rows: usize, width: usize, what: &str) -> Result<Self> {
        let refused = || {
            let gib = rows as f64 * width as f64 * 4.0 / f64::from(1 << 30);
            Error::Device(format!("no memory for {what}: {gib:.2} GiB"))
        };
        let len = rows.checked_mul(width).ok_or_else(refused)?;
        let bytes = len.checked_mul(size_of::<f32>()).ok_or_else(refused)?;
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), ALIGNMENT).map_err(|_| refused())?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start.cast::<f32>()).ok_or_else(refused)?;
        Ok(Self { start, len, layout })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `zeroed` with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialized f32s that this Buffer owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}
