//! `codit bench`: how fast a device decodes a pair, what of its ceilings that is, and what the shortcuts save.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::args::device::{DeviceArgs, Devices, Task};
use crate::cli::args::format;
use crate::cli::args::models::Models;
use crate::cli::args::prompting::Prompting;
use crate::cli::args::shortcuts::ShortcutArgs;
use crate::cli::ui::output::Output;
use crate::cli::ui::table::table;
use crate::cli::ui::words::count;
use codit::bench::ablation::{self, Ablation};
use codit::bench::{self, Load, Operation, Prompts, Report, shapes};
use codit::checkpoint::{Checkpoint, Parts};
use codit::contrast::{Contrast, Vocabulary};
use codit::dataset::Input;
use codit::device::inspect::Inspect;
use codit::engine::Model;
use codit::error::{Error, Result};
use codit::model::spec::Spec;
use codit::text::{Text, Tokenizer, check_same_vocabulary};

#[derive(clap::Args)]
pub struct Args {
    /// The shape of a published model, or a config.json, for both models: llama-3.1-8b, qwen3-8b, ...
    #[arg(long, value_name = "NAME", default_value = "smollm2-135m")]
    shape: String,
    /// The amateur's shape, if it differs from the expert's
    #[arg(long, value_name = "NAME")]
    amateur_shape: Option<String>,
    /// Use the first instructions of this file instead of random tokens; needs a pair with its own weights
    #[arg(long, value_name = "FILE", conflicts_with_all = ["shape", "amateur_shape", "input_len"])]
    input: Option<PathBuf>,
    /// Sequences at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    input_len: u32,
    /// Tokens of each response
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(32..))]
    output_len: u32,
    /// Tokens per step, prefill and decode together [default: as suits the device]
    #[arg(long, value_name = "N")]
    max_num_batched_tokens: Option<usize>,
    /// Plausibility, as in `codit synth`
    #[arg(long, default_value_t = 0.01)]
    alpha: f64,
    /// Weight of the amateur's log-probability
    #[arg(long, default_value_t = 1.0)]
    beta: f64,
    /// Streams of the GPU that the two models share: with 1 nothing of theirs runs at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=2))]
    streams: u32,
    /// Measures without shortcuts, with each one and with all, and counts what they save
    #[arg(long, conflicts_with_all = ["eager", "shortcuts"])]
    ablation: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shortcuts: ShortcutArgs,
    // After the command's own flags, since its heading would hold them.
    #[command(flatten)]
    models: Models,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.device.with_streams(args.streams)?.run(Bench { args })
}

struct Bench<'a> {
    args: &'a Args,
}

