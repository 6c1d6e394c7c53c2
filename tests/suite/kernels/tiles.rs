use std::collections::BTreeSet;

use codit::device::cpu::Cpu;
use codit::device::gpu::GpuConfig;
use codit::device::gpu::tile::{BF16, E4M3, Tile, TileKernel};
use codit::device::inspect::Inspect;
use codit::device::simt::Simt;
use codit::device::{Device, Dtype, Format, Precision};
use codit::doctor::Comparison;

/// Multiprocessors of an H100.
const H100: usize = 132;

/// Outputs of the products of a layer of Llama-3.1-8B: queries, keys and values; attention's output; gate and up; down.
const LLAMA_8B: [usize; 4] = [6144, 4096, 28672, 4096];

fn of_one_group(kernels: &'static [TileKernel], multiprocessors: usize, rows: usize, outputs: usize) -> Tile {
    Tile::choose(kernels, multiprocessors, 1, [rows, outputs])
}

/// The kernel's tile, the rows of a tile, and the number of blocks.
fn taken(kernels: &'static [TileKernel], rows: usize, outputs: usize) -> (&'static str, usize, usize) {
    let Tile { kernel, rows: height } = of_one_group(kernels, H100, rows, outputs);
    let size = kernel.name.split('_').nth(2).unwrap();
    (size, height, rows.div_ceil(height) * outputs.div_ceil(kernel.outputs))
}

/// The tiles of a layer of Llama-3.1-8B on an H100; docs/internals/predictions.md predicts their times.
#[test]
fn products_of_an_8b_layer_take_these_tiles() {
    let of = |rows| LLAMA_8B.map(|outputs| taken(&E4M3, rows, outputs));
    let attention_output = ("16x64", 16, 64);
    assert_eq!(of(16), [("16x64", 16, 96), attention_output, ("16x64", 16, 448), attention_output]);
    let attention_output = ("64x64", 64, 64);
    assert_eq!(of(64), [("64x64", 64, 96), attention_output, ("128x256", 64, 112), attention_output]);
    let attention_output = ("128x128", 64, 96);
    assert_eq!(of(151), [("128x128", 80, 96), attention_output, ("128x256", 80, 224), attention_output]);
    let attention_output = ("128x128", 64, 128);
    assert_eq!(of(256), [("128x128", 128, 96), attention_output, ("128x256", 128, 224), attention_output]);
    let attention_output = ("128x128", 128, 128);
    assert_eq!(of(512), [("128x256", 112, 120), attention_output, ("128x128", 128, 896), attention_output]);
    let attention_output = ("128x256", 128, 256);
    assert_eq!(of(2048), [("128x256", 128, 384), attention_output, ("128x256", 128, 1792), attention_output]);
}

/// A tile fits its kernel and the rows, and products of more than 64 rows occupy more than half of a GPU.
#[test]
fn tiles_fit_their_kernels_and_occupy_the_multiprocessors() {
    for (kernels, multiprocessors) in
        [&E4M3[..], &BF16[..]].into_iter().flat_map(|kernels| [1, 58, 108, H100, 148].map(|n| (kernels, n)))
    {
        for (rows, outputs) in (1..600).flat_map(|rows| [1, 65, 4096, 28672].map(|n| (rows, n))) {
            let tile = of_one_group(kernels, multiprocessors, rows, outputs);
            assert!(tile.rows.is_multiple_of(16) && tile.rows <= rows.next_multiple_of(16), "{tile:?}");
            // What a block can have on GPUs of compute capability 8.9 and 12.0.
            assert!(tile.shared_bytes() <= 99 << 10, "{tile:?}");
            let blocks = rows.div_ceil(tile.rows) * outputs.div_ceil(tile.kernel.outputs);
            if kernels == E4M3 && rows > 64 && outputs >= 4096 {
                assert!(blocks * 2 > multiprocessors, "{blocks} blocks for {rows} rows of {outputs}");
            }
        }
    }
}

/// The same product is computed in other tiles if the device claims to have other multiprocessors. No bit changes, and
/// the loops for other numbers of row fragments are run.
#[test]
fn no_tile_changes_a_bit() {
    const INPUTS: usize = 208;
    let format = Format::of(Dtype::F8E4m3);
    let device = Simt::simt_with(GpuConfig::of(format), 5, false);
    let cpu = Cpu::new(None).unwrap().with_formats([format; 2]);
    let mut on = Comparison::new(&device, &cpu, 5);
    let mut seen = BTreeSet::new();
    for outputs in [131, 515] {
        let w = on.matrices_in(Dtype::Bf16, &[outputs, INPUTS]).unwrap().0;
        let values = on.numbers.take(151 * INPUTS);
        let mut product = |multiprocessors, rows: usize| -> Vec<u32> {
            device.runtime().claim_multiprocessors(multiprocessors);
            let tile = of_one_group(&E4M3, multiprocessors, rows, outputs);
            let rows_of = (0..rows).step_by(tile.rows).map(|first| tile.rows.min(rows - first));
            seen.extend(rows_of.map(|rows| (tile.kernel.name, rows.div_ceil(16))));
            let mut x = device.tensor(rows, INPUTS, Precision::Working).unwrap();
            let mut out = device.tensor(rows, outputs, Precision::Single).unwrap();
            device.upload(&values[..rows * INPUTS], &mut x);
            device.matmul(rows, &x, &w, None, &mut out);
            device.download(rows, &out).into_iter().map(f32::to_bits).collect()
        };
        let whole = product(1000, 151);
        for multiprocessors in [1, 2, 3, 6, 12] {
            for rows in [1, 15, 16, 17, 33, 49, 64, 65, 81, 97, 113, 127, 128, 129, 151] {
                assert!(
                    product(multiprocessors, rows) == whole[..rows * outputs],
                    "{rows} rows on {multiprocessors} multiprocessors"
                );
            }
        }
    }
    for kernel in &E4M3 {
        let fragments = seen.iter().filter(|(name, _)| *name == kernel.name).count();
        // A wide tile has one fragment only at the end of a group; the checks of mixtures have such groups.
        let left_out = usize::from(kernel.outputs > 64);
        assert_eq!(fragments, kernel.most_rows / 16 - left_out, "{}", kernel.name);
    }
}
