//! `codit synth`: instructions in, a dataset out.

use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value, json};

use super::device::{DeviceArgs, Devices, Task};
use super::models::Models;
use super::progress::Progress;
use super::shortcuts::ShortcutArgs;
use super::{bytes, format, interrupt};
use crate::checkpoint::Checkpoint;
use crate::contrast::Contrast;
use crate::dataset::{Body, Done, Input, Manifest, Metadata, ModelMark, Outcome, Record, Sink};
use crate::device::Device;
use crate::engine::{self, Completion, Engine, EngineConfig, Finish, Replicas, Request, Stepped};
use crate::error::Result;
use crate::hub::Parts;
use crate::pairs::{MAX_TOKENS, Pair};
use crate::profile;
use crate::text::{CLOCK, ChatTemplate, Message, Text, clock};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Instructions, one JSON object a line with `instruction`, `messages` or `prompt`
    input: PathBuf,
    /// The dataset; resumed if it is there already
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
#[command(next_help_heading = "Method")]
struct Method {
    /// Plausibility: a token is in the head if it is at least this times as likely as the expert's favourite [0..1]
    #[arg(long, default_value_t = 0.01)]
    alpha: f64,
    /// Weight of the amateur's log-probability; 0 runs the expert alone
    #[arg(long, default_value_t = 1.0)]
    beta: f64,
    /// beta for special tokens, stop tokens among them [default: beta]
    #[arg(long, value_name = "B")]
    special_token_beta: Option<f64>,
    /// Contrast as (1 + G) z_e - G z_a: the same as --beta G/(1+G) with temperature / (1 + G)
    #[arg(long, value_name = "G", conflicts_with = "beta")]
    guidance: Option<f64>,
    /// 0 takes the best score
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Nucleus: keeps the likeliest tokens whose probabilities reach this (0..1]
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Keeps this many of the likeliest tokens; 0 keeps all
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Keeps tokens at least this times as likely as the likeliest [0..1]
    #[arg(long, default_value_t = 0.0)]
    min_p: f64,
    /// Longest response, in tokens [default: the pair's, or 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Makes a run repeatable; without it one is drawn and recorded in the manifest
    #[arg(long)]
    seed: Option<u64>,
    /// Goes on past stop tokens, for measurements
    #[arg(long)]
    ignore_eos: bool,
    /// Records each token's log-probability by either model, as expert_logprobs and amateur_logprobs
    #[arg(long)]
    log_probabilities: bool,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Prompts")]
struct Prompting {
    /// Variables for the chat template, a JSON object such as '{"enable_thinking":false}', beside those of the pair
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
    /// Tokens a step, prefill and decode together [default: as suits the device, or max-num-seqs if more]
    #[arg(long, value_name = "N")]
    max_num_batched_tokens: Option<usize>,
    /// Longest sequence, prompt and response [default: what the models and the cache can hold]
    #[arg(long, value_name = "N")]
    max_model_len: Option<usize>,
    /// Memory of the paged KV cache, both models together [default: 4GiB on the CPU]
    #[arg(long, value_parser = bytes::parse, value_name = "SIZE")]
    kv_cache_memory: Option<usize>,
    /// Tokens a cache block
    #[arg(long, default_value_t = 16, value_name = "N")]
    block_size: usize,
    /// Tell a profiler to begin at step A and to end before step B, counted from 0; GPU only
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
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    args.device.run(Synth { args })
}

struct Synth<'a> {
    args: &'a Args,
}

