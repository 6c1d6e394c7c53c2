//! Checks of the operations that work on one row at a time.

use std::ops::Range;

use super::comparison::{Check, Comparison, describe_heads, describe_precision, relative_error};
use crate::contrast::{Contrast, Noise, Vocabulary};
use crate::device::cpu;
use crate::device::inspect::Inspect;
use crate::device::{
    Activation, AmateurLogits, AttentionShape, Batch, CacheLayer, CacheShape, Capacity, Device, Dtype,
    ExpertLogits, HeadNorms, Heads, LayerKind, Norm, NormScope, PendingToken, PerKind, Precision, SampleRow,
    Span,
};
use crate::error::Result;
use crate::ids::{BlockId, TokenId};

/// Tokens of the embedding table.
const VOCABULARY: usize = 37;
/// Tokens per cache block.
const BLOCK: usize = 16;

/// All checks of operations on single rows.
///
/// # Errors
/// If a device has too little memory.
pub fn checks<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for width in [1, 3, 4, 5, 31, 32, 576, 1023, 1025, 4096, 5376] {
        checks.push(embed(on, width)?);
    }
    checks.push(embed_fed(on)?);
    // The widths of Gemma 3 are 640, 1152, 2560, 3840 and 5376.
    for width in
        [1, 3, 4, 5, 127, 128, 129, 252, 256, 260, 640, 1152, 2047, 2049, 2560, 4096, 5376, 8188, 8192]
    {
        checks.extend(rms_norm(on, 3, width)?);
    }
    for width in [8196, 16384] {
        checks.extend(rms_norm(on, 2, width)?);
    }
    checks.push(rms_norm_alone(on, 576)?);
    for dim in [8, 16, 24, 40, 64, 72, 80, 96, 120, 128, 136, 248, 256] {
        let heads = on.numbers.one_of(&[(1, 1), (4, 2), (3, 1), (9, 3), (16, 8)]);
        let scope = on.numbers.one_of(&[None, Some(NormScope::Head), Some(NormScope::Projection)]);
        checks.push(rope_store(on, Heads { query: heads.0, key_value: heads.1, dim }, scope)?);
    }
    // The heads of OLMo 3 7B and 32B, heads that need more lanes than a block has, and heads whose lanes hold several
    // pieces each.
    for (query, key_value, dim) in [(32, 32, 128), (40, 8, 128), (33, 17, 256), (6, 2, 72), (3, 3, 2)] {
        checks.push(rope_store(on, Heads { query, key_value, dim }, Some(NormScope::Projection))?);
    }
    checks.push(rope_store(on, Heads { query: 4, key_value: 1, dim: 256 }, Some(NormScope::Head))?);
    for dim in [64, 80, 128, 256] {
        checks.push(cache(on, dim)?);
    }
    for width in [1, 3, 4, 5, 7, 8, 9, 257, 1536, 2047, 2048, 2056, 11_008] {
        checks.push(gated(on, width, Activation::Silu)?);
        checks.push(gated(on, width, Activation::GeluTanh)?);
    }
    for width in [1, 3, 4, 5, 7, 8, 9, 576, 2049, 4096] {
        checks.push(gather(on, width, Precision::Working)?);
        checks.push(gather(on, width, Precision::Single)?);
    }
    Ok(checks)
}

/// A step on both devices.
pub(super) type Steps<D> = (<D as Device>::Step, cpu::Step);

/// Prepares a step of `batch` on both devices, with room for exactly this batch.
pub(super) fn begin<D: Inspect>(
    on: &Comparison<'_, D>,
    batch: &Batch,
    rows: &[SampleRow],
) -> Result<Steps<D>> {
    let vocabulary = Vocabulary::new(VOCABULARY, Vec::new());
    let capacity = Capacity {
        max_num_seqs: batch.spans.len().max(batch.logits_indices.len()),
        max_num_batched_tokens: batch.tokens.len(),
        block_size: BLOCK,
    };
    let blocks = PerKind::only_full(batch.blocks.len());
    let mut steps =
        (on.device.step(capacity, blocks, &vocabulary)?, on.cpu.step(capacity, blocks, &vocabulary)?);
    on.device.prepare(&mut steps.0, batch, rows);
    on.cpu.prepare(&mut steps.1, batch, rows);
    Ok(steps)
}

