//! Number formats: the e4m3 format of eight bits, and conversions between formats.

pub mod convert;
pub mod dtype;
pub mod e4m3;
pub mod quantize;
