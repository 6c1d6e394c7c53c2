//! The paged KV cache: the pool of block ids that both models share.

pub mod pool;
