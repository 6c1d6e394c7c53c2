//! Measures how number formats change the contrast of a pair, on the CPU. It compares the distribution of each next
//! token with bf16 arithmetic or fp8 models to the distribution with stored weights, f32 arithmetic and an f32 cache.
//!
//! ```text
//! cargo bench --bench formats -- EXPERT AMATEUR PROMPTS.jsonl [PROMPTS [TOKENS]]
//! ```
//!
//! The pair answers the first prompts with stored weights and the method's defaults. Then both models read these
//! texts in each format, so every format sees the same tokens before each position.

use codit::contrast::{Distribution, Vocabulary};
use codit::dataset::{Body, Input};
use codit::device::cpu::Cpu;
use codit::device::inspect::Inspect;
use codit::device::{Batch, Capacity, Device, Dtype, Format, PerKind, Role, Span};
use codit::ids::{BlockId, TokenId};
use codit::model::decoder::Decoder;
use codit::{Checkpoint, Contrast, Engine, EngineConfig, Prompt, Request, Result};
use rayon::prelude::*;

/// Pairs of alpha and beta.
const METHODS: [(f64, f64); 3] = [(0.01, 1.0), (0.1, 1.0), (0.0, 0.0)];
const BLOCK: usize = 16;
/// Rows of logits computed at once.
const ROWS: usize = 64;

const STORED: Format = Format { weights: Dtype::F32, cache: Dtype::F32 };
const WEIGHTS: Format = Format { weights: Dtype::F8E4m3, cache: Dtype::F32 };
const CACHE: Format = Format { weights: Dtype::F32, cache: Dtype::F8E4m3 };
const ALL: Format = Format { weights: Dtype::F8E4m3, cache: Dtype::F8E4m3 };
const BF16: Format = Format { weights: Dtype::Bf16, cache: Dtype::F32 };
/// The formats that each model runs in.
const FORMATS: [Format; 5] = [STORED, WEIGHTS, CACHE, ALL, BF16];
/// The variants compared with both models as stored: a name, and the indices of the expert's and the amateur's
/// formats in [`FORMATS`].
const VARIANTS: [(&str, usize, usize); 6] = [
    ("bfloat16 arithmetic of both", 4, 4),
    ("weights of both", 1, 1),
    ("weights of the expert", 1, 0),
    ("weights of the amateur", 0, 1),
    ("cache of both", 2, 2),
    ("weights and cache of both", 3, 3),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, default: usize| {
        arguments.get(at).map_or(default, |text| text.parse().expect("a number of prompts or tokens"))
    };
    let [expert, amateur, prompts, ..] = &arguments[..] else {
        eprintln!("give the folders of an expert and an amateur, and a file of prompts");
        return Ok(());
    };
    let device = Cpu::new(None)?;
    let checkpoints = [Checkpoint::open(expert)?, Checkpoint::open(amateur)?];
    let (texts, vocabulary) = answer(&device, &checkpoints, prompts, number(3, 32), number(4, 96))?;
    let longest = texts.iter().map(|text| text.tokens.len()).max().unwrap_or(1);
    let mut models = checkpoints
        .iter()
        .map(|checkpoint| Model::load(&device, checkpoint, longest))
        .collect::<Result<Vec<_>>>()?;

    let mut comparisons: Vec<Comparison> = Vec::new();
    for text in &texts {
        let logits = models.iter_mut().map(|model| model.read(&device, text)).collect::<Result<Vec<_>>>()?;
        let rows = (0..text.tokens.len() - text.prompt).into_par_iter();
        comparisons.par_extend(rows.flat_map_iter(|row| compare(&logits, &vocabulary, row)));
    }
    report(&texts, &comparisons);
    Ok(())
}

/// A prompt and the pair's answer.
struct Text {
    tokens: Vec<TokenId>,
    /// The number of tokens that belong to the prompt.
    prompt: usize,
}