impl Task for Bench<'_> {
    fn run<D: Inspect>(self, devices: &Devices<'_, D>) -> Result<ExitCode> {
        let args = self.args;
        let contrast = Contrast { alpha: args.alpha, beta: args.beta, ..Contrast::default() };
        contrast.validate()?;
        let pair = Pair::open(args)?;
        match (&pair.expert, &pair.amateur) {
            (Subject::Stored(expert), Subject::Stored(amateur)) if args.models.are_given() => {
                devices.suit(expert, Some(amateur))?;
            }
            (Subject::Stored(_), _) => {}
            (Subject::Shape(_), _) => devices.suit_bf16(),
        }
        let load = Load {
            expert: pair.expert.model(1),
            amateur: pair.amateur.model(1 << 32),
            vocabulary: pair.vocabulary,
            prompts: pair.prompts,
            output_len: args.output_len as usize,
            block_size: 16,
            max_num_batched_tokens: args.max_num_batched_tokens,
            contrast,
            shortcuts: args.shortcuts.shortcuts(),
        };
        let open = || devices.first();
        let (device, mode) = {
            let device = open()?;
            (device.info().description.clone(), format::describe(device.info()))
        };
        let measured = Measured { device, mode, load: args.load() };
        if !args.json {
            writeln!(Output, "{}\n{}\n{}\n", measured.device, measured.mode, measured.load)?;
        }
        if args.ablation {
            show(&measured, &ablation::run(&open, &load)?, args.json, describe_ablation)?;
        } else {
            show(&measured, &bench::run(&open, &load)?, args.json, describe)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    /// What is decoded, in words.
    fn load(&self) -> String {
        let models = match (&self.input, &self.amateur_shape) {
            (Some(_), _) => "the pair".to_owned(),
            (None, None) => format!("two models of the shape {}", self.shape),
            (None, Some(amateur)) => format!("models of the shapes {} and {amateur}", self.shape),
        };
        let prompts = match &self.input {
            Some(input) => format!("prompts of {}", input.display()),
            None => format!("prompts of {} tokens", self.input_len),
        };
        let (rows, tokens) = (count(self.rows as usize, "row"), count(self.output_len as usize, "token"));
        let streams = if self.streams == 1 { ", one stream" } else { "" };
        format!("{models}, {rows}, {prompts}, responses of {tokens}{streams}")
    }
}

/// Who decodes what.
struct Pair {
    expert: Subject,
    amateur: Subject,
    vocabulary: Vocabulary,
    prompts: Prompts,
}

enum Subject {
    Shape(Spec),
    Stored(Checkpoint),
}

impl Subject {
    fn model(&self, seed: u64) -> Model<'_> {
        match self {
            Self::Shape(spec) => Model::Random(spec, seed),
            Self::Stored(checkpoint) => Model::Stored(checkpoint),
        }
    }
}

impl Pair {
    fn open(args: &Args) -> Result<Self> {
        let Some(input) = &args.input else { return Self::of_shapes(args) };
        let (expert, amateur) = args.models.open(true, Parts::All, None)?;
        let Some(amateur) = amateur else {
            return Err(Error::Setting("the bench is of a pair; give an --amateur".to_owned()));
        };
        let text = Text::load(&expert)?;
        check_same_vocabulary(text.tokenizer(), &Tokenizer::load(&amateur)?)?;
        let (path, input, rows) = (input, Input::open(input)?, args.rows as usize);
        if input.len() < rows {
            let message = format!("{} instructions; give more, or --rows {0}", input.len());
            return Err(Error::file(path, message));
        }
        let variables =
            args.models.pair().map(codit::pairs::PairPreset::template_variables).unwrap_or_default();
        let prompt = |row| {
            let prompt = input.read(row)?;
            let ids = Prompting::default().prompt(prompt.body).into_ids(&text, &variables)?;
            if ids.is_empty() {
                return Err(Error::file(path, format!("{}: the prompt has no tokens", prompt.id.key())));
            }
            Ok(ids)
        };
        let prompts = Prompts::Given((0..rows).map(prompt).collect::<Result<_>>()?);
        let vocabulary = text.tokenizer().vocabulary().clone();
        Ok(Self { expert: Subject::Stored(expert), amateur: Subject::Stored(amateur), vocabulary, prompts })
    }

    fn of_shapes(args: &Args) -> Result<Self> {
        if args.models.are_given() {
            let message = "a pair with its own weights answers instructions; give an --input, or a --shape in place of it";
            return Err(Error::Setting(message.to_owned()));
        }
        let expert = shapes::find(&args.shape)?;
        let amateur = shapes::find(args.amateur_shape.as_ref().unwrap_or(&args.shape))?;
        let vocabulary = Vocabulary::new(expert.vocab_size.min(amateur.vocab_size), Vec::new());
        let prompts = Prompts::Random { rows: args.rows as usize, len: args.input_len as usize };
        Ok(Self { expert: Subject::Shape(expert), amateur: Subject::Shape(amateur), vocabulary, prompts })
    }
}

/// What was measured, in words.
#[derive(Serialize)]
struct Measured {
    device: String,
    mode: String,
    load: String,
}

