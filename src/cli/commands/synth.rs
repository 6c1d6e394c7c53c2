//! `codit synth`: instructions in, a dataset out.

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::stats;
use crate::cli::args::device::{DeviceArgs, Devices, Task};
use crate::cli::args::method::{Method, Setting};
use crate::cli::args::models::Models;
use crate::cli::args::prompting::Prompting;
use crate::cli::args::screen::ScreenArgs;
use crate::cli::args::shortcuts::ShortcutArgs;
use crate::cli::args::{bytes, format};
use crate::cli::run::announce::Announcement;
use crate::cli::run::complete::{Outputs, has_lines};
use crate::cli::run::datasets::{Dataset, Earlier, Ended};
use crate::cli::run::interrupt::Interrupt;
use crate::cli::run::order::{JobIndex, Order};
use crate::cli::run::weights;
use crate::cli::ui::activity::Activity;
use crate::cli::ui::progress::{Ends, Progress, Work};
use crate::cli::ui::words::count;
use codit::checkpoint::{Checkpoint, Parts};
use codit::contrast::Contrast;
use codit::dataset::{Input, Manifest, Metadata, ModelFingerprint};
use codit::device::Device;
use codit::device::inspect::Inspect;
use codit::doctor;
use codit::engine::{EngineConfig, Replicas, Request, Stepped};
use codit::error::{Error, Result};
use codit::ids::TokenId;
use codit::pairs::MAX_TOKENS;
use codit::profile;
use codit::text::Text;

#[derive(clap::Args)]
pub struct Args {
    /// Rows: one JSON object per line with `instruction`, `messages`, `conversations` or `prompt`
    input: PathBuf,
    /// The dataset; resumed if it exists. {alpha} and {beta} in its name stand for their values
    #[arg(short, long)]
    output: PathBuf,
    /// Make the records of errors in the output again
    #[arg(long)]
    retry_errors: bool,

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
    #[command(flatten)]
    screen: ScreenArgs,
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

/// Decodes what the output does not hold yet.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.screen.apply();
    let interrupt = Interrupt::listen()?;
    args.device.run(Synth { args, interrupt })
}

/// The exit code of a run that wrote nothing but errors.
const ALL_FAILED: u8 = 3;

struct Synth<'a> {
    args: &'a Args,
    interrupt: Interrupt,
}

