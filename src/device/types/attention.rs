//! Shapes of attention and of its cache.

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
    /// The cache's layer.
    pub layer: usize,
}

/// Shape of one model's plane of the paged cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers that hold keys and values.
    pub layers: usize,
    /// Key/value heads.
    pub heads: usize,
    /// Query heads that share a key/value head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub blocks: usize,
}
