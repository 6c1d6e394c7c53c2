//! Zeroed, aligned memory that the system may refuse.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// f32s in pages of their own, zeroed by the system as they are first touched. (The allocator would touch all of
/// them at once for an alignment above its own.)
pub struct Buffer {
    /// At least one byte, as a map must have.
    pages: MmapMut,
    len: usize,
}

impl Buffer {
    /// `rows * width` zeros, to hold `what`.
    pub fn zeroed(rows: usize, width: usize, what: &str) -> Result<Self> {
        let refused = || {
            let gib = rows as f64 * width as f64 * 4.0 / f64::from(1 << 30);
            Error::Device(format!("no memory for {what}: {gib:.2} GiB"))
        };
        let len = rows.checked_mul(width).ok_or_else(refused)?;
        let bytes = len.checked_mul(size_of::<f32>()).ok_or_else(refused)?;
        let pages = MmapMut::map_anon(bytes.max(1)).map_err(|_| refused())?;
        Ok(Self { pages, len })
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(&self.pages[..self.len * size_of::<f32>()])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.pages[..self.len * size_of::<f32>()])
    }
}
