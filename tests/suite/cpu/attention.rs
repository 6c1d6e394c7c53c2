use codit::device::cpu::Cpu;
use codit::device::inspect::Inspect;
use codit::device::number::quantize;
use codit::device::{
    AttentionShape, Batch, CacheLayer, CacheShape, Device, Dtype, Format, Heads, PerKind, Span,
};
use codit::ids::{BlockId, TokenId};

use super::{Numbers, bits, close, devices, tensor, upload};
use crate::step::begin_forward;

/// Sequences, each with the queries, keys and values (q|k|v) of all its positions.
struct Case {
    heads: Heads,
    window: Option<usize>,
    sequences: Vec<Vec<f32>>,
}

const SCALE: f32 = 0.3;
const E4M3_CACHE: Format = Format { weights: Dtype::F32, cache: Dtype::F8E4m3 };

impl Case {
    fn new(numbers: &mut Numbers, heads: Heads, window: Option<usize>, lengths: &[usize]) -> Self {
        let sequences = lengths.iter().map(|length| numbers.take(length * heads.qkv_width())).collect();
        Self { heads, window, sequences }
    }

    fn length(&self, sequence: usize) -> usize {
        self.sequences[sequence].len() / self.heads.qkv_width()
    }

    /// The attention output of every position, for each sequence. Step `i` takes `chunk(i, sequence)` tokens of each
    /// sequence.
    fn run(&self, cpu: &Cpu, block_size: usize, chunk: impl Fn(usize, usize) -> usize) -> Vec<Vec<f32>> {
        let tables: Vec<Vec<BlockId>> = self.tables(block_size);
        let blocks = PerKind::only_full(tables.iter().map(Vec::len).sum());
        let (head_dim, heads) = (self.heads.dim, self.heads.key_value);
        let group = self.heads.query / heads;
        let mut cache = cpu
            .cache(CacheShape { layers: PerKind::only_full(2), heads, group, head_dim, block_size, blocks })
            .unwrap();
        let rope = cpu.rope(&vec![0.0; head_dim / 2], 1.0).unwrap();
        let mut out = vec![vec![]; self.sequences.len()];
        let mut done = vec![0; self.sequences.len()];
        for step in 0.. {
            let (mut batch, mut rows) = (Batch::default(), vec![]);
            for sequence in 0..self.sequences.len() {
                let end = self.length(sequence).min(done[sequence] + chunk(step, sequence));
                let (tokens, blocks) = (batch.tokens.len(), batch.blocks.len());
                for position in done[sequence]..end {
                    batch.tokens.push(TokenId(0));
                    batch.positions.push(position as u32);
                    let width = self.heads.qkv_width();
                    rows.extend(&self.sequences[sequence][position * width..][..width]);
                }
                if end > done[sequence] {
                    batch.blocks.extend(&tables[sequence][..end.div_ceil(block_size)]);
                    batch.spans.push(Span {
                        tokens: tokens..batch.tokens.len(),
                        blocks: blocks..batch.blocks.len(),
                    });
                }
                done[sequence] = end;
            }
            if batch.tokens.is_empty() {
                return out;
            }
            let mut qkv = upload(cpu, self.heads.qkv_width(), &rows);
            let mut attended = tensor(cpu, batch.tokens.len(), self.heads.query_width());
            let step = begin_forward(cpu, block_size, &batch);
            cpu.rope_store(&step, self.heads, None, &rope, CacheLayer::full(1), &mut qkv, &mut cache);
            let shape = AttentionShape {
                heads: self.heads,
                scale: SCALE,
                window: self.window,
                layer: CacheLayer::full(1),
            };
            cpu.attention(&step, shape, &qkv, &cache, &mut attended);
            let attended = cpu.download(batch.tokens.len(), &attended);
            for span in &batch.spans {
                let sequence = tables.iter().position(|table| table[0] == batch.blocks[span.blocks.start]);
                let width = self.heads.query_width();
                out[sequence.unwrap()].extend(&attended[span.tokens.start * width..span.tokens.end * width]);
            }
        }
        unreachable!()
    }

    /// Block tables with the blocks out of order.
    fn tables(&self, block_size: usize) -> Vec<Vec<BlockId>> {
        let counts: Vec<usize> =
            (0..self.sequences.len()).map(|s| self.length(s).div_ceil(block_size)).collect();
        let mut free: Vec<BlockId> = (0..counts.iter().sum::<usize>() as u32).map(BlockId).collect();
        let half = free.len() / 2;
        free.rotate_left(half);
        free.reverse();
        counts.iter().map(|&count| free.split_off(free.len() - count)).collect()
    }

