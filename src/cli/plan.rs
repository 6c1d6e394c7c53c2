//! `codit plan`: what a pair takes of a GPU, and what fits beside it.

use std::process::ExitCode;

use serde_json::json;

use super::bytes;
use super::device::part;
use super::format::FormatArgs;
use super::models::Models;
use crate::bench::shapes;
use crate::device::cuda::Gpu;
use crate::device::launch::{BATCHED_TOKENS, LauncherConfig};
use crate::device::{Device, Dtype, Format};
use crate::engine::EngineConfig;
use crate::engine::footprint::Footprint;
use crate::error::Result;
use crate::model::spec::Spec;

/// That of the GPUs that such pairs are usually run on.
const USUAL_MEMORY: usize = 80 << 30;
/// Contexts for which the plan says how many rows fit.
const CONTEXTS: [usize; 4] = [1024, 2048, 4096, 8192];

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    models: Models,
    /// The shape of a published model, or a config.json, for both models, in place of checkpoints
    #[arg(long, value_name = "NAME", conflicts_with_all = ["pair", "expert", "amateur"])]
    shape: Option<String>,
    /// The GPU's memory [default: that of the GPU of this machine; 80GiB where there is none]
    #[arg(long, value_parser = bytes::parse, value_name = "SIZE")]
    gpu_memory: Option<usize>,
    /// Part of the GPU's memory that may be used in all
    #[arg(long, value_name = "PART", default_value_t = 0.9, value_parser = part)]
    gpu_memory_utilization: f64,
    #[command(flatten)]
    format: FormatArgs,
    /// Sequences decoded at once
    #[arg(long, default_value_t = 256)]
    max_num_seqs: usize,
    /// Tokens a step, prefill and decode together
    #[arg(long, value_name = "N")]
    max_num_batched_tokens: Option<usize>,
    /// Tokens a cache block
    #[arg(long, default_value_t = 16, value_name = "N")]
    block_size: usize,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Prints the plan.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let config = EngineConfig {
        max_num_seqs: args.max_num_seqs,
        max_num_batched_tokens: args.max_num_batched_tokens,
        block_size: args.block_size,
        ..EngineConfig::default()
    };
    let shape = config.shape(BATCHED_TOKENS)?;
    let (expert, amateur) = args.specs()?;
    let formats = args.format.formats()?;
    let amateur = amateur.as_ref().map(|spec| (spec, formats[1]));
    let footprint = Footprint::new((&expert, formats[0]), amateur, &shape)?;
    let gpu_memory = args.gpu_memory();
    let usable = (gpu_memory as f64 * args.gpu_memory_utilization) as usize;
    let tokens = footprint.blocks_in(usable) * args.block_size;
    let rows = CONTEXTS.map(|context| (context, (tokens / context).min(args.max_num_seqs)));
    if args.json {
        let plan = json!({
            "weights_bytes": [footprint.expert.weights, footprint.amateur.map(|model| model.weights)],
            "workspace_bytes": [footprint.expert.workspace, footprint.amateur.map(|model| model.workspace)],
            "fixed_bytes": footprint.fixed(),
            "cache_bytes_per_token": footprint.block() as f64 / args.block_size as f64,
            "usable_bytes": usable,
            "cache_tokens": tokens,
            "rows": rows.map(|(context, rows)| json!({"context": context, "rows": rows})),
        });
        println!("{plan:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{footprint}\n");
    println!(
        "{} x {} = {} may be used; {} of it for the cache: {tokens} tokens",
        bytes::show(gpu_memory),
        args.gpu_memory_utilization,
        bytes::show(usable),
        bytes::show(usable.saturating_sub(footprint.fixed())),
    );
    println!("CUDA itself and its graphs take some of it too: 1 GiB more or less, which only a GPU can tell");
    if tokens == 0 {
        println!("the pair does not fit; lower max-num-batched-tokens or max-num-seqs, or take a larger GPU");
        return Ok(ExitCode::FAILURE);
    }
    for (context, rows) in rows {
        println!("{rows:>6} rows at once of {context} tokens each");
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn gpu_memory(&self) -> usize {
        let of_this_machine = || {
            let gpu = Gpu::cuda(LauncherConfig::of(Format::of(Dtype::Bf16))).ok()?;
            gpu.memory_info().ok()?.map(|memory| memory.total)
        };
        self.gpu_memory.or_else(of_this_machine).unwrap_or(USUAL_MEMORY)
    }

    fn specs(&self) -> Result<(Spec, Option<Spec>)> {
        if let Some(name) = &self.shape {
            let spec = shapes::find(name)?;
            return Ok((spec.clone(), Some(spec)));
        }
        let (expert, amateur) = self.models.open_configs()?;
        Ok((Spec::open(&expert)?, amateur.as_ref().map(Spec::open).transpose()?))
    }
}
