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
        Ok(Self {
            map: map(rows, width.saturating_mul(size_of::<f32>()), what)?,
            len: rows.saturating_mul(width),
        })
    }
}

/// `count` zeroed items of `size` bytes, to hold `what`.
pub fn map(count: usize, size: usize, what: &str) -> Result<MmapMut> {
    let refused = || {
        let gib = count as f64 * size as f64 / f64::from(1 << 30);
        Error::Device(format!("no memory for {what}: {gib:.2} GiB"))
    };
    let bytes = count.checked_mul(size).ok_or_else(refused)?;
    let map = MmapMut::map_anon(bytes.max(1)).map_err(|_| refused())?;
    // Large pages, where the system has them, make reading a quarter faster; it works without.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
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
