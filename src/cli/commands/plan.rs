//! `codit plan`: what a pair takes of a GPU, where it fits, and what fits beside it.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use crate::cli::args::bytes;
use crate::cli::args::device::part;
use crate::cli::args::format::FormatArgs;
use crate::cli::args::models::Models;
use crate::cli::args::shortcuts::ShortcutArgs;
use crate::cli::ui::output::Output;
use crate::cli::ui::table::table;
use codit::bench::shapes;
use codit::device::cuda::{Cuda, Gpu};
use codit::device::gpu::{BATCHED_TOKENS, GpuConfig};
use codit::device::{Device, Dtype, Format};
use codit::engine::footprint::Footprint;
use codit::engine::{EngineConfig, Shortcuts};
use codit::error::{Result, number};
use codit::model::spec::Spec;
use codit::pairs::PairPreset;

/// That of the GPUs that such pairs are usually run on.
const USUAL_MEMORY: usize = 80 << 30;
/// Contexts for which the plan says how many rows fit.
const CONTEXTS: [usize; 4] = [1024, 2048, 4096, 8192];

#[derive(clap::Args)]
pub struct Args {
    /// The shape of a published model, or a config.json, for both models, in place of checkpoints
    #[arg(long, value_name = "NAME", conflicts_with_all = ["pair", "expert", "amateur"])]
    shape: Option<String>,
    /// The GPU's memory [default: that of this machine's GPU; 80GiB if there is none]
    #[arg(long, value_parser = bytes::parse, value_name = "SIZE")]
    gpu_memory: Option<usize>,
    /// How many such GPUs there are [default: those of this machine; 1 if there is none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    gpus: Option<u16>,
    /// Share of the GPU's memory that may be used in all
    #[arg(long, value_name = "PART", default_value_t = 0.9, value_parser = part)]
    gpu_memory_utilization: f64,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    shortcuts: ShortcutArgs,
    /// Sequences decoded at once
    #[arg(long, default_value_t = 256)]
    max_num_seqs: usize,
    /// Tokens per step, prefill and decode together
    #[arg(long, value_name = "N")]
    max_num_batched_tokens: Option<usize>,
    /// Tokens per cache block
    #[arg(long, default_value_t = 16, value_name = "N")]
    block_size: usize,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    // Last, since its heading would hold what follows.
    #[command(flatten)]
    models: Models,
}

