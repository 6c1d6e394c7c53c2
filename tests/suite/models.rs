//! Compares the forward pass on the CPU device with results of transformers (`tests/golden/README.md`).

pub mod checkpoints;
mod configs;
mod hostile;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use codit::bench::profiled::Profiled;
use codit::checkpoint::Checkpoint;
use codit::contrast::{Contrast, Noise, Sampled, Vocabulary};
use codit::device::cpu::Cpu;
use codit::device::inspect::Inspect;
use codit::device::simt::Simt;
use codit::device::{AmateurLogits, Batch, Choice, Dtype, ExpertLogits, Format, PerKind, SampleRow, Span};
use codit::doctor::relative_error;
use codit::ids::{BlockId, TokenId};
use codit::model::Decoder;
use codit::model::spec::Spec;
use codit::model::spec::stop_tokens;
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::cpu::instruction_sets;
use crate::step::{begin, begin_forward, end};

const BLOCK_SIZE: usize = 16;
const BLOCKS: usize = 128;
const MAX_NUM_BATCHED_TOKENS: usize = 1024;
const LOGITS_ROWS: usize = 10;

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(case)
}

/// Runs `test` for every golden case that a directory of `tests/golden/models` holds.
fn for_each_case(mut test: impl FnMut(&Path)) {
    let mut cases: Vec<_> = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 12, "{cases:?}");
    for case in cases {
        println!("{}", case.display());
        test(&case);
    }
}

/// A decoder with its own cache.
struct Model<D: Inspect> {
    decoder: Decoder<D>,
    cache: D::Cache,
}

impl<D: Inspect> Model<D> {
    fn load(device: &D, folder: &Path) -> Self {
        Self::open(device, &Checkpoint::open(folder).unwrap())
    }

    fn open(device: &D, checkpoint: &Checkpoint) -> Self {
        let decoder = Decoder::load(device, checkpoint, MAX_NUM_BATCHED_TOKENS, LOGITS_ROWS).unwrap();
        let cache = device.cache(decoder.spec().cache_shape(BLOCK_SIZE, PerKind::of(|_| BLOCKS))).unwrap();
        Self { decoder, cache }
    }

    /// The logits of the outputs of `batch`, one row per output.
    fn logits(&mut self, device: &D, batch: &Batch) -> Vec<Vec<f32>> {
        let step = begin_forward(device, BLOCK_SIZE, batch);
        self.decoder.forward(device, &step, &mut self.cache);
        let (count, width) = (batch.logits_indices.len(), self.decoder.spec().vocab_size);
        let slices = (0..count).step_by(LOGITS_ROWS).flat_map(|first| {
            let outputs = first..count.min(first + LOGITS_ROWS);
            device.download(outputs.len(), self.decoder.logits(device, &step, outputs))
        });
        slices.collect::<Vec<_>>().chunks(width).map(<[f32]>::to_vec).collect()
    }
}

/// A sequence: its tokens, how many of them are in the cache, and in which blocks.
#[derive(Clone)]
struct Sequence {
    tokens: Vec<TokenId>,
    cached: usize,
    blocks: Vec<BlockId>,
}

impl Sequence {
    /// Adds the next `count` tokens to `batch`.
    fn advance(&mut self, count: usize, batch: &mut Batch) {
        let (rows, blocks, end) = (batch.tokens.len(), batch.blocks.len(), self.cached + count);
        batch.tokens.extend(&self.tokens[self.cached..end]);
        batch.positions.extend(self.cached as u32..end as u32);
        batch.blocks.extend(&self.blocks[..end.div_ceil(BLOCK_SIZE)]);
        batch.windowed_blocks.clone_from(&batch.blocks);
        batch.spans.push(Span { tokens: rows..rows + count, blocks: blocks..batch.blocks.len() });
        self.cached = end;
    }

    fn left(&self) -> usize {
        self.tokens.len() - self.cached
    }
}

/// Distributes the pool's blocks over the sequences, in a random order.
fn sequences(
    texts: impl IntoIterator<Item = Vec<TokenId>>,
    room: usize,
    random: &mut Random,
) -> Vec<Sequence> {
    let mut pool: Vec<_> = (0..BLOCKS as u32).map(BlockId).collect();
    random.shuffle(&mut pool);
    let mut deal = |tokens| Sequence { tokens, cached: 0, blocks: pool.split_off(pool.len() - room) };
    texts.into_iter().map(&mut deal).collect()
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) % bound as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// The content of golden.safetensors of a case.
struct Logits {
    texts: Vec<Vec<TokenId>>,
    positions: Vec<usize>,
    /// `[model][text][position]`, one row of logits each; model 0 is the expert.
    rows: [Vec<Vec<Vec<f32>>>; 2],
    /// `[model][text][mixture]`, with `[len, active]` choices each; empty for models without mixtures.
    routings: [Vec<Vec<Vec<Choice>>>; 2],
}

