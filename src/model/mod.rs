//! A model: its shape ([`spec`]), its mapped weights ([`weights`]) and its forward pass ([`decoder`]).

pub mod decoder;
mod family;
mod json_reader;
mod linear;
mod mixture;
mod mlp;
pub mod rope;
pub mod spec;
pub mod weights;

pub use decoder::Decoder;
pub use spec::Spec;
pub use weights::Weights;
