//! The paged KV cache: the pool of blocks that both models share, the prefix index over them, and a sequence's block table.

pub mod block_table;
pub mod pool;
pub mod prefix_index;