/// The pair's answers, of at most `tokens` tokens, to the first `count` prompts of a file.
fn answer(
    device: &Cpu,
    [expert, amateur]: &[Checkpoint; 2],
    prompts: &str,
    count: usize,
    tokens: usize,
) -> Result<(Vec<Text>, Vocabulary)> {
    let config = EngineConfig { max_num_seqs: 16, kv_cache_memory: Some(1 << 30), ..EngineConfig::default() };
    let mut engine = Engine::load(device.role(Role::Expert), expert, Some(amateur), &config)?;
    let input = Input::open(prompts)?;
    let mut prompts = Vec::new();
    for row in 0..count.min(input.len()) {
        let Body::Chat(conversation) = input.read(row)?.body else { continue };
        prompts.push(engine.chat_ids(&conversation)?);
        let request = Request { seed: 1, max_tokens: tokens, ..Request::new(row.to_string(), "") };
        engine.submit(Request { prompt: Prompt::Chat(conversation), ..request })?;
    }
    let mut answers = (&mut engine).collect::<Result<Vec<_>>>()?;
    answers.sort_by_key(|answer| answer.id.parse::<usize>().unwrap_or(0));
    let text = |(prompt, answer): (Vec<TokenId>, &codit::Completion)| Text {
        prompt: prompt.len(),
        tokens: [prompt, answer.tokens.clone()].concat(),
    };
    let vocabulary = engine.text().tokenizer().vocabulary().clone();
    Ok((prompts.into_iter().zip(&answers).map(text).collect(), vocabulary))
}

/// One model of the pair, for each format of the weights.
struct Model {
    stored: Decoder<Cpu>,
    fp8: Decoder<Cpu>,
    bf16: Decoder<Cpu>,
}

/// The logits at the positions where an answer was drawn, `[rows, width]`.
struct Logits {
    numbers: Vec<f32>,
    width: usize,
}

impl Logits {
    fn row(&self, row: usize) -> &[f32] {
        &self.numbers[row * self.width..][..self.width]
    }
}

impl Model {
    fn load(device: &Cpu, checkpoint: &Checkpoint, longest: usize) -> Result<Self> {
        let load = |format| Decoder::load(&in_format(device, format), checkpoint, longest, ROWS);
        Ok(Self { stored: load(STORED)?, fp8: load(WEIGHTS)?, bf16: load(BF16)? })
    }

    /// The model's logits in each of [`FORMATS`].
    fn read(&mut self, device: &Cpu, text: &Text) -> Result<Vec<Logits>> {
        let read = |format: Format| {
            let decoder = match format.weights {
                Dtype::F8E4m3 => &mut self.fp8,
                Dtype::Bf16 => &mut self.bf16,
                _ => &mut self.stored,
            };
            logits(&in_format(device, format), decoder, text)
        };
        FORMATS.into_iter().map(read).collect()
    }
}

fn in_format(device: &Cpu, format: Format) -> Cpu {
    device.role(Role::Expert).with_formats([format; 2])
}

fn logits(device: &Cpu, decoder: &mut Decoder<Cpu>, text: &Text) -> Result<Logits> {
    let (len, width) = (text.tokens.len(), decoder.spec().vocab_size);
    let blocks = len.div_ceil(BLOCK);
    let mut cache = device.cache(decoder.spec().cache_shape(BLOCK, PerKind::of(|_| blocks)))?;
    let table: Vec<BlockId> = (0..blocks as u32).map(BlockId).collect();
    let batch = Batch {
        tokens: text.tokens.clone(),
        positions: (0..len as u32).collect(),
        spans: vec![Span { tokens: 0..len, blocks: 0..blocks }],
        windowed_blocks: table.clone(),
        blocks: table,
        logits_indices: (text.prompt as u32 - 1..len as u32 - 1).collect(),
        ..Batch::default()
    };
    let vocabulary = Vocabulary::new(width, Vec::new());
    let capacity = Capacity { max_num_seqs: len, max_num_batched_tokens: len, block_size: BLOCK };
    let mut step = device.step(capacity, PerKind::of(|_| blocks), &vocabulary)?;
    device.prepare(&mut step, &batch, &[]);
    decoder.forward(device, &step, &mut cache);
    let count = batch.logits_indices.len();
    let mut numbers = Vec::with_capacity(count * width);
    for first in (0..count).step_by(ROWS) {
        let outputs = first..count.min(first + ROWS);
        numbers.extend(device.download(outputs.len(), decoder.logits(device, &step, outputs)));
    }
    Ok(Logits { numbers, width })
}

