//! `out = x * w^T`, by one of two paths. AMX multiplies bf16 weights in tiles. Elsewhere weights are unpacked to f32,
//! a few rows at a time, and multiplied with every row of `x` in registers.
//!
//! The path depends on the machine and the weight's dtype, never on the number of rows, and each path sums an output
//! in one fixed order. No maintained GEMM crate does this: they do not multiply bf16 weights with f32 activations,
//! and the order of their sums changes with the number of rows.

use std::cell::Cell;
use std::ops::{Range, RangeInclusive};

use super::amx::{Ahead, Amx, Parts, Products};
use super::by_panels::{ByPanels, Round, RoundedRows};
use super::path::{PARALLEL, Path};
use super::pool::ThreadPool;
use super::task::{Columns, Rows, Task};
use super::tensor::Tensor;
use super::tile::{SIDE, Tile};
use super::tiles::OUTPUTS;
use super::weight::{Part, Weight};
use bytemuck::Zeroable;

/// Rows that are multiplied with one reading of the weights: as many packed rows as fit a core's cache, within these
/// limits.
const ROWS: RangeInclusive<usize> = 64..=256;
/// Bytes of a core's cache that packed rows may take.
const PACKED_BYTES: usize = 5 << 18;

thread_local! {
    /// Packed activations; the memory is reused by the next product.
    static TILES: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
    /// Rounded activations.
    static PAIRS: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// See [`crate::device::Device::matmul`].
pub fn matmul(path: Path<'_>, rows: usize, x: &Tensor, w: &Weight, bias: Option<&Weight>, out: &mut Tensor) {
    if w.columns == 0 {
        out.rows_mut(rows).fill(0.0);
        return;
    }
    let x = Rows { tensor: x, sources: None };
    let (columns, out) = (w.columns, Columns::of(out));
    Product { path, x, columns, parts: &w.parts, bias, out: &out }.run(0..rows);
}

/// `out[row] = x[row] * w[group of row]^T`, where the rows of group `g` are `offsets[g]..offsets[g + 1]`; see
/// [`crate::device::Device::grouped_matmul`].
pub fn grouped_matmul(path: Path<'_>, offsets: &[u32], x: Rows<'_>, w: &Weight, out: &mut Tensor) {
    let outputs = w.rows / (offsets.len() - 1);
    let (columns, out) = (w.columns, Columns::of(out));
    path.pool.for_each(offsets.windows(2).enumerate(), |(group, offsets)| {
        let rows = offsets[0] as usize..offsets[1] as usize;
        if rows.is_empty() {
            return;
        }
        let part_at = |row: usize| w.parts.partition_point(|part| part.first < row);
        let parts = &w.parts[part_at(group * outputs)..part_at((group + 1) * outputs)];
        debug_assert_eq!(parts.iter().map(|part| part.rows).sum::<usize>(), outputs, "a part of two groups");
        Product { path, x, columns, parts, bias: None, out: &out }.run(rows);
    });
}

/// A product of rows with consecutive parts of a weight. The first part gives the first outputs.
struct Product<'a> {
    path: Path<'a>,
    x: Rows<'a>,
    columns: usize,
    parts: &'a [Part],
    /// The bias of the whole weight.
    bias: Option<&'a Weight>,
    out: &'a Columns,
}