impl Logits {
    fn read(case: &Path) -> Self {
        let bytes = fs::read(case.join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let integers = |name: &str| -> Vec<usize> {
            let data = file.tensor(name).unwrap().data().to_vec();
            data.chunks_exact(8).map(|x| i64::from_le_bytes(x.try_into().unwrap()) as usize).collect()
        };
        let floats = |name: &str| -> Vec<Vec<Vec<f32>>> {
            let tensor = file.tensor(name).unwrap();
            let &[.., positions, width] = tensor.shape() else { panic!("{:?}", tensor.shape()) };
            let rows = tensor
                .data()
                .chunks_exact(width * 4)
                .map(|row| row.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect());
            rows.collect::<Vec<_>>().chunks_exact(positions).map(<[_]>::to_vec).collect()
        };
        let routings = |model: &str| -> Vec<Vec<Vec<Choice>>> {
            let Ok(branches) = file.tensor(&format!("{model}_branches")) else { return Vec::new() };
            let &[mixtures, texts, length, active] = branches.shape() else {
                panic!("{:?}", branches.shape())
            };
            let branches = integers(&format!("{model}_branches")).into_iter().map(|branch| branch as u32);
            let weights = floats(&format!("{model}_branch_weights")).concat().concat();
            let choice = |(branch, weight)| Choice { branch, weight };
            let choices: Vec<_> = branches.zip(weights).map(choice).collect();
            let of_text = |text: usize| {
                let rows = |mixture: usize| {
                    choices[(mixture * texts + text) * length * active..][..length * active].to_vec()
                };
                (0..mixtures).map(rows).collect()
            };
            (0..texts).map(of_text).collect()
        };
        let length = file.tensor("input_ids").unwrap().shape()[1];
        let text = |ids: &[usize]| ids.iter().map(|&id| TokenId(id as u32)).collect();
        Self {
            texts: integers("input_ids").chunks_exact(length).map(text).collect(),
            positions: integers("positions"),
            rows: ["expert_logits", "amateur_logits"].map(floats),
            routings: ["expert", "amateur"].map(routings),
        }
    }

    /// The logits of one model at the golden positions, `[text][position]`. Each text is read as one chunk.
    fn at_once<D: Inspect>(&self, device: &D, model: &mut Model<D>) -> Vec<Vec<Vec<f32>>> {
        let rows: Vec<_> = self.positions.iter().map(|&position| position as u32).collect();
        let read = |mut sequence: Sequence| {
            let mut batch = Batch { logits_indices: rows.clone(), ..Batch::default() };
            sequence.advance(sequence.left(), &mut batch);
            model.logits(device, &batch)
        };
        sequences(self.texts.clone(), BLOCKS / 8, &mut Random(0)).into_iter().map(read).collect()
    }

    /// The same logits, computed in random chunks of several sequences at once, with scrambled blocks and order.
    /// Texts appear twice, and the copies must agree with each other.
    fn in_chunks<D: Inspect>(
        &self,
        device: &D,
        model: &mut Model<D>,
        random: &mut Random,
    ) -> Vec<Vec<Vec<f32>>> {
        let texts = self.texts.iter().chain(&self.texts).cloned();
        let mut left: Vec<_> = sequences(texts, BLOCKS / 8, random).into_iter().enumerate().collect();
        let mut found = BTreeMap::new();
        while !left.is_empty() {
            random.shuffle(&mut left);
            let running = 1 + random.below(left.len());
            let (mut batch, mut wanted) = (Batch::default(), Vec::new());
            for (index, sequence) in &mut left[..running] {
                let count = 1 + random.below(sequence.left().min(23));
                let first = (batch.tokens.len(), sequence.cached);
                sequence.advance(count, &mut batch);
                let inside = self.positions.iter().filter(|&&p| (first.1..sequence.cached).contains(&p));
                wanted.extend(inside.map(|p| ((p - first.1 + first.0) as u32, (*index, *p))));
            }
            random.shuffle(&mut wanted);
            let places: Vec<_>;
            (batch.logits_indices, places) = wanted.into_iter().unzip();
            found.extend(places.into_iter().zip(model.logits(device, &batch)));
            left.retain(|(_, sequence)| sequence.left() > 0);
        }
        let rows: Vec<_> = found.into_values().collect();
        let mut texts: Vec<_> = rows.chunks_exact(self.positions.len()).map(<[_]>::to_vec).collect();
        let copies = texts.split_off(self.texts.len());
        assert!(texts == copies);
        texts
    }
}

#[test]
fn logits_are_those_of_transformers_however_cut_into_chunks() {
    compare_logits(&Cpu::new(Some(2)).unwrap(), 4);
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    compare_continuations(&Cpu::new(Some(2)).unwrap());
}

/// Runs the GPU code in f32 on the host, under a shuffled order of threads.
#[test]
fn logits_of_the_kernels_equal_those_of_transformers() {
    compare_logits(&Simt::simt(Dtype::F32, 3), 2);
}

#[test]
fn continuations_of_the_kernels_equal_those_of_transformers() {
    compare_continuations(&Simt::simt(Dtype::F32, 4));
}

/// Computes as the GPU does by default: activations are rounded after every operation.
#[test]
fn logits_of_the_kernels_in_bf16_are_as_near_as_those_of_transformers() {
    compare_logits_in_bf16(&Simt::simt(Dtype::Bf16, 5));
}

#[test]
fn logits_of_the_cpu_in_bf16_are_as_near_as_those_of_transformers() {
    compare_logits_in_bf16(&Cpu::new(Some(2)).unwrap().with_formats([Format::of(Dtype::Bf16); 2]));
}

/// Compares the logits of every golden case on `device`, which computes in bf16, with those of transformers in f32. They
/// may be as far from them as those of transformers in bf16 are.
///
/// Where rounding decides between two branches of a mixture, the logits are much farther away. This meets other tokens in
/// other programs, so every mixture has the bound of the mixture that it meets in transformers.
fn compare_logits_in_bf16<D: Inspect>(device: &D) {
    let distances = fs::read(golden("../bf16.json")).unwrap();
    let distances: BTreeMap<String, BTreeMap<String, f64>> = serde_json::from_slice(&distances).unwrap();
    let rerouted = distances["qwen3-moe-unlike"]["expert"];
    for_each_case(|case| {
        let golden = Logits::read(case);
        let models = ["expert", "amateur"].into_iter().zip(&golden.rows).zip(&golden.routings);
        for ((name, expected), routings) in models {
            let found = golden.at_once(device, &mut Model::load(device, &case.join(name)));
            let flat = |rows: &[Vec<Vec<f32>>]| rows.concat().concat();
            let error = relative_error(&flat(&found), &flat(expected));
            let own = distances[case.file_name().unwrap().to_str().unwrap()][name];
            let bound = if routings.is_empty() { own } else { rerouted };
            println!("  {name}: {error:.1e} of {bound:.1e}, {:.2}", error / bound);
            assert!(error <= bound, "{name}: {error}, transformers {bound}");
        }
    });
}

/// Compares the logits of every golden case on `device`, which computes in f32. The bits must be the same for `ways`
/// different ways of cutting the texts into chunks.
fn compare_logits<D: Inspect>(device: &D, ways: u64) {
    for_each_case(|case| {
        let golden = Logits::read(case);
        for (name, expected) in ["expert", "amateur"].into_iter().zip(&golden.rows) {
            let mut model = Model::load(device, &case.join(name));
            let found = golden.at_once(device, &mut model);
            let difference = difference(&found, expected);
            println!("  {name}: {difference:.1e}");
            assert!(difference < 1e-4, "{name}: {difference}");
            for seed in 0..ways {
                let chunked = golden.in_chunks(device, &mut model, &mut Random(seed));
                assert!(chunked == found, "{name}, seed {seed}");
            }
        }
    });
}

#[test]
fn the_routing_of_mixtures_is_that_of_transformers() {
    compare_routings(Cpu::new(Some(2)).unwrap());
    compare_routings(Simt::simt(Dtype::F32, 5));
}

/// Compares every choice of an expert branch, for every token and mixture of the golden cases with mixtures.
fn compare_routings<D: Inspect>(device: D) {
    let device = Profiled::new(device);
    for_each_case(|case| {
        let golden = Logits::read(case);
        for (name, expected) in ["expert", "amateur"].into_iter().zip(&golden.routings) {
            let expected: Vec<_> = expected.concat();
            if expected.is_empty() {
                continue;
            }
            device.take_routings();
            golden.at_once(&device, &mut Model::load(&device, &case.join(name)));
            let found = device.take_routings();
            assert_eq!(found.len(), expected.len(), "{name}");
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.len(), expected.len(), "{name}");
                for (visit, (found, expected)) in found.iter().zip(expected).enumerate() {
                    assert_eq!(found.branch, expected.branch, "{name}, visit {visit}");
                    assert!((found.weight - expected.weight).abs() < 1e-5, "{name}: {found:?}, {expected:?}");
                }
            }
        }
    });
}

