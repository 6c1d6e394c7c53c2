//! How fast a device decodes a pair, and what of its ceilings that is.

pub mod shapes;
