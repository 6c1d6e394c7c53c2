//! `codit synth`: instructions in, a dataset out.

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value, json};

use crate::cli::args::device::{DeviceArgs, Devices, Task};
use crate::cli::args::method::{Method, Setting};
use crate::cli::args::models::Models;
use crate::cli::args::shortcuts::ShortcutArgs;
use crate::cli::args::{bytes, format};
use crate::cli::run::datasets::{Dataset, Earlier, Written};
use crate::cli::run::interrupt;
use crate::cli::ui::progress::Progress;
use codit::checkpoint::{Checkpoint, Parts};
use codit::contrast::Contrast;
use codit::dataset::{Body, Input, Manifest, Metadata, ModelFingerprint};
use codit::device::Device;
use codit::device::inspect::Inspect;
use codit::engine::{self, Engine, EngineConfig, Replicas, Request, Stepped};
use codit::error::{Result, printable};
use codit::ids::TokenId;
use codit::pairs::{MAX_TOKENS, PairPreset};
use codit::profile;
use codit::text::{CLOCK, ChatTemplate, Conversation, Text, clock};

#[derive(clap::Args)]
pub struct Args {
    /// Instructions: one JSON object per line with `instruction`, `messages` or `prompt`
    input: PathBuf,
    /// The dataset; resumed if it exists. {alpha} and {beta} in its name stand for their values
    #[arg(short, long)]
    output: PathBuf,

    #[command(flatten)]
    models: Models,
    #[command(flatten)]
    method: Method,
    #[command(flatten)]
    prompting: Prompting,
    #[command(flatten)]
    capacity: Capacity,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Prompts")]
struct Prompting {
    /// Variables for the chat template, a JSON object such as '{"enable_thinking":false}', in addition to the pair's
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    chat_template_kwargs: Option<Map<String, Value>>,
    /// A system message for conversations that have none
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Capacity (changes no response)")]
struct Capacity {
    /// Sequences decoded at once
    #[arg(long, default_value_t = 256)]
    max_num_seqs: usize,
    /// Tokens per step, prefill and decode together [default: as suits the device, or max-num-seqs if more]
    #[arg(long, value_name = "N")]
    max_num_batched_tokens: Option<usize>,
    /// Longest sequence, prompt and response [default: what the models and the cache can hold]
    #[arg(long, value_name = "N")]
    max_model_len: Option<usize>,
    /// Memory of the paged KV cache, both models together [default: 4GiB on the CPU]
    #[arg(long, value_parser = bytes::parse, value_name = "SIZE")]
    kv_cache_memory: Option<usize>,
    /// Tokens per cache block
    #[arg(long, default_value_t = 16, value_name = "N")]
    block_size: usize,
    /// Tells a profiler to begin at step A and to end before step B, counted from 0; GPU only
    #[arg(long, value_name = "A:B", value_parser = steps)]
    profile_steps: Option<Range<u64>>,
    #[command(flatten)]
    shortcuts: ShortcutArgs,
}

fn steps(text: &str) -> std::result::Result<Range<u64>, String> {
    let ends = text.split_once(':').and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    ends.filter(|steps| !steps.is_empty()).ok_or_else(|| "not A:B with A below B".to_owned())
}

fn json_object(text: &str) -> std::result::Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

/// Decodes what the output does not hold yet.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.device.run(Synth { args })
}

struct Synth<'a> {
    args: &'a Args,
}