/// The logits of two instruction sets differ by no more than the tolerance for the difference from transformers.
///
/// There are always two instruction sets to compare, because the doctor's reference, which sums in f64, counts as
/// one.
#[test]
fn instruction_sets_agree_on_the_logits() {
    for_each_case(|case| {
        let golden = Logits::read(case);
        for name in ["expert", "amateur"] {
            let logits = |isa| {
                let device = Cpu::limited(Some(2), isa).unwrap();
                golden.at_once(&device, &mut Model::load(&device, &case.join(name)))
            };
            let all: Vec<_> = instruction_sets().map(|isa| (isa.name(), logits(isa))).collect();
            assert!(all.len() > 1);
            for (index, (first, expected)) in all.iter().enumerate() {
                for (second, found) in &all[index + 1..] {
                    let difference = difference(found, expected);
                    println!("  {name}, {first} and {second}: {difference:.1e}");
                    assert!(difference < 1e-4, "{name}, {first} and {second}: {difference}");
                }
            }
        }
    });
}

/// The largest difference between two logits.
fn difference(found: &[Vec<Vec<f32>>], expected: &[Vec<Vec<f32>>]) -> f32 {
    let flat = |rows: &[Vec<Vec<f32>>]| rows.concat().concat();
    let (found, expected) = (flat(found), flat(expected));
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(&expected).map(|(f, e)| (f - e).abs());
    differences.fold(0.0, |most, d| if d.is_nan() { d } else { most.max(d) })
}

