//! Zeroed memory that the system may refuse.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::{Arc, Weak};

use bytemuck::Pod;
use memmap2::{MmapMut, MmapRaw};

use crate::error::{Error, Result};

/// Numbers, zeroed by the system page by page as they are first touched.
pub struct Buffer<T = f32> {
    map: Arc<MmapRaw>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// `rows * width` zeros, to hold `what`.
    pub fn zeroed(rows: usize, width: usize, what: &str) -> Result<Self> {
        Ok(Self {
            map: Arc::new(map(rows, width.saturating_mul(size_of::<T>()), what)?.into()),
            len: rows.saturating_mul(width),
            of: PhantomData,
        })
    }

    /// What makes its pages ready before they are touched.
    pub fn populating(&self) -> Populating {
        Populating { map: Arc::downgrade(&self.map), ready: 0 }
    }
}

/// A buffer whose pages are made ready piece by piece: the system takes long to zero them, and a core that does so while
/// it has nothing else to do spares those that compute later.
pub struct Populating {
    map: Weak<MmapRaw>,
    /// Bytes from the start.
    ready: usize,
}

impl Populating {
    /// Makes `bytes` more ready, as far as the buffer goes and the system can.
    pub fn advance(&mut self, bytes: usize) {
        let Some(map) = self.map.upgrade() else { return };
        let bytes = bytes.min(map.len() - self.ready);
        // Where it fails, on old systems, pages are made ready as they are touched.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::PopulateWrite, self.ready, bytes);
        self.ready += bytes;
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

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the map is that long, aligned to a page, initialized, and written through `&mut self` alone: making a
        // page ready does not change what it holds.
        unsafe { slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}
