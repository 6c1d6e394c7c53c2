//! Checks of attention over the paged cache.

mod case;

use case::{Case, Piece, tokens_of};

use super::comparison::{CHAIN, Check, Comparison, as_cpu, describe_heads, relative_error};
use crate::device::cpu;
use crate::device::inspect::Inspect;
use crate::device::{Device, Heads, Precision};
use crate::error::Result;

/// Contexts near the ends of the kernels' key tiles and splits.
const EDGES: [usize; 16] = [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 255, 256, 257, 511, 512, 513];

/// All checks of attention.
///
/// # Errors
/// If a device has too little memory.
pub fn checks<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    let mut checks = few(on)?;
    let rows: Vec<_> = EDGES.iter().map(|context| (*context, 1)).collect();
    for (heads, block_size) in shapes() {
        checks.extend(on.attend("rows that decode", heads, block_size, None, &rows)?);
    }
    for window in [1, 7, 16, 64, 65, 255, 256, 257, 1000] {
        for heads in [heads(4, 1, 64), heads(2, 2, 16)] {
            checks.extend(on.attend("a window", heads, 16, Some(window), &WINDOWED)?);
        }
    }
    for block_size in [1, 8, 13, 16, 32] {
        let rows = [(270, 1), (33, 1), (100, 70)];
        checks.extend(on.attend("blocks", heads(4, 2, 128), block_size, None, &rows)?);
    }
    for heads in models() {
        checks.extend(on.attend("a model's heads", heads, 16, None, &[(37, 1), (258, 1), (21, 9)])?);
    }
    for context in [1025, 4097] {
        let rows = [(context, 1), (context - 1, 2)];
        checks.extend(on.attend("a long context", heads(2, 1, 128), 16, None, &rows)?);
    }
    Ok(checks)
}

/// A smaller set of checks: every head size once, and every special case once.
///
/// # Errors
/// If a device has too little memory.
pub fn few<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let mixed = [(300, 1), (7, 7), (129, 65), (64, 64), (17, 1), (260, 2), (66, 1), (200, 127)];
    for (heads, block_size) in shapes() {
        checks.extend(on.attend("decode and prefill", heads, block_size, None, &mixed)?);
    }
    checks.extend(on.attend("a window", heads(3, 1, 80), 16, Some(65), &WINDOWED)?);
    checks.extend(on.attend("a window", heads(2, 1, 256), 16, Some(33), &[(100, 1), (120, 90)])?);
    checks.extend(on.attend("a large group", heads(40, 1, 64), 16, None, &[(300, 1), (30, 11)])?);
    let rows = [(255, 1), (1025, 1), (256, 1), (257, 1), (40, 1), (512, 1)];
    checks.extend(on.attend("one split beside many", heads(4, 2, 128), 16, None, &rows)?);
    checks.extend(on.attend_to_shared_blocks(heads(2, 1, 64))?);
    checks.push(on.not_numbers(heads(4, 2, 128))?);
    checks.push(on.not_numbers(heads(4, 2, 24))?);
    Ok(checks)
}

/// Contexts and tokens of the rows in the checks of windows, `(context, tokens)`.
const WINDOWED: [(usize, usize); 8] =
    [(1, 1), (17, 1), (90, 1), (257, 1), (300, 1), (520, 1), (40, 40), (270, 140)];

/// A shape for every kernel, with its block size.
fn shapes() -> [(Heads, usize); 9] {
    [
        (heads(3, 1, 64), 16),
        (heads(2, 2, 80), 8),
        (heads(5, 1, 96), 13),
        (heads(7, 1, 128), 16),
        (heads(2, 1, 256), 32),
        (heads(4, 2, 8), 1),
        (heads(6, 2, 32), 16),
        (heads(1, 1, 40), 13),
        (heads(2, 1, 30), 16),
    ]
}

fn heads(query: usize, key_value: usize, dim: usize) -> Heads {
    Heads { query, key_value, dim }
}

/// Head shapes of the models that the method is used with.
fn models() -> [Heads; 9] {
    [
        heads(32, 8, 128),  // Qwen3-8B, Llama-3.1-8B
        heads(32, 4, 128),  // Qwen3-30B-A3B
        heads(32, 16, 128), // Gemma-3-27B
        heads(32, 8, 64),   // Llama-3.2-1B
        heads(24, 8, 128),  // Llama-3.2-3B
        heads(32, 32, 128), // OLMo-3-7B
        heads(9, 3, 64),    // SmolLM2-135M
        heads(4, 1, 256),   // Gemma-3-270M, Gemma-3-1B
        heads(8, 4, 256),   // Gemma-3-4B
    ]
}

