//! The kernels, on their stand-in on the host, against the CPU device: the same checks that `codit doctor` runs on a GPU.

mod attention;
mod mixture;
mod rows;
mod sample;

use codit::Result;
use codit::device::Dtype;
use codit::device::cpu::Cpu;
use codit::device::simt::Simt;
use codit::doctor::{Check, Comparison, Numbers};

/// Runs a family's checks in both number formats, under a shuffled order of threads.
fn run(checks: impl Fn(&mut Comparison<'_, Simt>) -> Result<Vec<Check>>) {
    for (seed, dtype) in [(1, Dtype::Bf16), (2, Dtype::F32)] {
        let (device, cpu) = (Simt::simt(dtype, seed), Cpu::new(None).unwrap());
        let mut on = Comparison { device: &device, cpu: &cpu, numbers: Numbers(seed) };
        let checks = checks(&mut on).unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| !check.passes()).collect();
        assert!(failed.is_empty(), "{dtype:?}: {failed:#?}");
        assert!(!checks.is_empty());
    }
}