impl Task for Synth<'_> {
    fn run<D: Inspect>(self, devices: &Devices<'_, D>) -> Result<ExitCode> {
        let Self { args, interrupt } = self;
        args.method.warn();
        let sources = Sources::open(args)?;
        if args.models.are_given() {
            devices.suit(&sources.expert, sources.amateur.as_ref())?;
        }
        let outputs: Vec<PathBuf> = sources.settings.iter().map(|setting| setting.output.clone()).collect();
        if sources.are_complete(args, devices)? {
            stats::print_sweep(&outputs)?;
            return Ok(ExitCode::SUCCESS);
        }
        sources.earlier.warn_of_another_processor(|| Ok(doctor::as_cpu(&devices.first()?).is_some()))?;
        let run = Run::prepare(args, sources, devices)?;
        let ended = run.decode(&interrupt)?;
        match interrupt.exit_code() {
            Some(code) if !ended.is_complete => {
                if ended.is_empty() {
                    message!("stopped before a response had ended; the same command begins again");
                } else {
                    message!("stopped; the same command resumes the run");
                }
                return Ok(ExitCode::from(code));
            }
            _ => stats::print_sweep(&outputs)?,
        }
        if ended.all_failed() {
            message!(
                "every record of this run is an error, and says why; --retry-errors makes them again, once the cause is \
                 mended. A corrected input goes to another output"
            );
            return Ok(ExitCode::from(ALL_FAILED));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a run reads: everything but the weights.
struct Sources {
    /// One a dataset.
    settings: Vec<Setting>,
    input: Input,
    earlier: Earlier,
    expert: Checkpoint,
    amateur: Option<Checkpoint>,
    fingerprints: (ModelFingerprint, Option<ModelFingerprint>),
}

impl Sources {
    fn open(args: &Args) -> Result<Self> {
        let settings = args.method.settings(&args.output)?;
        let input = {
            let _shown = Activity::start("reading the input", None);
            args.prompting.open(&args.input)?
        };
        let earlier = Earlier::read(&settings, &input, args.method.seed)?;
        let needs_amateur = settings.iter().any(|setting| setting.contrast.needs_amateur());
        let (expert, amateur) = args.models.open(needs_amateur, Parts::All, earlier.manifest())?;
        let _shown = Activity::start("identifying the models", None);
        let fingerprints =
            (ModelFingerprint::of(&expert)?, amateur.as_ref().map(ModelFingerprint::of).transpose()?);
        Ok(Self { settings, input, earlier, expert, amateur, fingerprints })
    }

    /// Records when all is done.
    fn total(&self, args: &Args) -> usize {
        self.input.len() * self.settings.len() * args.method.samples as usize
    }

    /// Whether earlier runs have done everything, and then says so. No weights are loaded to find out.
    fn are_complete<D: Device>(&self, args: &Args, devices: &Devices<'_, D>) -> Result<bool> {
        let records = self.input.len() * args.method.samples as usize;
        let Some(manifests) = self.earlier.all(self.settings.len()) else { return Ok(false) };
        if !self.settings.iter().all(|setting| has_lines(&setting.output, records)) {
            return Ok(false);
        }
        let device = devices.first()?;
        let variables = args.template_variables(&Text::load(&self.expert)?, self.earlier.manifest());
        let given = args.capacity.max_model_len.map(|window| json!(window));
        let of_earlier = |index: usize| manifests[index].settings["max_model_len"].clone();
        let window = |index| given.clone().unwrap_or_else(|| of_earlier(index));
        let datasets = self.datasets(args, &device, &variables, window)?;
        let recoveries = || datasets.iter().map(|dataset| dataset.todo.done.recovery());
        let done: usize = recoveries().map(|recovery| recovery.records).sum();
        let is_complete = done == self.total(args);
        if is_complete {
            let failed = recoveries().map(|recovery| recovery.failed).sum();
            Outputs::of(&self.settings, &args.output).say_complete(done, failed);
        }
        Ok(is_complete)
    }

    /// The dataset of each setting, whose context limit is `window` of the setting's number.
    fn datasets<D: Device>(
        &self,
        args: &Args,
        device: &D,
        variables: &Map<String, Value>,
        window: impl Fn(usize) -> Value,
    ) -> Result<Vec<Dataset>> {
        let _shown = Activity::start("reading the records of earlier runs", None);
        let mut seed = self.earlier.seed();
        let mut datasets = Vec::with_capacity(self.settings.len());
        for (index, Setting { contrast, output }) in self.settings.iter().enumerate() {
            let has_say = contrast.needs_amateur();
            let manifest = Manifest {
                version: Manifest::VERSION.to_owned(),
                input: self.input.fingerprint(),
                expert: self.fingerprints.0.clone(),
                amateur: self.fingerprints.1.clone().filter(|_| has_say),
                seed,
                samples: args.method.samples,
                settings: args.settings(contrast, device, window(index), variables),
                notes: args.notes(),
            };
            let metadata = args.metadata(contrast, &self.expert, self.amateur.as_ref().filter(|_| has_say));
            let request = args.request(contrast);
            let dataset =
                Dataset::open(output, &self.input, &manifest, metadata, request, args.retry_errors)?;
            // All settings draw by one.
            seed = Some(dataset.todo.request.seed);
            datasets.push(dataset);
        }
        Ok(datasets)
    }
}

/// A run: everything that may be refused has been accepted.
struct Run<D: Device> {
    replicas: Replicas<D>,
    input: Input,
    prompting: Prompting,
    order: Order,
    /// One a setting.
    datasets: Vec<Dataset>,
    work: Work,
}

impl<D: Device> Run<D> {
    fn prepare(args: &Args, sources: Sources, devices: &Devices<'_, D>) -> Result<Self> {
        let Sources { expert, amateur, .. } = &sources;
        let config = args.capacity.config();
        let places = devices.replicas(|device| config.fits(device, expert, amateur.as_ref()))?;
        let mut replicas = weights::load(places, expert, amateur.as_ref(), &config)?;
        let variables = args.template_variables(replicas.first().text(), sources.earlier.manifest());
        replicas.set_template_variables(&variables);
        replicas.set_sanitize_control_tokens(args.prompting.sanitize_control_tokens);
        report_warnings(replicas.first().text());
        let engine = replicas.first();
        let text = engine.text();
        args.prompting.try_template(&sources.input, |conversation| match text.template() {
            Some(template) => template.render(conversation, &variables).and_then(|text| {
                let is_empty = || Error::Request("the chat template renders nothing".to_owned());
                if text.is_empty() { Err(is_empty()) } else { Ok(()) }
            }),
            None => engine.chat_ids(conversation).map(drop),
        })?;

        sources
            .settings
            .iter()
            .try_for_each(|setting| engine.check_settings(&args.request(&setting.contrast)))?;
        let windows = engine.windows();
        let window = |index: usize| windows.of(&sources.settings[index].contrast);
        let datasets = sources.datasets(args, engine.device(), &variables, |index| json!(window(index)))?;
        report_placement(replicas.count(), devices.gpus.len());
        let work = Work {
            output: Outputs::of(&sources.settings, &args.output).to_string(),
            total: sources.total(args),
            earlier: datasets.iter().map(|dataset| dataset.todo.ends()).sum(),
            limit: (args.max_tokens() as usize).min(windows.expert.max(windows.both)),
            ignores_stop_tokens: args.method.ignore_eos,
            max_tokens: args.given_max_tokens(),
        };
        Announcement {
            is_demonstration: !args.models.are_given(),
            expert,
            amateur: amateur.as_ref(),
            device: &replicas.first().device().info().description,
            method: &args.method,
            max_tokens: args.max_tokens(),
            contrasts: sources.settings.iter().map(|setting| &setting.contrast).collect(),
            seed: datasets.first().map_or(0, |dataset| dataset.todo.request.seed),
            input: &args.input,
            rows: sources.input.len(),
            output: &args.output,
            records_before: work.earlier.records(),
            records_total: work.total,
        }
        .print();
        let order = Order { settings: sources.settings.len(), samples: args.method.samples as usize };
        let prompting = args.prompting.clone();
        Ok(Self { replicas, input: sources.input, prompting, order, datasets, work })
    }

    /// Decodes what has no record yet, and writes each record as it finishes.
    fn decode(self, interrupt: &Interrupt) -> Result<Ended> {
        let Self { mut replicas, input, prompting, order, datasets, work } = self;
        let total = work.total;
        let (todo, mut written): (Vec<_>, Vec<_>) =
            datasets.into_iter().map(|dataset| (dataset.todo, dataset.written)).unzip();
        let mut progress = Progress::new(work);
        let left = (0..total).filter(|tag| {
            let JobIndex { row, setting, sample } = order.job(*tag);
            !todo[setting].done.contains(row, sample)
        });
        let requests = left.map(|tag| {
            let _range = profile::range(c"io");
            let JobIndex { row, setting, sample } = order.job(tag);
            let prompt = input.read(row)?;
            let id = prompt.id.key().to_owned();
            let prompt = prompting.prompt(prompt.body);
            Ok(Request { id, prompt, sample, tag, ..todo[setting].request.clone() })
        });
        let text = replicas.first().text().clone();
        interrupt.begin_decoding();
        let result = replicas.decode(requests, |Stepped { completions, stats }| {
            let _range = profile::range(c"io");
            report_warnings(&text);
            for completion in completions {
                let (end, tokens) = (Ends::of(&completion), completion.response_tokens());
                let JobIndex { row, setting, sample } = order.job(completion.tag);
                written[setting].append(input.read(row)?, sample, completion)?;
                progress.record(end, tokens);
            }
            progress.step(stats);
            Ok(if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        let is_complete = progress.is_complete();
        progress.finish();
        result?;
        Ended::close(written, is_complete)
    }
}

/// What is strange about the files or the prompts, and still works.
pub fn report_warnings(text: &Text) {
    for warning in text.take_warnings() {
        message!("warning: {warning}");
    }
}

/// Where there is a choice.
fn report_placement(replicas: usize, gpus: usize) {
    if gpus > 1 {
        let how = if replicas == gpus { "both models on each" } else { "expert and amateur on one each" };
        note!("{gpus} GPUs, {how}: {} of the pair", count(replicas, "replica"));
    }
}

impl Args {
    fn max_tokens(&self) -> u32 {
        self.given_max_tokens().unwrap_or(MAX_TOKENS)
    }

    /// That of the user or of the pair.
    fn given_max_tokens(&self) -> Option<u32> {
        self.method.max_tokens.or_else(|| self.models.pair().map(|pair| pair.max_tokens))
    }

    fn template_variables(&self, text: &Text, earlier: Option<&Manifest>) -> Map<String, Value> {
        self.prompting.template_variables(self.models.pair(), text, earlier)
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
        device: &D,
        window: Value,
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
        settings["max_model_len"] = window;
        settings["chat_template_kwargs"] = json!(variables);
        self.prompting.add_settings(&mut settings);
        format::settings(device).into_iter().for_each(|(name, format)| settings[name] = format);
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
