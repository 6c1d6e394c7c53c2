//! `codit bench`: how fast a device decodes a pair, and what of its ceilings that is.

use std::process::ExitCode;

use super::device::{DeviceArgs, Devices, Task};
use super::shortcuts::ShortcutArgs;
use crate::bench::{self, Load, Report, shapes};
use crate::contrast::Contrast;
use crate::device::Device;
use crate::error::{Error, Result};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The shape of a published model, or a config.json, for both models: llama-3.1-8b, qwen3-8b, ...
    #[arg(long, value_name = "NAME", default_value = "smollm2-135m")]
    shape: String,
    /// The amateur's shape, if it is another
    #[arg(long, value_name = "NAME")]
    amateur_shape: Option<String>,
    /// Sequences at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    input_len: u32,
    /// Tokens of each response
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(32..))]
    output_len: u32,
    /// Tokens a step, prefill and decode together [default: as suits the device]
    #[arg(long, value_name = "N")]
    max_num_batched_tokens: Option<usize>,
    /// Plausibility
    #[arg(long, default_value_t = 0.01)]
    alpha: f64,
    /// Weight of the amateur's log-probability
    #[arg(long, default_value_t = 1.0)]
    beta: f64,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shortcuts: ShortcutArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    args.device.run(Bench { args })
}

struct Bench<'a> {
    args: &'a Args,
}

impl Task for Bench<'_> {
    fn run<D: Device>(self, devices: &Devices<'_, D>) -> Result<ExitCode> {
        let args = self.args;
        let contrast = Contrast { alpha: args.alpha, beta: args.beta, ..Contrast::default() };
        contrast.validate()?;
        let expert = shapes::find(&args.shape)?;
        let amateur = shapes::find(args.amateur_shape.as_ref().unwrap_or(&args.shape))?;
        let load = Load {
            expert: &expert,
            amateur: &amateur,
            rows: args.rows as usize,
            input_len: args.input_len as usize,
            output_len: args.output_len as usize,
            block_size: 16,
            max_num_batched_tokens: args.max_num_batched_tokens,
            contrast,
            shortcuts: args.shortcuts.shortcuts(),
        };
        let report = bench::run(&|| devices.first(), &load)?;
        if args.json {
            let text = serde_json::to_string_pretty(&report);
            println!("{}", text.map_err(|error| Error::Device(format!("cannot print the report: {error}")))?);
        } else {
            print(&report);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(report: &Report) {
    println!("ceilings, measured: copy {:.1} GB/s", report.copy_bandwidth / 1e9);
    println!("                    matmul {:.3} TFLOP/s", report.matmul_rate / 1e12);
    println!();
    println!(
        "{:<16} {:>6} {:>11} {:>11} {:>11} {:>9} {:>9}",
        "decode step", "calls", "us", "MB", "MFLOP", "of copy", "of matmul"
    );
    for operation in &report.operations {
        println!(
            "{:<16} {:>6} {:>11.1} {:>11.2} {:>11.1} {:>8.1}% {:>8.1}%",
            operation.name,
            operation.calls,
            operation.seconds * 1e6,
            operation.bytes as f64 / 1e6,
            operation.operations as f64 / 1e6,
            operation.bandwidth_fraction * 100.0,
            operation.matmul_fraction * 100.0,
        );
    }
    println!();
    println!("decode step    {:>12.1} us, both models", report.decode_step_seconds * 1e6);
    println!(
        "serial floor   {:>12.1} us, {:.1}% of the step",
        report.decode_floor_seconds * 1e6,
        report.fraction_of_floor * 100.0
    );
    println!("idle share     {:>12.2} %", report.idle_share * 100.0);
    println!("prefill        {:>12.1} tokens/s", report.prefill_tokens_per_second);
    println!("decoded        {:>12.1} tokens/s, prefill included", report.tokens_per_second);
}
