//! Times the CPU device: its operations at the shapes of SmolLM2-135M, or whole steps of a pair.
//!
//! ```text
//! cargo bench --bench cpu                          every operation at several numbers of rows
//! cargo bench --bench cpu -- EXPERT AMATEUR [ROWS] decode steps of two checkpoint folders; ROWS 0: a prefill
//! ```
//!
//! Prints the best and the median of several repetitions. On a machine with other work, the best is closer to the
//! true time.

use std::hint::black_box;
use std::time::Instant;

use codit::checkpoint::{Bytes, Checkpoint};
use codit::contrast::{Contrast, Noise, Vocabulary};
use codit::device::cpu::{Cpu, Isa};
use codit::device::inspect::Inspect;
use codit::device::{
    Activation, AmateurLogits, AttentionShape, Batch, CacheLayer, CacheShape, Capacity, Device, Dtype,
    ExpertLogits, Format, Heads, Norm, PerKind, Precision, SampleRow, Span, TensorView,
};
use codit::ids::{BlockId, TokenId};
use codit::model::decoder::Decoder;

const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const VOCABULARY: usize = 49_152;
const HEADS: Heads = Heads { query: 9, key_value: 3, dim: 64 };
const BLOCK: usize = 16;
const CONTEXT: usize = 128;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [] => operations(),
        [expert, amateur] => steps(expert, amateur, &[1, 4, 16, 64]),
        [expert, amateur, rows] => steps(expert, amateur, &[rows.parse().expect("a number of rows")]),
        _ => eprintln!("give nothing, or the folders of an expert and an amateur"),
    }
}

/// The best and the median time in seconds of `count` repetitions of `work`. `work` runs within the device's threads,
/// as whole steps do in the engine.
fn time(cpu: &Cpu, count: usize, work: impl FnMut() + Send) -> (f64, f64) {
    cpu.join(|_| repeat(count, work), |_| ()).0
}

fn repeat(count: usize, mut work: impl FnMut()) -> (f64, f64) {
    work();
    let mut seconds: Vec<f64> = (0..count)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (seconds[0], seconds[count / 2])
}

fn report(name: &str, rows: usize, (best, median): (f64, f64), bytes: f64, operations: f64) {
    println!(
        "{name:<22} {rows:>4} rows  {:>9.1} us best {:>9.1} us median  {:>6.1} GB/s {:>7.1} GFLOP/s",
        best * 1e6,
        median * 1e6,
        bytes / best / 1e9,
        operations / best / 1e9
    );
}

fn numbers(count: usize) -> impl Iterator<Item = half::bf16> {
    let mut state = 1u32;
    let element = move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        half::bf16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..count).map(element)
}

fn view(name: &str, shape: &[usize]) -> TensorView {
    let bytes: Vec<u8> = numbers(shape.iter().product()).flat_map(half::bf16::to_le_bytes).collect();
    TensorView {
        name: name.to_owned(),
        dtype: Dtype::Bf16,
        shape: shape.to_vec(),
        range: 0..bytes.len(),
        file: Bytes::Static(bytes.leak()),
    }
}

