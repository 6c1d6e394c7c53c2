//! What the operations of a device take and give, beside its own buffers.

pub mod attention;
pub mod batch;
pub mod logits;
pub mod norm;
pub mod pass;
pub mod role;
pub mod routing;
pub mod tensor;
pub mod weight;