impl Task for Synth<'_> {
    fn run<D: Inspect>(self, devices: &Devices<'_, D>) -> Result<ExitCode> {
        let run = Run::prepare(self.args, devices)?;
        let interrupted = interrupt::flag()?;
        run.decode(&interrupted)?;
        if interrupt::is_set(&interrupted) {
            message!("interrupted; the same command resumes the run");
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A run: everything that may be refused has been accepted.
struct Run<D: Device> {
    replicas: Replicas<D>,
    input: Input,
    system: Option<String>,
    order: Order,
    /// One a setting.
    datasets: Vec<Dataset>,
}

impl<D: Device> Run<D> {
    fn prepare(args: &Args, devices: &Devices<'_, D>) -> Result<Self> {
        let settings = args.method.settings(&args.output)?;
        let input = Input::open(&args.input)?;
        let earlier = Earlier::read(&settings, args.method.seed)?;
        let needs_amateur = settings.iter().any(|setting| setting.contrast.needs_amateur());
        let (expert, amateur) = args.models.open(needs_amateur, Parts::All, earlier.manifest())?;
        let config = args.capacity.config();
        let places = devices.replicas(|device| config.fits(device, &expert, amateur.as_ref()))?;
        let mut replicas = Replicas::load(places, &expert, amateur.as_ref(), &config)?;
        let variables = args.template_variables(replicas.first().text(), earlier.manifest());
        replicas.set_template_variables(&variables);
        replicas.set_sanitize_control_tokens(args.method.sanitize_control_tokens);
        report_warnings(replicas.first().text());
        let system = args.prompting.system.clone();
        let engine = replicas.first();
        try_template(engine, &input, system.as_deref())?;

        let fingerprints =
            (ModelFingerprint::of(&expert)?, amateur.as_ref().map(ModelFingerprint::of).transpose()?);
        let mut seed = earlier.seed();
        let mut datasets = Vec::with_capacity(settings.len());
        for Setting { contrast, output } in &settings {
            let has_say = contrast.needs_amateur();
            let manifest = Manifest {
                version: Manifest::VERSION.to_owned(),
                input: input.fingerprint(),
                expert: fingerprints.0.clone(),
                amateur: fingerprints.1.clone().filter(|_| has_say),
                seed,
                samples: args.method.samples,
                settings: args.settings(contrast, engine, &variables),
                notes: args.notes(),
            };
            let metadata = args.metadata(contrast, &expert, amateur.as_ref().filter(|_| has_say));
            let dataset = Dataset::open(output, &input, &manifest, metadata, args.request(contrast))?;
            // All settings draw by one.
            seed = Some(dataset.todo.request.seed);
            datasets.push(dataset);
        }
        report_placement(replicas.count(), devices.gpus.len());
        let order = Order { settings: settings.len(), samples: args.method.samples as usize };
        Ok(Self { replicas, input, system, order, datasets })
    }

    /// Decodes what has no record yet, and writes each record as it finishes.
    fn decode(self, interrupted: &AtomicBool) -> Result<()> {
        let Self { mut replicas, input, system, order, datasets } = self;
        let total = input.len() * order.settings * order.samples;
        let done = datasets.iter().map(|dataset| dataset.todo.done.recovery().records).sum();
        let (todo, mut written): (Vec<_>, Vec<_>) =
            datasets.into_iter().map(|dataset| (dataset.todo, dataset.written)).unzip();
        let mut progress = Progress::new(total, done);
        let left = (0..total).filter(|tag| {
            let JobIndex { row, setting, sample } = order.job(*tag);
            !todo[setting].done.contains(row, sample)
        });
        let requests = left.map(|tag| {
            let _range = profile::range(c"io");
            let JobIndex { row, setting, sample } = order.job(tag);
            let prompt = input.read(row)?;
            let id = prompt.id.key().to_owned();
            let prompt = to_be_decoded(prompt.body, system.as_deref());
            Ok(Request { id, prompt, sample, tag, ..todo[setting].request.clone() })
        });
        let text = replicas.first().text().clone();
        let result = replicas.decode(requests, |Stepped { completions, stats }| {
            let _range = profile::range(c"io");
            report_warnings(&text);
            for completion in completions {
                progress.record(&completion.finish);
                let JobIndex { row, setting, sample } = order.job(completion.tag);
                written[setting].append(input.read(row)?, sample, completion)?;
            }
            progress.step(stats);
            Ok(if interrupt::is_set(interrupted) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        });
        progress.finish();
        result?;
        written.into_iter().try_for_each(Written::close)
    }
}

/// The order of requests, each called by its place in it: all responses to one prompt one after another, so that what
/// they begin with is computed once.
#[derive(Clone, Copy)]
struct Order {
    settings: usize,
    samples: usize,
}

/// A response to be had.
struct JobIndex {
    row: usize,
    setting: usize,
    sample: u32,
}

impl Order {
    fn job(self, number: usize) -> JobIndex {
        let (prompt_and_setting, sample) = (number / self.samples, number % self.samples);
        let (row, setting) = (prompt_and_setting / self.settings, prompt_and_setting % self.settings);
        JobIndex { row, setting, sample: sample as u32 }
    }
}

pub fn to_be_decoded(body: Body, system: Option<&str>) -> engine::Prompt {
    match body {
        Body::Text(text) => engine::Prompt::Text(text),
        Body::Chat(conversation) => engine::Prompt::Chat(with_system(conversation, system)),
    }
}

fn with_system(conversation: Conversation, system: Option<&str>) -> Conversation {
    match system {
        Some(text) => conversation.with_system(text),
        None => conversation,
    }
}

/// Renders a plain conversation, so that a template that cannot work is refused before any work.
fn try_template<D: Device>(engine: &Engine<D>, input: &Input, system: Option<&str>) -> Result<()> {
    for row in 0..input.len() {
        if !matches!(input.read(row)?.body, Body::Text(_)) {
            let hello = with_system(Conversation::of_instruction("Hello"), system);
            return engine.chat_ids(&hello).map(drop);
        }
    }
    Ok(())
}

/// What is strange about the files or the prompts, and still works.
fn report_warnings(text: &Text) {
    for warning in text.take_warnings() {
        message!("warning: {}", printable(&warning));
    }
}

/// Where there is a choice.
fn report_placement(replicas: usize, gpus: usize) {
    if gpus > 1 {
        let how = if replicas == gpus { "both models on each" } else { "expert and amateur on one each" };
        message!("{gpus} GPUs, {how}: {replicas} replica(s) of the pair");
    }
}

impl Args {
    fn max_tokens(&self) -> u32 {
        let of_pair = || self.models.pair().map_or(MAX_TOKENS, |pair| pair.max_tokens);
        self.method.max_tokens.unwrap_or_else(of_pair)
    }

    /// What the pair and the user give the template; a template that writes the date is given the moment at which the
    /// run began, so that it writes the same when the run is resumed.
    fn template_variables(&self, text: &Text, earlier: Option<&Manifest>) -> Map<String, Value> {
        let mut variables = self.models.pair().map(PairPreset::template_variables).unwrap_or_default();
        variables.extend(self.prompting.chat_template_kwargs.clone().unwrap_or_default());
        if text.template().is_some_and(ChatTemplate::tells_time) && !variables.contains_key(CLOCK) {
            let began = earlier.map(|manifest| manifest.settings["chat_template_kwargs"][CLOCK].clone());
            let began = began.filter(Value::is_string).unwrap_or_else(|| json!(clock()));
            variables.insert(CLOCK.to_owned(), began);
        }
        variables
    }

    /// What all requests of a setting have in common; its dataset knows the seed.
    fn request(&self, contrast: &Contrast) -> Request {
        Request {
            contrast: *contrast,
            max_tokens: self.max_tokens() as usize,
            ignore_eos: self.method.ignore_eos,
            stop: self.method.stop.clone(),
            stop_token_ids: self.method.stop_token_ids.iter().copied().map(TokenId).collect(),
            log_probabilities: self.method.log_probabilities,
            ..Request::new("", "")
        }
    }

    /// All that a record's text depends on beside the models, the input and the seed.
    fn settings<D: Device>(
        &self,
        contrast: &Contrast,
        engine: &Engine<D>,
        variables: &Map<String, Value>,
    ) -> Value {
        let mut settings = json!(contrast);
        settings["max_tokens"] = json!(self.max_tokens());
        settings["ignore_eos"] = json!(self.method.ignore_eos);
        // Unset where it is not asked for: a run of a version that did not know it goes on.
        settings["log_probabilities"] = json!(self.method.log_probabilities.then_some(true));
        let given = |list: Value| if list.as_array().is_some_and(Vec::is_empty) { Value::Null } else { list };
        settings["stop"] = given(json!(self.method.stop));
        settings["stop_token_ids"] = given(json!(self.method.stop_token_ids));
        settings["sanitize_control_tokens"] = json!(self.method.sanitize_control_tokens.then_some(true));
        settings["max_model_len"] = json!(engine.windows().of(contrast));
        settings["chat_template_kwargs"] = json!(variables);
        settings["system"] = json!(self.prompting.system);
        format::settings(engine.device()).into_iter().for_each(|(name, format)| settings[name] = format);
        settings
    }

    fn metadata(&self, contrast: &Contrast, expert: &Checkpoint, amateur: Option<&Checkpoint>) -> Metadata {
        Metadata {
            temperature: contrast.temperature,
            top_p: contrast.top_p,
            max_tokens: self.max_tokens() as usize,
            contrastive_decoding: amateur.is_some(),
            alpha: contrast.alpha,
            beta: contrast.beta,
            expert_model_id: expert.id().to_owned(),
            amateur_model_id: amateur.map(|amateur| amateur.id().to_owned()),
        }
    }

    /// What the manifest says of capacity and device, for the record only.
    fn notes(&self) -> Value {
        let mut notes = self.device.notes();
        notes["max_num_seqs"] = json!(self.capacity.max_num_seqs);
        notes["max_num_batched_tokens"] = json!(self.capacity.max_num_batched_tokens);
        notes["kv_cache_memory"] = json!(self.capacity.kv_cache_memory.map(bytes::show));
        notes["block_size"] = json!(self.capacity.block_size);
        notes
    }
}

impl Capacity {
    fn config(&self) -> EngineConfig {
        EngineConfig {
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_model_len: self.max_model_len,
            kv_cache_memory: self.kv_cache_memory,
            block_size: self.block_size,
            async_scheduling: None,
            shortcuts: self.shortcuts.shortcuts(),
            profile_steps: self.profile_steps.clone(),
        }
    }
}
