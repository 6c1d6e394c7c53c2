//! `codit doctor`: what the device is, and whether it computes what it should.

use std::process::ExitCode;

use crate::cli::args::device::{DeviceArgs, Devices, Task};
use crate::cli::args::format;
use codit::bench::ceilings::Ceilings;
use codit::device::Device;
use codit::device::cpu::Cpu;
use codit::doctor::{self, Check, Comparison, Numbers};
use codit::error::Result;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Seed of the inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Checks and prints; fails if a check does.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut passed = true;
    for device in args.device.in_each_mode()? {
        passed &= device.run(Doctor { args })? == ExitCode::SUCCESS;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Doctor<'a> {
    args: &'a Args,
}

impl Task for Doctor<'_> {
    /// Checks each GPU, and the first two as the places of a split pair.
    fn run<D: Device>(self, devices: &Devices<'_, D>) -> Result<ExitCode> {
        let mut failed = 0;
        for gpu in &devices.gpus {
            failed += self.check(&|| devices.on([*gpu; 2]))?;
        }
        if let [expert, amateur, ..] = devices.gpus[..] {
            let open = || devices.on([expert, amateur]);
            println!("\n{}", open()?.describe());
            failed += report("split golden pair", &doctor::pair::checks(&open)?);
        }
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Doctor<'_> {
    /// How many checks failed on the device that `open` gives.
    fn check<D: Device>(&self, open: &dyn Fn() -> Result<D>) -> Result<usize> {
        let device = open()?;
        let cpu = Cpu::new(None)?.with_formats([device.format(); 2]);
        let mode = if device.is_deterministic() { ", deterministic" } else { "" };
        println!("\n{}\n{}{mode}", device.describe(), format::describe(&device));
        println!(
            "{:<18} {:>6} {:>6} {:>12} {:>10}  worst case",
            "", "checks", "failed", "worst error", "bound"
        );
        let mut on = Comparison { device: &device, cpu: &cpu, numbers: Numbers(self.args.seed) };
        let mut failed = 0;
        for (operation, checks) in doctor::all() {
            failed += report(operation, &checks(&mut on)?);
        }
        failed += report("golden pair", &doctor::pair::checks(open)?);
        let ceilings = Ceilings::measure(&device)?;
        println!(
            "copy {:.1} GB/s, matmul {:.3} TFLOP/s",
            ceilings.bandwidth / 1e9,
            ceilings.matmul_rate / 1e12
        );
        Ok(failed)
    }
}

/// One line of the table; returns how many checks failed.
fn report(operation: &str, checks: &[Check]) -> usize {
    let failed = checks.iter().filter(|check| !check.passes()).count();
    let share = |check: &Check| {
        if check.error.is_nan() { f64::INFINITY } else { check.error / check.bound.max(f64::MIN_POSITIVE) }
    };
    let worst = checks.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
    let (error, bound, case) = worst.map_or((0.0, 0.0, ""), |c| (c.error, c.bound, c.case.as_str()));
    let count = checks.len();
    println!("{operation:<18} {count:>6} {failed:>6} {error:>12.2e} {bound:>10.0e}  {case}");
    failed
}