/// Compares each of [`VARIANTS`] by each of [`METHODS`] at one position; `logits` are `[model][format]`.
fn compare(logits: &[Vec<Logits>], vocabulary: &Vocabulary, row: usize) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (method, (alpha, beta)) in METHODS.into_iter().enumerate() {
        let contrast = Contrast { alpha, beta, ..Contrast::default() };
        let distribution = |expert: usize, amateur: usize| {
            let (expert, amateur) = (logits[0][expert].row(row), logits[1][amateur].row(row));
            Distribution::new(&contrast, vocabulary, expert, Some(amateur)).expect("numbers")
        };
        let stored = distribution(0, 0);
        for (variant, (_, expert, amateur)) in VARIANTS.into_iter().enumerate() {
            comparisons.push(Comparison::of(variant, method, &stored, &distribution(expert, amateur)));
        }
    }
    comparisons
}

/// How the distribution `p` of one next token differs from its counterpart `q` in another format.
struct Comparison {
    /// The index into [`VARIANTS`].
    variant: usize,
    /// The index into [`METHODS`].
    method: usize,
    /// Whether `p` and `q` have the same greedy token.
    agrees: bool,
    /// KL(p || q), with both distributions restricted to the tokens in both plausible sets.
    divergence: f64,
    /// The mass of `p` outside the plausible set of `q`.
    lost: f64,
    /// Half of the sum of |p - q|.
    variation: f64,
}

impl Comparison {
    fn of(variant: usize, method: usize, p: &Distribution, q: &Distribution) -> Self {
        let places = p.tokens.iter().map(|token| q.tokens.binary_search(token).ok()).enumerate();
        let held: Vec<[f64; 2]> =
            places.filter_map(|(of_p, of_q)| Some([p.scores[of_p], q.scores[of_q?]])).collect();
        let mass = |side: usize| held.iter().map(|scores| scores[side].exp()).sum::<f64>().min(1.0);
        let (of_p, of_q) = (mass(0), mass(1));
        let term = |[p, q]: &[f64; 2]| p.exp() / of_p * (p - of_p.ln() - (q - of_q.ln()));
        let difference: f64 = held.iter().map(|[p, q]| (p.exp() - q.exp()).abs()).sum();
        Self {
            variant,
            method,
            agrees: greedy(p) == greedy(q),
            divergence: held.iter().map(term).sum::<f64>().max(0.0),
            lost: 1.0 - of_p,
            variation: (difference + (1.0 - of_p) + (1.0 - of_q)) / 2.0,
        }
    }
}

/// The token with the greatest score; the lowest token if several tie.
fn greedy(distribution: &Distribution) -> Option<TokenId> {
    let best = distribution.s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    distribution.s.iter().position(|s| *s >= best).map(|at| distribution.tokens[at])
}

fn report(texts: &[Text], comparisons: &[Comparison]) {
    let tokens: usize = texts.iter().map(|text| text.tokens.len() - text.prompt).sum();
    println!("{} answers, {tokens} tokens\n", texts.len());
    println!(
        "| fp8 | alpha | beta | same greedy token | KL median | mean | 99th percentile | mass lost | total variation |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (variant, (name, ..)) in VARIANTS.into_iter().enumerate() {
        for (method, (alpha, beta)) in METHODS.into_iter().enumerate() {
            let these: Vec<&Comparison> =
                comparisons.iter().filter(|of| (of.variant, of.method) == (variant, method)).collect();
            let mean = |value: fn(&Comparison) -> f64| {
                these.iter().map(|comparison| value(comparison)).sum::<f64>() / these.len() as f64
            };
            let mut divergences: Vec<f64> = these.iter().map(|comparison| comparison.divergence).collect();
            divergences.sort_by(f64::total_cmp);
            let quantile = |part: f64| divergences[((divergences.len() - 1) as f64 * part) as usize];
            println!(
                "| {name} | {alpha} | {beta} | {:.1}% | {:.4} | {:.4} | {:.3} | {:.2}% | {:.3} |",
                100.0 * mean(|comparison| f64::from(u8::from(comparison.agrees))),
                quantile(0.5),
                mean(|comparison| comparison.divergence),
                quantile(0.99),
                100.0 * mean(|comparison| comparison.lost),
                mean(|comparison| comparison.variation),
            );
        }
    }
}
