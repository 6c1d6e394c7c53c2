//! Zeroed memory; the system may refuse it.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::{Arc, Weak};

use bytemuck::Pod;
use memmap2::{MmapMut, MmapRaw};

use crate::error::{Error, Result};

/// Numbers in anonymous memory. The system zeroes a page when it is first touched.
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

    /// A handle that populates its pages before they are touched.
    pub fn populating(&self) -> Populating {
        Populating { map: Arc::downgrade(&self.map), ready: 0 }
    }
}

/// A buffer whose pages are populated piece by piece. Zeroing pages takes the system long, so an otherwise idle core
/// does it while weights load.
pub struct Populating {
    map: Weak<MmapRaw>,
    /// Bytes from the start that are populated.
    ready: usize,
}

impl Populating {
    /// Populates `bytes` more, up to the buffer's end, if the system supports it.
    pub fn advance(&mut self, bytes: usize) {
        let Some(map) = self.map.upgrade() else { return };
        let bytes = bytes.min(map.len() - self.ready);
        // If this fails, as on old systems, pages are populated when they are touched.
        #[cfg(all(target_os = "linux", not(miri)))]
        let _ = map.advise_range(memmap2::Advice::PopulateWrite, self.ready, bytes);
        self.ready += bytes;
    }
}

/// `count` zeroed items of `size` bytes, to hold `what`.
pub fn map(count: usize, size: usize, what: &str) -> Result<MmapMut> {
    let refused = || {
        let mib = count as f64 * size as f64 / f64::from(1 << 20);
        Error::Device(format!(
            "no memory for {what}: {mib:.1} MiB more; end other programs, or raise the limit on memory (ulimit -v)"
        ))
    };
    let bytes = count.checked_mul(size).ok_or_else(refused)?;
    let map = MmapMut::map_anon(bytes.max(1)).map_err(|_| refused())?;
    // Large pages, where the system has them, make reading a quarter faster.
    #[cfg(all(target_os = "linux", not(miri)))]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the map is that long, page-aligned, initialized, and written through `&mut self` only; populating a
        // page does not change its contents.
        unsafe { slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}