fn operations() {
    let in_bf16 = |cpu: Cpu| cpu.with_formats([Format::of(Dtype::Bf16); 2]);
    let devices = [
        ("bf16", Cpu::new(None).map(in_bf16)),
        ("f32", Cpu::new(None)),
        ("f32 avx512", Cpu::limited(None, Isa::Avx512)),
        ("f32 avx2", Cpu::limited(None, Isa::Avx2)),
    ];
    // There are enough layers that their weights do not stay in the processor's caches.
    let layers = 8;
    let matrices = |n: usize, k: usize| (0..layers).map(|_| view("w", &[n, k])).collect::<Vec<_>>();
    let gate_up = matrices(2 * INTERMEDIATE, HIDDEN);
    let down = matrices(HIDDEN, INTERMEDIATE);
    let lm_head = vec![view("lm_head", &[VOCABULARY, HIDDEN])];
    for (path, cpu) in devices.map(|(path, cpu)| (path, cpu.expect("a device"))) {
        for (name, views) in [("gate_up", &gate_up), ("down", &down), ("lm_head", &lm_head)] {
            let weights: Vec<_> =
                views.iter().map(|view| cpu.weight(std::slice::from_ref(view)).expect("a weight")).collect();
            let (n, k) = (views[0].shape[0], views[0].shape[1]);
            for rows in [1, 4, 16, 64, 512] {
                if name == "lm_head" && rows > 64 {
                    continue;
                }
                let (x, mut out) = (random(&cpu, rows, k), tensor(&cpu, rows, n));
                let mut next = 0;
                let seconds = time(&cpu, if rows > 64 { 20 } else { 60 }, || {
                    next = (next + 1) % weights.len();
                    cpu.matmul(rows, &x, &weights[next], None, &mut out);
                });
                report(
                    &format!("{name} {path}"),
                    rows,
                    seconds,
                    (2 * n * k) as f64,
                    (2 * n * k * rows) as f64,
                );
            }
        }
    }
    let cpu = Cpu::new(None).expect("a device");
    for rows in [1, 16, 64, 512] {
        attention(&cpu, rows);
        elementwise(&cpu, rows);
        if rows <= 64 {
            sample(&cpu, rows);
        }
    }
}

fn tensor(cpu: &Cpu, rows: usize, width: usize) -> <Cpu as Device>::Tensor {
    cpu.tensor(rows, width, Precision::Working).expect("room")
}

fn random(cpu: &Cpu, rows: usize, width: usize) -> <Cpu as Device>::Tensor {
    let mut tensor = tensor(cpu, rows, width);
    let values: Vec<f32> = numbers(rows * width).map(half::bf16::to_f32).collect();
    cpu.upload(&values, &mut tensor);
    tensor
}

/// A step with enough capacity for everything that is timed.
fn step(cpu: &Cpu, vocabulary: &Vocabulary) -> <Cpu as Device>::Step {
    let (tokens, blocks) = (64 * 12, 64 * 12);
    let capacity = Capacity { max_num_seqs: tokens, max_num_batched_tokens: tokens, block_size: BLOCK };
    cpu.step(capacity, PerKind::only_full(blocks), vocabulary).expect("room")
}

/// Prepares a step for `batch`; the step samples nothing.
fn begin(cpu: &Cpu, batch: &Batch) -> <Cpu as Device>::Step {
    let mut step = step(cpu, &Vocabulary::new(VOCABULARY, vec![]));
    cpu.prepare(&mut step, &for_all_layers(batch.clone()), &[]);
    step
}

/// The batch with the same block tables for layers with a window.
fn for_all_layers(batch: Batch) -> Batch {
    Batch { windowed_blocks: batch.blocks.clone(), ..batch }
}

/// A decode step of `rows` sequences at position `position`.
fn decode(rows: usize, position: usize) -> Batch {
    let table = CONTEXT.max(position + 1).div_ceil(BLOCK);
    Batch {
        tokens: (0..rows as u32).map(|row| TokenId(row * 97 % 40_000)).collect(),
        positions: vec![position as u32; rows],
        spans: (0..rows)
            .map(|row| Span { tokens: row..row + 1, blocks: row * table..(row + 1) * table })
            .collect(),
        blocks: (0..(rows * table) as u32).map(BlockId).collect(),
        logits_indices: (0..rows as u32).collect(),
        ..Batch::default()
    }
}

fn attention(cpu: &Cpu, rows: usize) {
    let batch = decode(rows, CONTEXT - 1);
    let shape = CacheShape {
        layers: PerKind::only_full(8),
        heads: HEADS.key_value,
        group: HEADS.query / HEADS.key_value,
        head_dim: HEADS.dim,
        block_size: BLOCK,
        blocks: PerKind::only_full(batch.blocks.len()),
    };
    let mut cache = cpu.cache(shape).expect("room");
    let mut qkv = random(cpu, rows, HEADS.qkv_width());
    let mut out = tensor(cpu, rows, HEADS.query_width());
    let rope = cpu.rope(&[0.01; 32], 1.0).expect("rope");
    let step = begin(cpu, &batch);
    let mut layer = 0;
    let seconds = time(cpu, 50, || {
        layer = (layer + 1) % 8;
        cpu.rope_store(&step, HEADS, None, &rope, CacheLayer::full(layer), &mut qkv, &mut cache);
    });
    report("rope_store", rows, seconds, 0.0, 0.0);
    let seconds = time(cpu, 50, || {
        layer = (layer + 1) % 8;
        let shape =
            AttentionShape { heads: HEADS, scale: 0.125, window: None, layer: CacheLayer::full(layer) };
        cpu.attention(&step, shape, &qkv, &cache, &mut out);
    });
    let bytes = (rows * CONTEXT * HEADS.key_value * HEADS.dim * 2 * 4) as f64;
    report("attention, 128 back", rows, seconds, bytes, bytes / 2.0 * 3.0);
}