/// A batch with a random token in each of `rows` rows. Each row is a span of its own, but every fourth row has no
/// span and is padding.
pub(super) fn scattered<D: Inspect>(on: &mut Comparison<'_, D>, rows: usize) -> Batch {
    let mut batch = Batch::default();
    for row in 0..rows {
        batch.tokens.push(TokenId(on.numbers.below(VOCABULARY) as u32));
        batch.positions.push(on.numbers.below(BLOCK) as u32);
        if !is_padding(row) {
            let first = batch.blocks.len();
            batch.blocks.push(BlockId(row as u32));
            batch.spans.push(Span { tokens: row..row + 1, blocks: first..first + 1 });
        }
    }
    batch
}

pub(super) fn is_padding(row: usize) -> bool {
    row % 4 == 3
}

/// Whether the device leaves `row` unchanged.
fn is_skipped<D: Inspect>(on: &Comparison<'_, D>, row: usize) -> bool {
    on.skips_padding() && is_padding(row)
}

/// Compares the columns `columns` of the rows that `written` selects, out of `rows` rows. The other rows must stay
/// NaN: each of their numbers that is not NaN counts as a difference.
pub(super) fn check<D: Inspect>(
    on: &Comparison<'_, D>,
    (operation, case): (&'static str, String),
    (rows, columns): (usize, Range<usize>),
    written: impl Fn(usize) -> bool,
    (here, there): (&D::Tensor, &cpu::Tensor),
) -> Check {
    let (found, expected) = (on.device.download(rows, here), on.cpu.download(rows, there));
    let width = found.len() / rows;
    let pick = |values: &[f32]| -> Vec<f32> {
        let rows = values.chunks_exact(width).enumerate().filter(|(row, _)| written(*row));
        rows.flat_map(|(_, row)| row[columns.clone()].to_vec()).collect()
    };
    let others = found.chunks_exact(width).enumerate().filter(|(row, _)| !written(*row));
    let touched = others.flat_map(|(_, row)| row).filter(|x| !x.is_nan()).count();
    let error = relative_error(&pick(&found), &pick(&expected));
    Check { differences: touched, ..Check::measured(operation, case, error, on.bound()) }
}

fn embed<D: Inspect>(on: &mut Comparison<'_, D>, width: usize) -> Result<Check> {
    let rows = 9;
    let batch = scattered(on, rows);
    let steps = begin(on, &batch, &[])?;
    let table = on.weights(&[VOCABULARY, width])?;
    let mut out = on.outputs(rows + 1, width, Precision::Single)?;
    on.device.embed(&steps.0, &table.0, 1.7, &mut out.0);
    on.cpu.embed(&steps.1, &table.1, 1.7, &mut out.1);
    let written = |row| row < rows && !is_skipped(on, row);
    let case = format!("{rows} tokens, width {width}");
    Ok(check(on, ("embed", case), (rows + 1, 0..width), written, (&out.0, &out.1)))
}

/// Checks the embedding of tokens that the previous step sampled.
fn embed_fed<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let (rows, width) = (5, 64);
    let mut batch = scattered(on, rows);
    let contrast = Contrast { temperature: 0.0, ..Contrast::direct() };
    batch.logits_indices = vec![0, 1, 2];
    let samples = [1, 2, 3].map(|position| SampleRow {
        contrast,
        noise: Noise::new(0, "", 0),
        position,
        log_probabilities: false,
        deferred_row: None,
    });
    let mut steps = begin(on, &batch, &samples)?;
    let logits = on.tensors(3, VOCABULARY, Precision::Single)?;
    on.device.sample(&mut steps.0, 0..3, ExpertLogits::Computed(&logits.0), AmateurLogits::Unneeded);
    on.cpu.sample(&mut steps.1, 0..3, ExpertLogits::Computed(&logits.1), AmateurLogits::Unneeded);
    on.device.submit(&mut steps.0);
    on.cpu.submit(&mut steps.1);

    batch.pending_tokens =
        vec![PendingToken { index: 4, source_output: 0 }, PendingToken { index: 1, source_output: 2 }];
    on.device.prepare(&mut steps.0, &batch, &samples);
    on.cpu.prepare(&mut steps.1, &batch, &samples);
    let table = on.weights(&[VOCABULARY, width])?;
    let mut out = on.outputs(rows, width, Precision::Single)?;
    on.device.embed(&steps.0, &table.0, 1.0, &mut out.0);
    on.cpu.embed(&steps.1, &table.1, 1.0, &mut out.1);
    let (case, written) = ("tokens of the step before".to_owned(), |row| !is_skipped(on, row));
    Ok(check(on, ("embed", case), (rows, 0..width), written, (&out.0, &out.1)))
}