impl<D: Inspect> Comparison<'_, D> {
    /// Checks attention of the last `tokens` positions of each of `rows`, `(context, tokens)`. The results are
    /// compared with the CPU, and bit for bit with a run of each span alone. [`halves`] cuts such a span in two where
    /// the cut must not change the result.
    fn attend(
        &mut self,
        about: &str,
        heads: Heads,
        block_size: usize,
        window: Option<usize>,
        rows: &[(usize, usize)],
    ) -> Result<Vec<Check>> {
        let mut case = Case::new(self, heads, block_size, window, rows);
        let mut caches = (self.device.cache(case.shape())?, self.cpu.cache(case.shape())?);
        case.poison(self, &mut caches.0)?;
        case.fill(self, &mut caches)?;

        let spans: Vec<_> =
            rows.iter().enumerate().map(|(at, (context, tokens))| (at, context - tokens..*context)).collect();
        self.compare(&case, &caches, &spans, case.name(about, rows))
    }

    /// Checks rows that share their blocks, twice. Together they have more splits than the memory for the results of
    /// splits has room for.
    fn attend_to_shared_blocks(&mut self, heads: Heads) -> Result<Vec<Check>> {
        let rows = [(600, 1); 8];
        let mut case = Case::new(self, heads, 16, None, &rows[..1]);
        let mut caches = (self.device.cache(case.shape())?, self.cpu.cache(case.shape())?);
        case.poison(self, &mut caches.0)?;
        case.fill(self, &mut caches)?;
        let spans = rows.map(|(context, _)| (0, context - 1..context));
        let once = self.compare(&case, &caches, &spans, case.name("shared blocks", &rows))?;
        let again = self.compare(&case, &caches, &spans, case.name("shared blocks again", &rows))?;
        Ok([once, again].concat())
    }

    /// Compares attention of `spans` with the CPU, and bit for bit with a run of each span alone.
    fn compare(
        &mut self,
        case: &Case,
        caches: &(D::Cache, cpu::Cache),
        spans: &[Piece],
        name: String,
    ) -> Result<Vec<Check>> {
        let heads = case.heads;
        let queries = case.queries(self, spans);
        let (here, there) = self.tensors_of(&queries, heads.qkv_width(), Precision::Working)?;
        let found = case.run(self.device, &caches.0, spans, &here)?;
        let expected = if case.is_long() {
            case.reference(spans, &self.cpu.download(tokens_of(spans), &there))
        } else {
            case.run(self.cpu, &caches.1, spans, &there)?
        };

        let mut alone = Vec::new();
        let mut rest = queries.as_slice();
        let is_deterministic = self.device.info().is_deterministic;
        for piece in spans.iter().flat_map(|piece| halves(piece, is_deterministic)) {
            let (queries, others) = rest.split_at(piece.1.len() * heads.qkv_width());
            rest = others;
            let (here, _) = self.tensors_of(queries, heads.qkv_width(), Precision::Working)?;
            alone.extend(case.run(self.device, &caches.0, &[piece], &here)?);
        }
        let differences = found.iter().zip(&alone).filter(|(a, b)| a.to_bits() != b.to_bits()).count();

        let error = worst_row(&found, &expected, heads.query_width());
        // Kernels cut a context into splits; the CPU adds its positions in order.
        let chain = if as_cpu(self.device).is_some() { case.longest() } else { CHAIN };
        let bound = if case.is_long() { self.bound_of_sums(chain) } else { self.bound() };
        let alone = format!("each span alone and cut; {name}");
        Ok(vec![
            Check::measured("attention", name, error, bound),
            Check::counted("attention", alone, differences),
        ])
    }

    /// Checks a query with NaN and a sequence with NaN keys and values. The outputs that depend on them must be NaN,
    /// and no others.
    fn not_numbers(&mut self, heads: Heads) -> Result<Check> {
        let mut case = Case::new(self, heads, 16, None, &[(300, 1), (40, 1), (70, 20), (33, 1)]);
        let mut caches = (self.device.cache(case.shape())?, self.cpu.cache(case.shape())?);
        case.poison(self, &mut caches.0)?;
        case.contexts.pop();
        case.fill(self, &mut caches)?;

        let spans = [(0, 299..300), (1, 39..40), (2, 50..70), (3, 32..33)];
        let mut queries = case.queries(self, &spans);
        let (row, head) = (heads.qkv_width(), heads.dim);
        queries[row + head + 3] = f32::NAN;
        queries[9 * row + 5] = f32::NAN;
        let (here, _) = self.tensors_of(&queries, row, Precision::Working)?;
        let found = case.run(self.device, &caches.0, &spans, &here)?;

        let row = heads.query_width();
        let is_faulty = |at: usize| {
            let (token, head) = (at / row, at % row / head);
            (token, head) == (1, 1) || (token, head) == (9, 0) || token == 22
        };
        let differences = found.iter().enumerate().filter(|(at, x)| x.is_nan() != is_faulty(*at)).count();
        let case = format!("NaN among queries, keys and values: {}", describe_heads(heads));
        Ok(Check::counted("attention", case, differences))
    }
}

/// The largest relative error of a row; NaN if any row's error is NaN.
fn worst_row(found: &[f32], expected: &[f32], width: usize) -> f64 {
    let rows = found.chunks(width).zip(expected.chunks(width));
    let errors = rows.map(|(found, expected)| relative_error(found, expected));
    errors.fold(0.0, |worst, error| if error > worst || error.is_nan() { error } else { worst })
}

/// Cuts a piece into two prefills of the same positions, if it has enough tokens. On a deterministic device the first
/// part is a single token, as in decoding.
fn halves((sequence, positions): &Piece, is_deterministic: bool) -> Vec<Piece> {
    let first = if is_deterministic { 1 } else { positions.len() / 3 + 1 };
    let least = if is_deterministic { 1 } else { 2 };
    if first.min(positions.len() - first) < least {
        return vec![(*sequence, positions.clone())];
    }
    let middle = positions.start + first;
    vec![(*sequence, positions.start..middle), (*sequence, middle..positions.end)]
}