    /// The same case with keys and values rounded as an e4m3 cache stores them.
    fn rounded(&self) -> Self {
        let Self { heads, window, .. } = *self;
        let round = |(at, head): (usize, &[f32])| {
            if at % (heads.query + 2 * heads.key_value) < heads.query {
                head.to_vec()
            } else {
                quantize::rounded(head)
            }
        };
        let sequences = self.sequences.iter();
        let sequences =
            sequences.map(|numbers| numbers.chunks(heads.dim).enumerate().flat_map(round).collect());
        Self { heads, window, sequences: sequences.collect() }
    }

    fn naive(&self, sequence: usize) -> Vec<f64> {
        let (heads, width) = (self.heads, self.heads.qkv_width());
        let at = |position: usize, head: usize, i: usize| {
            f64::from(self.sequences[sequence][position * width + head * heads.dim + i])
        };
        let mut out = vec![];
        for position in 0..self.length(sequence) {
            let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
            for head in 0..heads.query {
                let key = heads.query + head / (heads.query / heads.key_value);
                let value = key + heads.key_value;
                let product = |other: usize| -> f64 {
                    (0..heads.dim).map(|i| at(position, head, i) * at(other, key, i)).sum::<f64>()
                        * f64::from(SCALE)
                };
                let weights: Vec<f64> = (first..=position).map(|other| product(other).exp()).collect();
                let total: f64 = weights.iter().sum();
                out.extend((0..heads.dim).map(|i| {
                    (first..).zip(&weights).map(|(other, w)| w * at(other, value, i)).sum::<f64>() / total
                }));
            }
        }
        out
    }
}

#[test]
fn agrees_with_f64() {
    let mut numbers = Numbers(20);
    for (group, dim) in [(1, 64), (2, 16), (3, 64), (4, 10), (8, 128)] {
        for window in [None, Some(1), Some(20)] {
            let heads = Heads { query: group * 2, key_value: 2, dim };
            let case = Case::new(&mut numbers, heads, window, &[1, 40, 17, 66]);
            for (path, cpu) in devices() {
                for block_size in [1, 16, 5, 32] {
                    let found = case.run(&cpu, block_size, |step, sequence| (step * 7 + sequence * 5) % 23);
                    for (sequence, found) in found.iter().enumerate() {
                        let what =
                            format!("{path} {heads:?} {window:?} block {block_size} sequence {sequence}");
                        close(&what, found, &case.naive(sequence), 2e-6);
                    }
                }
            }
            let rounded = case.rounded();
            for (path, cpu) in devices() {
                let cpu = cpu.with_formats([E4M3_CACHE; 2]);
                for block_size in [16, 5] {
                    let found = case.run(&cpu, block_size, |step, sequence| (step * 7 + sequence * 5) % 23);
                    for (sequence, found) in found.iter().enumerate() {
                        let what = format!("{path} {heads:?} {window:?} block {block_size} in e4m3");
                        close(&what, found, &rounded.naive(sequence), 2e-6);
                    }
                }
            }
        }
    }
}

/// Attention gives the same bits for a prefill in one step, in chunks or token by token, for any block size and any
/// number of threads.
#[test]
fn tokens_do_not_depend_on_their_batch() {
    let mut numbers = Numbers(21);
    for (window, format) in
        [None, Some(30)].into_iter().flat_map(|w| [(w, Format::of(Dtype::F32)), (w, E4M3_CACHE)])
    {
        let heads = Heads { query: 9, key_value: 3, dim: 64 };
        let case = Case::new(&mut numbers, heads, window, &[200, 33, 16]);
        let alone: Vec<Case> = case
            .sequences
            .iter()
            .map(|sequence| Case { heads, window, sequences: vec![sequence.clone()] })
            .collect();
        let cpu = Cpu::new(Some(1)).unwrap().with_formats([format; 2]);
        let expected: Vec<_> = alone.iter().map(|case| bits(&case.run(&cpu, 16, |_, _| 1000)[0])).collect();
        for threads in [1, 2, 4] {
            let cpu = Cpu::new(Some(threads)).unwrap().with_formats([format; 2]);
            for block_size in [16, 1, 7, 64] {
                let check = |found: Vec<Vec<f32>>, how: &str| {
                    let found: Vec<_> = found.iter().map(|found| bits(found)).collect();
                    assert!(found == expected, "{how}, {threads} threads, block {block_size}, {window:?}");
                };
                check(case.run(&cpu, block_size, |_, _| 1000), "whole");
                check(case.run(&cpu, block_size, |_, _| 1), "one by one");
                check(case.run(&cpu, block_size, |step, sequence| (step * 7 + sequence * 5) % 23), "ragged");
            }
        }
    }
}