fn elementwise(cpu: &Cpu, rows: usize) {
    let norm = Norm {
        weight: cpu.weight(&[view("norm", &[HIDDEN])]).expect("a weight"),
        epsilon: 1e-5,
        unit_offset: false,
    };
    let (delta, mut residual, mut out) =
        (random(cpu, rows, HIDDEN), random(cpu, rows, HIDDEN), tensor(cpu, rows, HIDDEN));
    let seconds =
        time(cpu, 50, || cpu.rms_norm(rows, Some((&delta, None)), &mut residual, Some(&norm), &mut out));
    report("rms_norm", rows, seconds, (rows * HIDDEN * 16) as f64, 0.0);
    let (x, mut out) = (random(cpu, rows, 2 * INTERMEDIATE), tensor(cpu, rows, INTERMEDIATE));
    let seconds = time(cpu, 50, || cpu.gated(rows, INTERMEDIATE, Activation::Silu, &x, &mut out));
    report("gated", rows, seconds, (rows * INTERMEDIATE * 12) as f64, 0.0);
}

fn sample(cpu: &Cpu, rows: usize) {
    let (expert, amateur) = (random(cpu, rows, VOCABULARY), random(cpu, rows, VOCABULARY));
    let vocabulary = Vocabulary::new(VOCABULARY, vec![TokenId(2)]);
    for (name, contrast) in [
        ("sample alpha 0.9", Contrast { alpha: 0.9, ..Contrast::default() }),
        ("sample direct", Contrast::direct()),
        ("sample direct top-p", Contrast { top_p: 0.9, ..Contrast::direct() }),
        ("sample alpha 0", Contrast { alpha: 0.0, ..Contrast::default() }),
    ] {
        let noise = Noise::new(1, "bench", 0);
        let samples: Vec<_> = (0..rows as u32)
            .map(|position| SampleRow {
                contrast,
                noise,
                position,
                log_probabilities: false,
                deferred_row: None,
            })
            .collect();
        let batch = decode(rows, 0);
        let mut step = step(cpu, &vocabulary);
        let seconds = time(cpu, 20, || {
            cpu.prepare(&mut step, &batch, &samples);
            let (expert, amateur) = (ExpertLogits::Computed(&expert), AmateurLogits::Computed(&amateur));
            cpu.sample(&mut step, 0..rows, expert, amateur);
            cpu.submit(&mut step);
            black_box(cpu.collect(&mut step).expect("results"));
        });
        report(name, rows, seconds, (rows * VOCABULARY * 4) as f64, 0.0);
    }
}