/// Prints the plan.
pub fn run(args: &Args) -> Result<ExitCode> {
    let config = EngineConfig {
        max_num_seqs: args.max_num_seqs,
        max_num_batched_tokens: args.max_num_batched_tokens,
        block_size: args.block_size,
        ..EngineConfig::default()
    };
    let shortcuts = args.shortcuts.shortcuts().unwrap_or(Shortcuts::NONE);
    let pair_config = config.pair_config(BATCHED_TOKENS, shortcuts)?;
    let (expert, amateur, source) = args.specs()?;
    let formats = args.format.formats()?;
    let footprint = |is_split| {
        let amateur = amateur.as_ref().map(|spec| (spec, formats[1]));
        Footprint::new((&expert, formats[0]), amateur, &pair_config, is_split)
    };
    let (together, split) = (footprint(false)?, footprint(true)?);
    let (gpu_memory, gpus) = (args.gpu_memory(), args.gpus());
    let usable = (gpu_memory as f64 * args.gpu_memory_utilization) as usize;
    let mut fits = vec![Fit::new(&together, 1, usable, args)];
    if gpus > 1 {
        fits.push(Fit::new(&together, gpus, usable, args));
    }
    if amateur.is_some() {
        fits.push(Fit::new(&split, 1, usable, args));
        if gpus > 3 {
            fits.push(Fit::new(&split, gpus / 2, usable, args));
        }
    }
    let found = fits.iter().any(|fit| fit.gpus <= gpus && fit.cache_tokens > 0);
    if args.json {
        let share = together.shares()[0];
        Output.write_json(&json!({
            "weights_bytes": [together.expert.weights, together.amateur.map(|model| model.weights)],
            "workspace_bytes": [together.expert.workspace, together.amateur.map(|model| model.workspace)],
            "fixed_bytes": share.fixed,
            "cache_bytes_per_token": (share.block.full + share.block.windowed) as f64 / args.block_size as f64,
            "windowed_bytes_per_token": share.block.windowed as f64 / args.block_size as f64,
            "usable_bytes": usable,
            "shapes_from": source,
            "placements": fits,
        }))?;
    } else {
        let (memory, part) = (bytes::show(gpu_memory), number(args.gpu_memory_utilization));
        let assumed = if args.gpu_memory.is_none() && Args::memory_of_gpu().is_none() {
            " There is no GPU here, so\n--gpu-memory or this usual size says how large it is."
        } else {
            ""
        };
        if let Some(pair) = args.pair_by_name() {
            writeln!(
                Output,
                "{}: from the built-in shape {}; no file of the models was read\n",
                pair.name, pair.shape
            )?;
        }
        let shared = bytes::show(together.shares()[0].fixed - together.models_bytes());
        let total = together.total_name();
        writeln!(Output, "{together}\n")?;
        writeln!(
            Output,
            "{total}: the sum, and {shared} for what their steps share and for the\nworkspaces of matrix products.\n"
        )?;
        writeln!(
            Output,
            "{memory} x {part} = {} of each GPU may be used.{assumed}\nThe cache gets what weights and workspaces \
             leave. CUDA and its graphs use about\n1 GiB of it too; how much exactly, only a GPU can tell.\n\n{}",
            bytes::show(usable),
            placement_table(&fits),
        )?;
        write_notes(&together, gpus, found)?;
    }
    // JSON is for programs, which read what fits.
    Ok(if found || args.json { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says how rows were counted, where that is not plain, and what to do if nothing fits.
fn write_notes(footprint: &Footprint, gpus: usize, found: bool) -> Result<()> {
    if footprint.shares()[0].block.windowed > 0 {
        writeln!(
            Output,
            "\nLayers with a window hold the tokens within it only. Rows: with max-model-len set to\nthe context, by which the \
             cache is divided between these layers and the others."
        )?;
    }
    if !found {
        let how = if gpus == 1 { "one GPU" } else { "these GPUs" };
        writeln!(
            Output,
            "\nthe pair does not fit on {how}; take more GPUs or a larger one, or lower\nmax-num-batched-tokens or \
             max-num-seqs"
        )?;
    }
    Ok(())
}

/// What fits where the pair is placed in one way.
#[derive(Serialize)]
struct Fit {
    placement: &'static str,
    gpus: usize,
    replicas: usize,
    /// Of each replica; 0 where the pair does not fit.
    cache_tokens: usize,
    /// Of all replicas.
    rows: [Rows; CONTEXTS.len()],
}

/// How many sequences of a length run at once.
#[derive(Serialize)]
struct Rows {
    context: usize,
    rows: usize,
}

impl Fit {
    fn new(footprint: &Footprint, replicas: usize, usable: usize, args: &Args) -> Self {
        let cache_tokens = footprint.blocks_in(usable).full * args.block_size;
        let rows = |context: usize| replicas * footprint.sequences_in(usable, context).min(args.max_num_seqs);
        Self {
            placement: if footprint.is_split { "split" } else { "together" },
            gpus: replicas * footprint.shares().len(),
            replicas,
            cache_tokens,
            rows: CONTEXTS.map(|context| Rows { context, rows: rows(context) }),
        }
    }
}

/// What fits, a row for each placement.
fn placement_table(fits: &[Fit]) -> String {
    let row = |fit: &Fit| {
        let does_not_fit = fit.cache_tokens == 0;
        let tokens = if does_not_fit { "does not fit".to_owned() } else { fit.cache_tokens.to_string() };
        let [a, b, c, d] = fit.rows.each_ref().map(|rows| rows.rows.to_string());
        [fit.placement.to_owned(), fit.gpus.to_string(), fit.replicas.to_string(), tokens, a, b, c, d]
    };
    let [a, b, c, d] = CONTEXTS.map(|context| format!("rows of\n{context}"));
    let header = ["placement", "GPUs", "replicas", "cache\ntokens", &a, &b, &c, &d];
    table(header, 1, fits.iter().map(row))
}

impl Args {
    fn gpu_memory(&self) -> usize {
        self.gpu_memory.or_else(Self::memory_of_gpu).unwrap_or(USUAL_MEMORY)
    }

    /// That of this machine's GPU, if there is one.
    fn memory_of_gpu() -> Option<usize> {
        let gpu = Gpu::cuda([0, 0], GpuConfig::of(Format::of(Dtype::Bf16))).ok()?;
        gpu.memory_info().ok()?.map(|memory| memory.total)
    }

    fn gpus(&self) -> usize {
        self.gpus.map_or_else(|| Cuda::count().unwrap_or(1), usize::from)
    }

    /// The pair, where nothing but its name is given: its shape is built in, so a plan needs neither a network nor a licence.
    fn pair_by_name(&self) -> Option<&'static PairPreset> {
        self.models.pair().filter(|_| !self.models.are_overridden())
    }

    /// The shapes of both models, and where they come from.
    fn specs(&self) -> Result<(Spec, Option<Spec>, &'static str)> {
        let built_in = self.pair_by_name().map(|pair| pair.shape).or(self.shape.as_deref());
        if let Some(name) = built_in {
            let spec = shapes::find(name)?;
            return Ok((
                spec.clone(),
                Some(spec),
                if self.shape.is_some() { "--shape" } else { "built-in shape" },
            ));
        }
        let (expert, amateur) = self.models.open_configs()?;
        Ok((Spec::open(&expert)?, amateur.as_ref().map(Spec::open).transpose()?, "config.json"))
    }
}