/// A norm on both devices.
fn norms<D: Inspect>(
    on: &mut Comparison<'_, D>,
    width: usize,
    unit_offset: bool,
) -> Result<(Norm<D::Weight>, Norm<cpu::Weight>)> {
    let weight = on.weights(&[width])?;
    let epsilon = 1e-5;
    Ok((Norm { weight: weight.0, epsilon, unit_offset }, Norm { weight: weight.1, epsilon, unit_offset }))
}

/// Norms of queries and keys on both devices.
fn head_norms<D: Inspect>(
    on: &mut Comparison<'_, D>,
    heads: Heads,
    scope: NormScope,
) -> Result<(HeadNorms<D::Weight>, HeadNorms<cpu::Weight>)> {
    let (query, key) = match scope {
        NormScope::Head => (heads.dim, heads.dim),
        NormScope::Projection => (heads.query_width(), heads.key_value * heads.dim),
    };
    let unit_offset = on.numbers.below(2) == 0;
    let (query, key) = (norms(on, query, unit_offset)?, norms(on, key, unit_offset)?);
    Ok((HeadNorms { scope, query: query.0, key: key.0 }, HeadNorms { scope, query: query.1, key: key.1 }))
}

/// Checks the output and the residual. There may be no delta, a delta or a normed delta; the sum may have a norm or
/// none.
fn rms_norm<D: Inspect>(on: &mut Comparison<'_, D>, rows: usize, width: usize) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let unit_offset = on.numbers.below(2) == 0;
    let (after, before) = (norms(on, width, !unit_offset)?, norms(on, width, unit_offset)?);
    for (delta, delta_norm, norm) in [
        (false, false, true),
        (true, false, true),
        (true, true, true),
        (true, true, false),
        (false, false, false),
    ] {
        let mut residual = on.tensors(rows, width, Precision::Single)?;
        let x = on.tensors(rows, width, Precision::Working)?;
        let mut out = on.outputs(rows + 1, width, Precision::Working)?;
        let here = delta.then_some((&x.0, delta_norm.then_some(&after.0)));
        on.device.rms_norm(rows, here, &mut residual.0, norm.then_some(&before.0), &mut out.0);
        let there = delta.then_some((&x.1, delta_norm.then_some(&after.1)));
        on.cpu.rms_norm(rows, there, &mut residual.1, norm.then_some(&before.1), &mut out.1);
        let delta = match (delta, delta_norm) {
            (false, _) => "no delta",
            (true, false) => "a delta",
            (true, true) => "a normed delta",
        };
        let norm = if norm { "norm" } else { "sum" };
        let case = |what| format!("{what} of {rows} rows, width {width}, {norm} with {delta}");
        let written = |row| row < rows;
        checks.push(check(on, ("rms_norm", case("output")), (rows + 1, 0..width), written, (&out.0, &out.1)));
        checks.push(on.check("rms_norm", case("residual"), rows, (&residual.0, &residual.1)));
    }
    Ok(checks)
}

/// Counts the numbers of a row that change if other rows are normed with it.
fn rms_norm_alone<D: Inspect>(on: &mut Comparison<'_, D>, width: usize) -> Result<Check> {
    let rows = 40;
    let (norm, _) = norms(on, width, false)?;
    let values = on.numbers.take(rows * width);
    let normed = |rows: usize| -> Result<Vec<f32>> {
        let mut residual = on.device.tensor(rows, width, Precision::Single)?;
        on.device.upload(&values[..rows * width], &mut residual);
        let mut out = on.device.tensor(rows, width, Precision::Working)?;
        on.device.rms_norm(rows, None, &mut residual, Some(&norm), &mut out);
        Ok(on.device.download(rows, &out))
    };
    let (alone, among) = (normed(1)?, normed(rows)?);
    let differ = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits() || a.is_nan();
    let differences = alone.iter().zip(&among).filter(differ).count();
    Ok(Check::counted("rms_norm", format!("a row alone and of {rows}"), differences))
}