fn steps(expert: &str, amateur: &str, rows: &[usize]) {
    let cpu = Cpu::new(None).expect("a device");
    let load = |folder: &str| {
        let checkpoint = Checkpoint::open(folder).expect("a checkpoint");
        Decoder::load(&cpu, &checkpoint, 512, 64).expect("a decoder")
    };
    let (mut expert, mut amateur) = (load(expert), load(amateur));
    let blocks = 64 * 12;
    let mut caches = [&expert, &amateur]
        .map(|d| cpu.cache(d.spec().cache_shape(BLOCK, PerKind::of(|_| blocks))).expect("room"));
    let [expert_cache, amateur_cache] = &mut caches;
    let vocabulary = Vocabulary::new(expert.spec().vocab_size.min(amateur.spec().vocab_size), vec![]);
    let prefill = |rows: usize| Batch {
        tokens: (0..rows as u32 * 64).map(|token| TokenId(token * 31 % 40_000)).collect(),
        positions: (0..rows as u32 * 64).map(|token| token % 64).collect(),
        spans: (0..rows)
            .map(|row| Span { tokens: row * 64..(row + 1) * 64, blocks: row * 12..row * 12 + 12 })
            .collect(),
        blocks: (0..rows as u32 * 12).map(BlockId).collect(),
        logits_indices: (0..rows as u32).map(|row| row * 64 + 63).collect(),
        ..Batch::default()
    };
    let step_of = |rows| {
        let mut batch = decode(rows, 160);
        batch.blocks = (0..64 * 12).map(BlockId).collect();
        batch.spans.iter_mut().enumerate().for_each(|(row, span)| span.blocks = row * 12..row * 12 + 12);
        batch
    };
    // The system allocates memory at the first write. One position per block is enough to trigger it.
    for sequences in (0..64).step_by(32) {
        let mut batch = Batch { blocks: (0..64 * 12).map(BlockId).collect(), ..Batch::default() };
        for sequence in sequences..sequences + 32 {
            let first = batch.tokens.len();
            batch.tokens.extend([TokenId(1); 12]);
            batch.positions.extend((0..12).map(|block| block * BLOCK as u32));
            batch.spans.push(Span { tokens: first..first + 12, blocks: sequence * 12..sequence * 12 + 12 });
        }
        let step = begin(&cpu, &batch);
        expert.forward(&cpu, &step, expert_cache);
        amateur.forward(&cpu, &step, amateur_cache);
    }
    let batches = rows.iter().filter(|rows| **rows > 0).map(|&rows| ("decode step", rows, step_of(rows)));
    for (name, rows, batch) in
        batches.chain((rows.len() > 1 || rows[0] == 0).then(|| ("prefill of 64 tokens", 8, prefill(8))))
    {
        let batch = for_all_layers(batch);
        let contrast = Contrast::default();
        let noise = Noise::new(1, "bench", 0);
        let samples: Vec<_> = batch
            .logits_indices
            .iter()
            .map(|&position| SampleRow {
                contrast,
                noise,
                position,
                log_probabilities: false,
                deferred_row: None,
            })
            .collect();
        let mut step = step(&cpu, &vocabulary);
        let mut parts = [vec![], vec![], vec![]];
        let seconds = repeat(40, || {
            let start = Instant::now();
            cpu.prepare(&mut step, &batch, &samples);
            cpu.join(
                |cpu| expert.forward(cpu, &step, expert_cache),
                |cpu| amateur.forward(cpu, &step, amateur_cache),
            );
            let forward = start.elapsed();
            let (expert, amateur) = cpu.join(
                |cpu| expert.logits(cpu, &step, 0..samples.len()),
                |cpu| amateur.logits(cpu, &step, 0..samples.len()),
            );
            let logits = start.elapsed();
            let (expert, amateur) = (ExpertLogits::Computed(expert), AmateurLogits::Computed(amateur));
            cpu.sample(&mut step, 0..samples.len(), expert, amateur);
            cpu.submit(&mut step);
            black_box(cpu.collect(&mut step).expect("results"));
            let all = start.elapsed();
            parts[0].push(forward);
            parts[1].push(logits.saturating_sub(forward));
            parts[2].push(all.saturating_sub(logits));
        });
        println!(
            "{name}, {rows} rows: {:.2} ms best, {:.2} ms median; best of its parts: forward {:.2?}, logits {:.2?}, sample {:.2?}",
            seconds.0 * 1e3,
            seconds.1 * 1e3,
            parts[0].iter().min().expect("a time"),
            parts[1].iter().min().expect("a time"),
            parts[2].iter().min().expect("a time"),
        );
        let alone = repeat(40, || {
            expert.forward(&cpu, &step, expert_cache);
            black_box(expert.logits(&cpu, &step, 0..samples.len()));
        });
        println!(
            "    the expert alone, forward and logits: {:.2} ms best, {:.2} ms median",
            alone.0 * 1e3,
            alone.1 * 1e3
        );
    }
}