#[test]
fn files_within_the_program_serve_as_well_as_a_folder() {
    let device = Cpu::new(Some(1)).unwrap();
    let folder = golden("llama-gqa8-shards").join("expert");
    let file = |entry: fs::DirEntry| -> (&str, &[u8]) {
        (entry.file_name().into_string().unwrap().leak(), fs::read(entry.path()).unwrap().leak())
    };
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| file(entry.unwrap())).collect();
    let embedded = Checkpoint::embedded("pocket", files.leak());
    assert_eq!(stop_tokens(&embedded).unwrap(), stop_tokens(&Checkpoint::open(&folder).unwrap()).unwrap());

    let text = Logits::read(&golden("llama-gqa8-shards"));
    let mut model = Model::open(&device, &embedded);
    assert!(text.at_once(&device, &mut model) == text.at_once(&device, &mut Model::load(&device, &folder)));
}

/// The content of golden.json of a case.
#[derive(Deserialize)]
struct Continuations {
    vocab: usize,
    eos: Vec<TokenId>,
    #[serde(rename = "continuations")]
    runs: Vec<Continuation>,
}

#[derive(Deserialize)]
struct Continuation {
    prompt: Vec<TokenId>,
    alpha: f64,
    beta: f64,
    max_tokens: usize,
    tokens: Vec<TokenId>,
    scores: Vec<f32>,
    margins: Vec<Option<f64>>,
    #[serde(rename = "heads")]
    num_candidates: Vec<u32>,
}

/// Compares the greedy continuations of every golden case on `device`, which computes in f32.
fn compare_continuations<D: Inspect>(device: &D) {
    for_each_case(|case| {
        let golden: Continuations =
            serde_json::from_slice(&fs::read(case.join("golden.json")).unwrap()).unwrap();
        assert_eq!(stop_tokens(&Checkpoint::open(case.join("expert")).unwrap()).unwrap(), golden.eos);
        continue_all(device, case, &golden);
    });
}

/// Decodes all continuations of a case, one batch per step.
fn continue_all<D: Inspect>(device: &D, case: &Path, golden: &Continuations) {
    let mut pair = ["expert", "amateur"].map(|name| Model::load(device, &case.join(name)));
    let prompts = golden.runs.iter().map(|run| run.prompt.clone());
    let mut running: Vec<_> =
        golden.runs.iter().zip(sequences(prompts, BLOCKS / 10, &mut Random(1))).collect();
    let vocabulary = Vocabulary::new(golden.vocab, vec![]);
    while !running.is_empty() {
        let mut batch = Batch::default();
        for (_, sequence) in &mut running {
            sequence.advance(sequence.left(), &mut batch);
        }
        batch.logits_indices = batch.spans.iter().map(|span| span.tokens.end as u32 - 1).collect();
        let rows: Vec<_> = running.iter().map(|(run, sequence)| run.sample_row(sequence)).collect();
        let mut step = begin(device, BLOCK_SIZE, &vocabulary, &batch, &rows);
        for model in &mut pair {
            model.decoder.forward(device, &step, &mut model.cache);
        }
        let outputs = 0..batch.logits_indices.len();
        let [expert, amateur] =
            pair.each_mut().map(|model| model.decoder.logits(device, &step, outputs.clone()));
        let (expert, amateur) = (ExpertLogits::Computed(expert), AmateurLogits::Computed(amateur));
        device.sample(&mut step, outputs, expert, amateur);
        let mut sampled = end(device, step).into_iter().map(Result::unwrap);
        running.retain_mut(|(run, sequence)| {
            let (step, sampled) = (sequence.cached - run.prompt.len(), sampled.next().unwrap());
            sequence.tokens.push(sampled.token);
            run.is_clear_at(step) && run.goes_on(step, sampled, &golden.eos)
        });
    }
}

