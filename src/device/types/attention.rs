//! Shapes of attention and of its cache.

use std::ops::{Index, IndexMut};

/// The layout of a model's query, key and value projections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key/value heads; divides `query`.
    pub key_value: usize,
    /// Width of a head.
    pub dim: usize,
}

impl Heads {
    /// Width of the joined q|k|v projection.
    pub fn qkv_width(&self) -> usize {
        (self.query + 2 * self.key_value) * self.dim
    }

    /// Width of the attention's output.
    pub fn query_width(&self) -> usize {
        self.query * self.dim
    }
}

/// The parameters of attention that are the same in every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query and key/value heads.
    pub heads: Heads,
    /// The factor of the products of queries and keys.
    pub scale: f32,
    /// How many positions a token attends to, its own included; `None` for all.
    pub window: Option<usize>,
    /// The layer's place in the cache.
    pub layer: CacheLayer,
}

/// How far back a layer looks, and so how long its keys and values are kept. Each kind of layer has its own blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// Its tokens see all positions before them.
    Full,
    /// Its tokens see the last positions only, a sliding window.
    Windowed,
}

impl LayerKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Full, Self::Windowed];
}

/// One value for each kind of layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerKind<T> {
    /// That of the layers that see all positions.
    pub full: T,
    /// That of the layers with a window.
    pub windowed: T,
}

impl<T> PerKind<T> {
    /// `make`'s value for each kind.
    pub fn of(mut make: impl FnMut(LayerKind) -> T) -> Self {
        Self { full: make(LayerKind::Full), windowed: make(LayerKind::Windowed) }
    }

    /// A value for models without a window.
    pub fn only_full(full: T) -> Self
    where
        T: Default,
    {
        Self { full, windowed: T::default() }
    }
}

impl<T> Index<LayerKind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: LayerKind) -> &T {
        match kind {
            LayerKind::Full => &self.full,
            LayerKind::Windowed => &self.windowed,
        }
    }
}

impl<T> IndexMut<LayerKind> for PerKind<T> {
    fn index_mut(&mut self, kind: LayerKind) -> &mut T {
        match kind {
            LayerKind::Full => &mut self.full,
            LayerKind::Windowed => &mut self.windowed,
        }
    }
}

/// A layer's place in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLayer {
    /// Its kind.
    pub kind: LayerKind,
    /// Its number among the layers of its kind.
    pub index: usize,
}

impl CacheLayer {
    /// The layer of this number among those that see all positions.
    pub fn full(index: usize) -> Self {
        Self { kind: LayerKind::Full, index }
    }
}

/// Shape of one model's plane of the paged cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers that hold keys and values.
    pub layers: PerKind<usize>,
    /// Key/value heads.
    pub heads: usize,
    /// Query heads that share a key/value head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// Blocks in the pool of each kind.
    pub blocks: PerKind<usize>,
}
