//! Memory for weights, from maps so long that the system backs them with large pages. Reading large pages is a
//! quarter faster, and a single matrix is too small for one. Weights that are loaded one after the other lie next to
//! each other.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapRaw;

use super::buffer;
use super::tile::Tile;
use crate::error::Result;

/// Tiles of a map. Its unused part costs no memory.
const MAP: usize = 64 << 10;

/// Hands out pieces of the newest map. A piece keeps its map alive.
#[derive(Default)]
pub struct Arena {
    rest: Mutex<Option<Piece>>,
}

/// Zeroed tiles that nothing else uses.
pub struct Piece {
    map: Arc<MmapRaw>,
    start: usize,
    len: usize,
}

impl Arena {
    /// Takes `len` tiles, next to those taken before if the map has room.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub fn take(&self, len: usize) -> Result<Piece> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = match rest.take().filter(|free| free.len >= len) {
            Some(free) => free,
            None => Piece::map(len.max(MAP))?,
        };
        let piece = Piece { map: Arc::clone(&free.map), start: free.start, len };
        (free.start, free.len) = (free.start + len, free.len - len);
        *rest = Some(free);
        Ok(piece)
    }
}

impl Piece {
    fn map(len: usize) -> Result<Self> {
        let map = buffer::map(len, size_of::<Tile>(), "weights")?;
        Ok(Self { map: Arc::new(map.into()), start: 0, len })
    }

    /// The address of the first byte, and the number of bytes.
    fn bytes(&self) -> (*mut u8, usize) {
        (self.map.as_mut_ptr().wrapping_add(self.start * size_of::<Tile>()), self.len * size_of::<Tile>())
    }
}

impl Deref for Piece {
    type Target = [Tile];
    fn deref(&self) -> &[Tile] {
        let (start, len) = self.bytes();
        // SAFETY: the bytes lie within the map, which is initialized, and pieces do not overlap.
        bytemuck::cast_slice(unsafe { std::slice::from_raw_parts(start, len) })
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [Tile] {
        let (start, len) = self.bytes();
        // SAFETY: as above; the piece is borrowed mutably, and no other piece has these bytes.
        bytemuck::cast_slice_mut(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }
}