/// The last layer of the cache.
const LAST: CacheLayer = CacheLayer { kind: LayerKind::Full, index: 1 };

/// Rotary frequencies and a cache of two layers, on both devices.
struct Rotary<D: Inspect> {
    ropes: (D::Rope, cpu::Rope),
    caches: (D::Cache, cpu::Cache),
}

impl<D: Inspect> Rotary<D> {
    fn new(on: &Comparison<'_, D>, heads: Heads, blocks: usize) -> Result<Self> {
        let frequency = |i: usize| 10_000.0_f32.powf(-2.0 * i as f32 / heads.dim as f32);
        let frequencies: Vec<f32> = (0..heads.dim / 2).map(frequency).collect();
        let shape = CacheShape {
            layers: PerKind::only_full(2),
            heads: heads.key_value,
            group: heads.query / heads.key_value,
            head_dim: heads.dim,
            block_size: BLOCK,
            blocks: PerKind::only_full(blocks),
        };
        Ok(Self {
            ropes: (on.device.rope(&frequencies, 1.3)?, on.cpu.rope(&frequencies, 1.3)?),
            caches: (on.device.cache(shape)?, on.cpu.cache(shape)?),
        })
    }
}

/// Checks the queries, at positions up to the end of a long context. Padding rows must stay unchanged.
fn rope_store<D: Inspect>(
    on: &mut Comparison<'_, D>,
    heads: Heads,
    scope: Option<NormScope>,
) -> Result<Check> {
    let (rows, blocks) = (8, 131_072 / BLOCK);
    let mut batch = scattered(on, rows);
    batch.positions = vec![0, 1, 131_071, 5, 63, 105_616, 4095, 7];
    // Every entry of a span's block table is the span's only block. No other block is written, and none is read.
    batch.blocks = (0..batch.spans.len()).flat_map(|span| vec![BlockId(span as u32); blocks]).collect();
    for (index, span) in batch.spans.iter_mut().enumerate() {
        span.blocks = index * blocks..(index + 1) * blocks;
    }
    let steps = begin(on, &batch, &[])?;
    let norms = scope.map(|scope| head_norms(on, heads, scope)).transpose()?;
    let (here, there) = norms.unzip();
    let mut rotary = Rotary::new(on, heads, batch.spans.len())?;
    let mut qkv = padded_qkv(on, rows, heads)?;
    let (ropes, caches) = (&rotary.ropes, &mut rotary.caches);
    on.device.rope_store(&steps.0, heads, here.as_ref(), &ropes.0, LAST, &mut qkv.0, &mut caches.0);
    on.cpu.rope_store(&steps.1, heads, there.as_ref(), &ropes.1, LAST, &mut qkv.1, &mut caches.1);
    let scope = match scope {
        None => "no norms",
        Some(NormScope::Head) => "a norm of each head",
        Some(NormScope::Projection) => "a norm of all heads",
    };
    let case = format!("queries, {}, {scope}", describe_heads(heads));
    let columns = 0..heads.query_width();
    Ok(check(on, ("rope_store", case), (rows, columns), |row| !is_padding(row), (&qkv.0, &qkv.1)))
}

/// Random queries, keys and values. Padding rows hold NaN.
fn padded_qkv<D: Inspect>(
    on: &mut Comparison<'_, D>,
    rows: usize,
    heads: Heads,
) -> Result<(D::Tensor, cpu::Tensor)> {
    let width = heads.qkv_width();
    let mut values = on.numbers.take(rows * width);
    for (row, values) in values.chunks_exact_mut(width).enumerate() {
        if is_padding(row) {
            values.fill(f32::NAN);
        }
    }
    on.tensors_of(&values, width, Precision::Working)
}

