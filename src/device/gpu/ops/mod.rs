//! The operations of a GPU device: geometry and arguments of every launch, one family a file.

pub mod attention;
pub mod candidates;
pub mod grouped_matmul;
pub mod matrix;
pub mod mixture;
pub mod random_weight;
pub mod rows;
pub mod sample;
pub mod tile;