impl Task for Synth<'_> {
    fn run<D: Device>(self, devices: &Devices<'_, D>) -> Result<ExitCode> {
        let run = Run::prepare(self.args, devices)?;
        let interrupted = interrupt::flag()?;
        run.decode(&interrupted)?;
        if interrupt::is_set(&interrupted) {
            eprintln!("codit: interrupted; the same command resumes the run");
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A run: everything that may be refused has been accepted.
struct Run<D: Device> {
    replicas: Replicas<D>,
    input: Input,
    /// What all requests have in common.
    request: Request,
    system: Option<String>,
    done: Done,
    sink: Sink,
    metadata: Metadata,
}

impl<D: Device> Run<D> {
    fn prepare(args: &Args, devices: &Devices<'_, D>) -> Result<Self> {
        let contrast = args.method.contrast();
        contrast.validate()?;
        let input = Input::open(&args.input)?;
        let earlier = args.earlier()?;
        let (expert, amateur) = args.models.open(contrast.needs_amateur(), Parts::All, earlier.as_ref())?;
        let config = args.capacity.config();
        let places = devices.replicas(|device| config.fits(device, &expert, amateur.as_ref()))?;
        let mut replicas = Replicas::load(places, &expert, amateur.as_ref(), &config)?;
        let variables = args.template_variables(replicas.first().text(), earlier.as_ref());
        replicas.set_template_variables(&variables);
        let system = args.prompting.system.clone();
        let engine = replicas.first();
        try_template(engine, &input, system.as_deref())?;

        let manifest = Manifest {
            version: Manifest::VERSION.to_owned(),
            input: input.mark(),
            expert: ModelMark::of(&expert)?,
            amateur: amateur.as_ref().map(ModelMark::of).transpose()?,
            seed: args.method.seed,
            samples: 1,
            settings: args.settings(
                &contrast,
                engine.max_model_len(),
                &variables,
                format::settings(engine.device()),
            ),
            notes: args.notes(),
        };
        let (sink, done) = Sink::open(&args.output, &input, &manifest)?;
        report_placement(replicas.count(), devices.gpus.len());
        report_recovery(&done, args);
        let metadata = args.metadata(&contrast, &expert, amateur.as_ref());
        let request = Request {
            contrast,
            seed: sink.seed(),
            max_tokens: args.max_tokens() as usize,
            ignore_eos: args.method.ignore_eos,
            log_probabilities: args.method.log_probabilities,
            ..Request::new("", "")
        };
        Ok(Self { replicas, input, request, system, done, sink, metadata })
    }

    /// Decodes the rows of the input that have no record, and writes each record as it finishes.
    fn decode(self, interrupted: &AtomicBool) -> Result<()> {
        let Self { mut replicas, input, request, system, done, mut sink, metadata } = self;
        let rows: Vec<usize> = (0..input.len()).filter(|row| !done.contains(*row, 0)).collect();
        let mut progress = Progress::new(input.len(), input.len() - rows.len());
        let requests = rows.into_iter().map(|row| {
            let _range = profile::range(c"io");
            let prompt = input.prompt(row)?;
            let id = prompt.id.key().to_owned();
            Ok(Request { id, prompt: to_be_decoded(&prompt.body, system.as_deref()), ..request.clone() })
        });
        let result = replicas.decode(requests, |Stepped { completions, stats }| {
            let _range = profile::range(c"io");
            for completion in completions {
                progress.record(&completion.finish);
                let Some(row) = input.row(&completion.id) else { continue };
                let outcome = outcome(completion, request.log_probabilities);
                sink.append(&Record::new(input.prompt(row)?, None, metadata.clone(), outcome))?;
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
        sink.close()
    }
}

/// What a record says of a completion.
fn outcome(completion: Completion, log_probabilities: bool) -> Outcome {
    match completion.finish {
        Finish::Failed(error) => Outcome::Failed(error.to_string()),
        finish => Outcome::Answered {
            response: completion.text,
            score: completion.scores,
            log_probabilities: log_probabilities.then_some(completion.log_probabilities),
            is_completed: matches!(finish, Finish::Stop),
        },
    }
}

pub(super) fn to_be_decoded(body: &Body, system: Option<&str>) -> engine::Prompt {
    match body {
        Body::Text(text) => engine::Prompt::Text(text.clone()),
        Body::Instruction(text) => engine::Prompt::Chat(conversation(&[Message::new("user", text)], system)),
        Body::Messages(messages) => engine::Prompt::Chat(conversation(messages, system)),
    }
}

/// `messages`, after the system message that the user gave unless they have one.
fn conversation(messages: &[Message], system: Option<&str>) -> Vec<Message> {
    let has_system = messages.first().is_some_and(|first| first.role == "system");
    let added = system.filter(|_| !has_system).map(|text| Message::new("system", text));
    added.into_iter().chain(messages.iter().cloned()).collect()
}

/// Renders a plain conversation, so that a template that cannot work is refused before any work.
fn try_template<D: Device>(engine: &Engine<D>, input: &Input, system: Option<&str>) -> Result<()> {
    for row in 0..input.len() {
        if !matches!(input.prompt(row)?.body, Body::Text(_)) {
            let hello = conversation(&[Message::new("user", "Hello")], system);
            return engine.chat_ids(&hello).map(drop);
        }
    }
    Ok(())
}

/// Where there is a choice.
fn report_placement(replicas: usize, gpus: usize) {
    if gpus > 1 {
        let how = if replicas == gpus { "both models on each" } else { "expert and amateur on one each" };
        eprintln!("codit: {gpus} GPUs, {how}: {replicas} replica(s) of the pair");
    }
}

fn report_recovery(done: &Done, args: &Args) {
    let recovery = done.recovery();
    if recovery.cut_bytes > 0 {
        eprintln!(
            "codit: {}: cut off {} bytes of a torn record at its end",
            args.output.display(),
            recovery.cut_bytes
        );
    }
    if recovery.records > 0 {
        eprintln!("codit: {}: resuming after {} records", args.output.display(), recovery.records);
    }
}

impl Args {
    /// The manifest of the run that this one goes on with, if it does.
    fn earlier(&self) -> Result<Option<Manifest>> {
        let is_begun = fs::metadata(&self.output).is_ok_and(|output| output.len() > 0);
        if is_begun { Manifest::read(&Manifest::path(&self.output)) } else { Ok(None) }
    }

    fn max_tokens(&self) -> u32 {
        let of_pair = || self.models.pair().map_or(MAX_TOKENS, |pair| pair.max_tokens);
        self.method.max_tokens.unwrap_or_else(of_pair)
    }

    /// What the pair and the user give the template; a template that writes the date is given the moment at which the
    /// run began, so that it writes the same when the run is resumed.
    fn template_variables(&self, text: &Text, earlier: Option<&Manifest>) -> Map<String, Value> {
        let mut variables = self.models.pair().map(Pair::template_variables).unwrap_or_default();
        variables.extend(self.prompting.chat_template_kwargs.clone().unwrap_or_default());
        if text.template().is_some_and(ChatTemplate::tells_time) && !variables.contains_key(CLOCK) {
            let began = earlier.map(|manifest| manifest.settings["chat_template_kwargs"][CLOCK].clone());
            let began = began.filter(Value::is_string).unwrap_or_else(|| json!(clock()));
            variables.insert(CLOCK.to_owned(), began);
        }
        variables
    }

    /// All that a record's text depends on beside the models, the input and the seed.
    fn settings(
        &self,
        contrast: &Contrast,
        max_model_len: usize,
        variables: &Map<String, Value>,
        formats: Map<String, Value>,
    ) -> Value {
        let mut settings = json!(contrast);
        settings["max_tokens"] = json!(self.max_tokens());
        settings["ignore_eos"] = json!(self.method.ignore_eos);
        // Unset where it is not asked for: a run of a version that did not know it goes on.
        settings["log_probabilities"] = json!(self.method.log_probabilities.then_some(true));
        settings["max_model_len"] = json!(max_model_len);
        settings["chat_template_kwargs"] = json!(variables);
        settings["system"] = json!(self.prompting.system);
        formats.into_iter().for_each(|(name, format)| settings[name] = format);
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

impl Method {
    fn contrast(&self) -> Contrast {
        let contrast = Contrast {
            alpha: self.alpha,
            beta: self.beta,
            special_token_beta: self.special_token_beta,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
        };
        match self.guidance {
            Some(guidance) => contrast.with_guidance(guidance),
            None => contrast,
        }
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
