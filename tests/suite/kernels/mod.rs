//! Compares the kernels, run on the host by the SIMT runtime, with the CPU device. `codit doctor` runs the same
//! checks on a GPU.

mod attention;
mod candidates;
mod matmul;
mod mixture;
mod rows;
mod sample;
mod tiles;

use std::collections::BTreeSet;

use codit::Result;
use codit::device::cpu::Cpu;
use codit::device::gpu::GpuConfig;
use codit::device::simt::Simt;
use codit::device::simt::runtime::kernels;
use codit::device::{Dtype, Format};
use codit::doctor::{self, Check, Comparison, Numbers};

/// Runs a family's checks in bf16 and in f32, under a shuffled order of threads.
fn run(checks: impl Fn(&mut Comparison<'_, Simt>) -> Result<Vec<Check>>) {
    run_in([Format::of(Dtype::Bf16), Format::of(Dtype::F32)], checks);
}

/// Like [`run`], with an e4m3 cache.
fn run_with_e4m3_cache(checks: impl Fn(&mut Comparison<'_, Simt>) -> Result<Vec<Check>>) {
    let format = |weights| Format { weights, cache: Dtype::F8E4m3 };
    run_in([format(Dtype::Bf16), format(Dtype::F32)], checks);
}

/// Like [`run`], with weights and cache in e4m3.
fn run_with_e4m3(checks: impl Fn(&mut Comparison<'_, Simt>) -> Result<Vec<Check>>) {
    run_in([Format::of(Dtype::F8E4m3)], checks);
}

fn run_in<const N: usize>(
    formats: [Format; N],
    checks: impl Fn(&mut Comparison<'_, Simt>) -> Result<Vec<Check>>,
) {
    run_with(formats.map(GpuConfig::of), checks);
}

/// Like [`run`], on a deterministic device in bf16.
fn run_deterministic(checks: impl Fn(&mut Comparison<'_, Simt>) -> Result<Vec<Check>>) {
    let config = GpuConfig::of(Format::of(Dtype::Bf16));
    run_with([GpuConfig { is_deterministic: true, ..config }], checks);
}

fn run_with<const N: usize>(
    configs: [GpuConfig; N],
    checks: impl Fn(&mut Comparison<'_, Simt>) -> Result<Vec<Check>>,
) {
    for (seed, config) in (1..).zip(configs) {
        let format = config.formats[0];
        let device = Simt::simt_with(config, seed, false);
        let cpu = Cpu::new(None).unwrap().with_formats([format; 2]);
        let mut on = Comparison::new(&device, &cpu, seed);
        let checks = checks(&mut on).unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| !check.passes()).collect();
        assert!(failed.is_empty(), "{format:?}: {failed:#?}");
        assert!(!checks.is_empty());
    }
}

/// Formats that together use every kernel.
pub const FORMATS: [Format; 4] = [
    Format { weights: Dtype::Bf16, cache: Dtype::Bf16 },
    Format { weights: Dtype::F32, cache: Dtype::F32 },
    Format { weights: Dtype::F8E4m3, cache: Dtype::F8E4m3 },
    Format { weights: Dtype::F32, cache: Dtype::F8E4m3 },
];

/// The families that run kernels of a format's own: all in bf16, and those whose kernels differ by format in others.
pub fn families_of(format: Format) -> Vec<(&'static str, doctor::Checks<Simt>)> {
    let names: &[&str] = match (format.weights, format.cache) {
        (Dtype::Bf16, _) => return doctor::all(),
        (Dtype::F32, Dtype::F32) => &["rows", "matmul", "attention", "mixture", "gathered candidates"],
        (Dtype::F8E4m3, _) => &["matmul", "attention", "mixture"],
        _ => &["rows", "matmul", "attention"],
    };
    doctor::all().into_iter().filter(|(name, _)| names.contains(name)).collect()
}

/// The kernels that checks must launch: `rows.rs` tests copies of blocks, and random weights are only for measurements.
pub fn is_checked() -> impl Iterator<Item = &'static str> {
    let elsewhere = ["probe", "copy_block", "random_weight"];
    let names = kernels().into_iter().map(|kernel| kernel.name);
    names.filter(move |name| !elsewhere.iter().any(|part| name.starts_with(part)))
}

/// A check compares each kernel with the CPU device; it runs on the host here and on a GPU in `codit doctor`. Formats
/// other than bf16 run only the checks whose kernels differ by format.
#[test]
fn every_kernel_is_run_by_a_check() {
    let mut launched = BTreeSet::new();
    for format in FORMATS {
        let device = Simt::simt_with(GpuConfig::of(format), 1, false);
        let cpu = Cpu::new(None).unwrap().with_formats([format; 2]);
        let mut on = Comparison { device: &device, cpu: &cpu, numbers: Numbers(1), has_fault: false };
        for (name, checks) in families_of(format) {
            let checks =
                if name == "attention" && format != FORMATS[0] { doctor::attention::few } else { checks };
            checks(&mut on).unwrap();
        }
        launched.extend(device.runtime().launched());
    }
    let unchecked: Vec<_> = is_checked().filter(|name| !launched.contains(name)).collect();
    assert!(unchecked.is_empty(), "no check of src/doctor launches {unchecked:?}");
}