impl Continuation {
    fn sample_row(&self, sequence: &Sequence) -> SampleRow {
        let (alpha, beta) = (self.alpha, self.beta);
        let contrast = Contrast { alpha, beta, temperature: 0.0, ..Contrast::default() };
        SampleRow {
            contrast,
            noise: Noise::new(0, "", 0),
            position: sequence.cached as u32,
            log_probabilities: false,
            deferred_row: None,
        }
    }

    /// Whether a different order of summation cannot change the token of this step, and therefore the tokens after
    /// it.
    fn is_clear_at(&self, step: usize) -> bool {
        self.margins[step].is_none_or(|margin| margin > 1e-3)
    }

    /// Compares one step; returns whether another step follows.
    fn goes_on(&self, step: usize, sampled: Sampled, eos: &[TokenId]) -> bool {
        let expected = (self.tokens[step], self.num_candidates[step]);
        assert_eq!((sampled.token, sampled.num_candidates), expected, "step {step}");
        assert!((sampled.score - self.scores[step]).abs() < 1e-4, "step {step}: {}", sampled.score);
        let last = eos.contains(&sampled.token) || step + 1 == self.max_tokens;
        assert_eq!(last, step + 1 == self.tokens.len());
        !last
    }
}

/// A family of models counts as supported only if the goldens contain results of transformers for it and the user
/// documentation names it.
#[test]
fn every_architecture_has_a_golden_case_and_is_documented() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), r#"{"architectures": ["none"]}"#).unwrap();
    let refusal = Spec::open(&Checkpoint::open(folder.path()).unwrap()).unwrap_err().to_string();
    let (_, supported) = refusal.split_once("supported architectures: ").expect("the refusal lists all");
    let mut golden_configs = String::new();
    for_each_case(|case| {
        for role in ["expert", "amateur"] {
            golden_configs += &fs::read_to_string(case.join(role).join("config.json")).unwrap();
        }
    });
    let guide = read("docs/guide/models.md");
    for architecture in supported.split(", ") {
        // `Gemma3TextModel` is the decoder of `Gemma3ForCausalLM`; `checkpoints.rs` tests it by renaming a golden
        // case's tensors.
        let has_case =
            architecture == "Gemma3TextModel" || golden_configs.contains(&format!("\"{architecture}\""));
        assert!(has_case, "no case of tests/golden/models is a {architecture}; add one to make_models.py");
        assert!(
            guide.contains(&format!("`{architecture}`")),
            "docs/guide/models.md does not name {architecture}"
        );
    }
}

/// The guide's table of families is the full list; the pages that users see first name each family by its first word.
#[test]
fn every_family_of_the_guide_is_on_the_first_pages() {
    let guide = read("docs/guide/models.md");
    let (_, table) = guide.split_once("\n| family |").expect("the guide has a table of families");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let families: Vec<&str> =
        rows.filter_map(|row| row.split(['|', ',', ' ']).find(|word| !word.is_empty())).collect();
    assert!(families.contains(&"Llama"), "{families:?}");
    for page in ["README.md", "src/lib.rs"] {
        let text = read(page);
        for family in &families {
            assert!(text.contains(family), "{page} does not name the family {family}");
        }
    }
}

/// The table says what a case covers, and the script can write the case again.
#[test]
fn every_golden_case_is_in_the_table_and_in_the_script() {
    let (table, script) = (read("tests/golden/README.md"), read("tests/golden/make_models.py"));
    for_each_case(|case| {
        let name = case.file_name().unwrap().to_str().unwrap();
        let has_row = table.contains(&format!("\n| `{name}` |"));
        assert!(has_row, "the table of tests/golden/README.md has no row for {name}");
        let has_entry = script.contains(&format!("\n    \"{name}\": case("));
        assert!(has_entry, "CASES of tests/golden/make_models.py has no {name}");
    });
}

/// A file of this repository.
fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}
