//! The paged KV cache: the pools of blocks that both models share, the prefix index over them, and a sequence's block table.

pub mod block_table;
pub mod division;
pub mod pool;
pub mod pools;
pub mod prefix_index;
pub mod window;
