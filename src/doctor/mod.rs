//! Checks whether a device computes correct results. Each check runs an operation on the device and on the CPU, with
//! random inputs, edge cases and NaN.
//!
//! The tests run these checks on the SIMT runtime, which runs the kernels on the host. `codit doctor` runs them on a
//! GPU or on the CPU device, and compares with [`Isa::Reference`](crate::device::cpu::Isa::Reference). The reference
//! is portable code and uses none of the instruction sets under test.

use crate::device::inspect::Inspect;
use crate::error::{Error, Result};

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

/// Runs the checks of a family. Where the device fails, the results end with a check that says what the device said: the first
/// without a right result, since nothing is right after a failure.
///
/// # Errors
/// Other errors than those of the device.
pub fn examine<D: Inspect>(
    family: &'static str,
    checks: Checks<D>,
    on: &mut Comparison<'_, D>,
) -> Result<Vec<Check>> {
    let (mut checks, ended) = match checks(on) {
        Ok(checks) => (checks, None),
        Err(Error::Device(refusal)) => (Vec::new(), Some(refusal)),
        Err(error) => return Err(error),
    };
    // The first failure is kept; an error that ended the checks may be one of its consequences.
    if let Some(refusal) = failure(on.device).or(ended) {
        let first = checks.iter().position(|check| !check.passes()).unwrap_or(checks.len());
        let refused = checks.get(first).map(|check| check.clone().refused_with(refusal.clone()));
        checks.truncate(first);
        checks.push(refused.unwrap_or_else(|| Check::refused(family, refusal)));
    }
    Ok(checks)
}

/// What the device said when work on it failed for the first time, if any did. Waits for all work.
fn failure<D: Inspect>(device: &D) -> Option<String> {
    let mark = device.mark();
    device.seconds(&mark, &mark).err().map(|error| error.to_string())
}