/// Checks keys and values through attention with other queries. A lone token gets its own value unchanged; the last
/// of many tokens sees every key.
fn cache<D: Inspect>(on: &mut Comparison<'_, D>, dim: usize) -> Result<Check> {
    let heads = Heads { query: 4, key_value: 2, dim };
    let (tokens, rows) = (2 * BLOCK + 3, 2 * BLOCK + 4);
    let batch = Batch {
        tokens: vec![TokenId(0); rows],
        positions: (0..tokens as u32).chain([0]).collect(),
        spans: vec![
            Span { tokens: 0..tokens, blocks: 0..3 },
            Span { tokens: tokens..tokens + 1, blocks: 3..4 },
        ],
        blocks: [4, 0, 2, 1].map(BlockId).to_vec(),
        ..Batch::default()
    };
    let steps = begin(on, &batch, &[])?;
    let scope = on.numbers.one_of(&[NormScope::Head, NormScope::Projection]);
    let (here, there) = head_norms(on, heads, scope)?;
    let mut rotary = Rotary::new(on, heads, 5)?;
    for layer in [LAST, CacheLayer::full(0)] {
        let mut qkv = on.tensors(rows, heads.qkv_width(), Precision::Working)?;
        let (ropes, caches) = (&rotary.ropes, &mut rotary.caches);
        on.device.rope_store(&steps.0, heads, Some(&here), &ropes.0, layer, &mut qkv.0, &mut caches.0);
        on.cpu.rope_store(&steps.1, heads, Some(&there), &ropes.1, layer, &mut qkv.1, &mut caches.1);
    }
    let queries = on.tensors(rows, heads.qkv_width(), Precision::Working)?;
    let mut out = on.outputs(rows, heads.query_width(), Precision::Working)?;
    let (scale, caches) = ((dim as f32).sqrt().recip(), &rotary.caches);
    let shape = AttentionShape { heads, scale, window: None, layer: LAST };
    on.device.attention(&steps.0, shape, &queries.0, &caches.0, &mut out.0);
    on.cpu.attention(&steps.1, shape, &queries.1, &caches.1, &mut out.1);
    let case = format!("keys and values, {}", describe_heads(heads));
    let check = on.check("rope_store", case, rows, (&out.0, &out.1));
    // If the last bit of a sine differs, a number halfway between two e4m3 numbers may round to either.
    let bound = if on.device.info().format.cache == Dtype::F8E4m3 { 5e-3 } else { check.bound };
    Ok(Check { bound, ..check })
}

fn gated<D: Inspect>(on: &mut Comparison<'_, D>, width: usize, activation: Activation) -> Result<Check> {
    let rows = 5;
    let mut values: Vec<f32> = on.numbers.take(rows * 2 * width).iter().map(|x| x * 20.0).collect();
    // Values where exponentials overflow, and values where only rounding remains.
    for (value, edge) in values.chunks_exact_mut(2 * width).zip([-1000.0, -90.0, 90.0, -0.0, 1e-30]) {
        value[0] = edge;
    }
    let x = on.tensors_of(&values, 2 * width, Precision::Working)?;
    let mut out = on.outputs(rows + 1, width, Precision::Working)?;
    on.device.gated(rows, width, activation, &x.0, &mut out.0);
    on.cpu.gated(rows, width, activation, &x.1, &mut out.1);
    let activation = match activation {
        Activation::Silu => "SiLU",
        Activation::GeluTanh => "GELU",
    };
    let (case, written) = (format!("{activation}, {rows} rows, width {width}"), |row| row < rows);
    Ok(check(on, ("gated", case), (rows + 1, 0..width), written, (&out.0, &out.1)))
}

/// Checks a range of the outputs. Some rows appear twice.
fn gather<D: Inspect>(on: &mut Comparison<'_, D>, width: usize, precision: Precision) -> Result<Check> {
    let rows = 9;
    let mut batch = scattered(on, rows);
    batch.logits_indices = vec![3, 8, 0, 8, 1, 2];
    let contrast = Contrast::direct();
    let samples = [SampleRow {
        contrast,
        noise: Noise::new(0, "", 0),
        position: 1,
        log_probabilities: false,
        deferred_row: None,
    }; 6];
    let steps = begin(on, &batch, &samples)?;
    let x = on.tensors(rows, width, precision)?;
    let mut out = on.outputs(5, width, precision)?;
    on.device.gather(&steps.0, 1..5, &x.0, &mut out.0);
    on.cpu.gather(&steps.1, 1..5, &x.1, &mut out.1);
    let case = format!("rows {}, width {width}", describe_precision(precision));
    Ok(check(on, ("gather", case), (5, 0..width), |row| row < 4, (&out.0, &out.1)))
}