/// Prints a report for people, or as JSON.
fn show<T: Serialize>(
    measured: &Measured,
    report: &T,
    json: bool,
    text: impl FnOnce(&T) -> String,
) -> Result<()> {
    #[derive(Serialize)]
    struct Whole<'a, T> {
        #[serde(flatten)]
        measured: &'a Measured,
        #[serde(flatten)]
        report: &'a T,
    }
    if json { Output.write_json(&Whole { measured, report }) } else { writeln!(Output, "{}", text(report)) }
}

fn ceilings(bandwidth: f64, matmul_rate: f64) -> String {
    format!(
        "ceilings, measured: bandwidth {:.1} GB/s\n                    matmul    {:.3} TFLOP/s\n",
        bandwidth / 1e9,
        matmul_rate / 1e12
    )
}

fn describe(report: &Report) -> String {
    let header = ["decode step", "calls", "us", "MB", "MFLOP", "of bandwidth", "of matmul"];
    let row = |operation: &Operation| {
        [
            operation.name.to_owned(),
            operation.calls.to_string(),
            format!("{:.1}", operation.seconds * 1e6),
            format!("{:.2}", operation.bytes as f64 / 1e6),
            format!("{:.1}", operation.operations as f64 / 1e6),
            fraction(operation.bandwidth_fraction),
            fraction(operation.matmul_fraction),
        ]
    };
    let speeds = [
        ("decode step", report.decode_step_seconds * 1e6, "us, both models".to_owned()),
        (
            "serial floor",
            report.decode_floor_seconds * 1e6,
            format!("us, {} of the step", fraction(report.fraction_of_floor)),
        ),
        ("idle share", report.idle_share * 100.0, "%".to_owned()),
        ("prefill", report.prefill_tokens_per_second, "tokens/s".to_owned()),
        ("decoded", report.tokens_per_second, "tokens/s, prefill included".to_owned()),
    ];
    let speeds = speeds.map(|(name, number, unit)| format!("{name:<14} {number:>12.1} {unit}"));
    let doubt = if report.is_doubtful { DOUBT } else { "" };
    format!(
        "{}\n{}\n\nOperations are timed one by one. In a step both models run side by side, so it may\ntake less than \
         their sum.\n\n{}{doubt}",
        ceilings(report.bandwidth, report.matmul_rate),
        table(header, 1, report.operations.iter().map(row)),
        speeds.join("\n")
    )
}

/// Said under figures of which one is over 100%.
const DOUBT: &str = "\n\n? an error of measurement: over 100% of what the device can do by the ceilings above.\nOther programs ran \
    while those were measured, or data stayed in a cache. Measure again on\nan idle machine, with a larger shape or more rows.";

/// A part of the whole in percent, marked if it is more than the whole.
fn fraction(fraction: f64) -> String {
    format!("{:.1}%{}", fraction * 100.0, if fraction > 1.0 { "?" } else { "" })
}

fn describe_ablation(ablation: &Ablation) -> String {
    let header = [
        "shortcuts",
        "tokens/s",
        "speed-up",
        "predicted\nspeed-up",
        "amateur's\nsteps",
        "expert's\npositions",
        "amateur's\npositions",
        "shared\npositions",
        "GB",
        "GFLOP",
        "forced",
        "same\nresponses",
    ];
    let row = |setting: &ablation::Setting| {
        [
            if setting.shortcuts.is_empty() { "none".to_owned() } else { setting.shortcuts.join(",") },
            format!("{:.1}", setting.tokens_per_second),
            format!("{:.2}", setting.speed_up),
            format!("{:.2}", setting.predicted_speed_up),
            setting.amateur_steps.to_string(),
            setting.expert_tokens.to_string(),
            setting.amateur_tokens.to_string(),
            setting.shared_tokens.to_string(),
            format!("{:.2}", setting.bytes as f64 / 1e9),
            format!("{:.1}", setting.operations as f64 / 1e9),
            format!("{:.1}%", setting.forced_share * 100.0),
            format!("{:.0}%", setting.same_responses * 100.0),
        ]
    };
    format!(
        "{}\n{}",
        ceilings(ablation.bandwidth, ablation.matmul_rate),
        table(header, 1, ablation.settings.iter().map(row))
    )
}
