//! Checks whether a device computes correct results. Each check runs an operation on the device and on the CPU, with
//! random inputs, edge cases and NaN.
//!
//! The tests run these checks on the SIMT runtime, which runs the kernels on the host. `codit doctor` runs them on a
//! GPU or on the CPU device, and compares with [`Isa::Reference`](crate::device::cpu::Isa::Reference). The reference
//! is portable code and uses none of the instruction sets under test.

use crate::device::inspect::Inspect;
use crate::error::Result;

pub mod attention;
pub mod candidates;
pub mod comparison;
pub mod decided_by_expert;
pub mod matmul;
pub mod mixture;
pub mod pair;
pub mod rows;
pub mod sample;

pub mod verdict;

pub use comparison::{Check, Comparison, Numbers, as_cpu, relative_error};

/// A family of checks.
pub type Checks<D> = fn(&mut Comparison<'_, D>) -> Result<Vec<Check>>;

/// All families with their names.
pub fn all<D: Inspect>() -> Vec<(&'static str, Checks<D>)> {
    vec![
        ("rows", rows::checks::<D>),
        ("matmul", matmul::checks::<D>),
        ("attention", attention::checks::<D>),
        ("mixture", mixture::checks::<D>),
        ("contrast_sample", sample::checks::<D>),
        ("gathered candidates", candidates::checks::<D>),
        ("decided by the expert", decided_by_expert::checks::<D>),
    ]
}
