//! Zeroed memory that the system may refuse.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// f32s, zeroed by the system page by page as they are first touched.
pub struct Buffer {
    map: MmapMut,
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
        let map = MmapMut::map_anon(bytes.max(1)).map_err(|_| refused())?;
        // Large pages, where the system has them, make reading the cache a quarter faster; it works without.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, len })
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(&self.map[..self.len * size_of::<f32>()])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.map[..self.len * size_of::<f32>()])
    }
}