impl Product<'_> {
    fn run(&self, rows: Range<usize>) {
        let &Self { path, x, columns, parts, bias, out } = self;
        let Some((first_part, last_part)) = parts.first().zip(parts.last()) else { return };
        let (base, outputs) = (first_part.first, last_part.first + last_part.rows - first_part.first);
        let tasks: Vec<(&Part, usize)> =
            parts.iter().flat_map(|p| (0..p.rows).step_by(OUTPUTS).map(move |first| (p, first))).collect();
        let amx = path.amx.filter(|_| parts.iter().any(|part| part.panel(0).is_some()));
        let rounds = parts.iter().any(|part| part.rounds_rows);
        let tile_parts = if rounds { Parts::Rounded } else { Parts::Exact };
        let pass = rows_a_pass(columns, tile_parts);
        let (mut tiles, mut pairs) = (TILES.take(), PAIRS.take());
        for first in rows.clone().step_by(pass) {
            let rows = first..rows.end.min(first + pass);
            let packed =
                amx.map(|amx| (amx, pack(path.pool, amx, x, rows.clone(), columns, tile_parts, &mut tiles)));
            let rounded =
                (rounds && amx.is_none()).then(|| round(path, x, rows.clone(), columns, &mut pairs));
            let run = |&(part, first): &(&Part, usize)| {
                let outputs = first..part.rows.min(first + OUTPUTS);
                let bias = bias.map(|bias| &bias.vector()[part.first..][outputs.clone()]);
                let column = part.first - base + first;
                let task = Task { part, outputs, column, columns, bias, rows: rows.clone(), target: out };
                match packed.zip(part.panel(first)) {
                    Some(((amx, packed), panel)) => by_tiles(&task, amx, panel, packed, tile_parts),
                    None => path.isa.run(ByPanels { task, x, rounded }),
                }
            };
            if rows.len().div_ceil(SIDE) * outputs * columns < PARALLEL {
                tasks.iter().for_each(run);
            } else {
                path.pool.for_each_in_chunks(&tasks, run);
            }
        }
        TILES.set(tiles);
        PAIRS.set(pairs);
    }
}

fn rows_a_pass(columns: usize, parts: Parts) -> usize {
    let block_bytes = Amx::tiles(columns, parts).max(1) * size_of::<Tile>();
    (PACKED_BYTES / block_bytes * SIDE).clamp(*ROWS.start(), *ROWS.end())
}

/// The outputs of a task, whose rows are packed.
fn by_tiles(task: &Task<'_>, amx: Amx, panel: &[Tile], packed: &[Tile], parts: Parts) {
    let (mut products, mut by_row) = (Products::new(), [[0.0; OUTPUTS]; SIDE]);
    let blocks = task.rows.len().div_ceil(SIDE);
    amx.configured(|| {
        for (block, packed) in packed.chunks_exact(packed.len() / blocks).enumerate() {
            amx.multiply(panel, packed, parts, Ahead::share(panel, block, blocks), &mut products);
            products.by_row(amx, &mut by_row);
            for (row, values) in task.rows.clone().skip(block * SIDE).zip(&by_row) {
                // A length that the compiler knows makes the usual case faster.
                if task.outputs.len() == OUTPUTS {
                    task.write(row, 0, values);
                } else {
                    task.write(row, 0, &values[..task.outputs.len()]);
                }
            }
        }
    });
}

/// Packs the rows into tiles, block by block; `room` is reused by the next product.
fn pack<'a>(
    pool: &ThreadPool,
    amx: Amx,
    x: Rows<'_>,
    rows: Range<usize>,
    columns: usize,
    parts: Parts,
    room: &'a mut Vec<Tile>,
) -> &'a [Tile] {
    let tiles = Amx::tiles(columns, parts);
    let count = rows.len().div_ceil(SIDE) * tiles;
    room.resize(room.len().max(count), Tile::zeroed());
    let packed = &mut room[..count];
    let pack = |(index, out): (usize, &mut [Tile])| {
        let first = rows.start + index * SIDE;
        amx.pack(|row| x.row(first + row), SIDE.min(rows.end - first), columns, parts, out);
    };
    if rows.len() <= 2 * SIDE {
        packed.chunks_exact_mut(tiles).enumerate().for_each(pack);
    } else {
        pool.for_each(packed.chunks_exact_mut(tiles).enumerate(), pack);
    }
    packed
}

/// Rounds the rows to bf16 pairs; `room` is reused by the next product.
fn round<'a>(
    path: Path<'_>,
    x: Rows<'_>,
    rows: Range<usize>,
    columns: usize,
    room: &'a mut Vec<u32>,
) -> RoundedRows<'a> {
    let pairs = columns.div_ceil(2);
    room.resize(room.len().max(rows.len() * pairs), 0);
    let numbers = &mut room[..rows.len() * pairs];
    let round = |(row, out): (usize, &mut [u32])| path.isa.run(Round { row: &x.row(row)[..columns], out });
    if rows.len() * columns < PARALLEL {
        rows.clone().zip(numbers.chunks_exact_mut(pairs)).for_each(round);
    } else {
        path.pool.for_each(rows.clone().zip(numbers.chunks_exact_mut(pairs)), round);
    }
    RoundedRows { numbers, pairs, first: rows.start }
}
