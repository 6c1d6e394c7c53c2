use codit::contrast::Vocabulary;
use codit::device::gpu::Cache;
use codit::device::gpu::runtime::{GpuRuntime, Role};
use codit::device::inspect::Inspect;
use codit::device::number::e4m3::E4m3;
use codit::device::number::quantize;
use codit::device::simt::{Host, Simt};
use codit::device::{
    Batch, CacheLayer, CacheShape, Capacity, Device, Dtype, Heads, LayerKind, PerKind, Precision, Span,
};
use codit::doctor::{Check, Comparison, relative_error, rows};
use codit::ids::{BlockId, TokenId};

#[test]
fn rows_are_as_on_the_cpu() {
    super::run(rows::checks);
}

#[test]
fn rope_store_writes_keys_and_values_to_their_slots_and_nowhere_else() {
    let checks = |on: &mut Comparison<'_, Simt>| {
        [8, 16, 24, 64, 80, 96, 128, 248, 256].map(|dim| cache(on, dim)).into_iter().collect()
    };
    super::run(checks);
    super::run_with_e4m3_cache(checks);
}

/// The whole cache as f32, `[layers, blocks, 2, heads, block_size, head_dim]`.
fn contents(device: &Simt, cache: &Cache<Host>, rows: usize, dim: usize) -> Vec<f32> {
    let machine = device.runtime();
    let read = |memory, bytes| machine.wait(machine.read(Role::Expert, memory, bytes)).unwrap();
    let bytes = read(cache.memory(LayerKind::Full), rows * dim * device.info().format.cache.size());
    match device.info().format.cache {
        Dtype::F32 => bytemuck::pod_collect_to_vec(&bytes),
        Dtype::F8E4m3 => {
            let scales: Vec<f32> = bytemuck::pod_collect_to_vec(&read(
                cache.scales(LayerKind::Full).unwrap(),
                rows * size_of::<f32>(),
            ));
            let scaled =
                |(row, scale): (&[u8], f32)| row.iter().map(move |x| E4m3(*x).to_f32() * scale).collect();
            bytes.chunks_exact(dim).zip(scales).flat_map(|row| -> Vec<f32> { scaled(row) }).collect()
        }
        _ => bytemuck::pod_collect_to_vec::<u8, half::bf16>(&bytes).iter().map(|x| x.to_f32()).collect(),
    }
}

/// Compares the layer that is written with the CPU's `qkv`. Everything else must stay NaN.
fn cache(on: &mut Comparison<'_, Simt>, dim: usize) -> codit::Result<Check> {
    const LAYERS: usize = 3;
    const BLOCKS: usize = 7;
    let heads = Heads { query: 6, key_value: 3, dim };
    let shape = CacheShape {
        layers: PerKind::only_full(LAYERS),
        heads: 3,
        group: 2,
        head_dim: dim,
        block_size: 4,
        blocks: PerKind::only_full(BLOCKS),
    };
    // Row 5 is padding.
    let batch = Batch {
        tokens: vec![TokenId(0); 7],
        positions: vec![2, 3, 4, 5, 6, 1, 9],
        spans: vec![Span { tokens: 0..5, blocks: 0..2 }, Span { tokens: 6..7, blocks: 2..5 }],
        blocks: [6, 2, 0, 1, 4].map(BlockId).to_vec(),
        ..Batch::default()
    };
    let slots = [Some((6, 2)), Some((6, 3)), Some((2, 0)), Some((2, 1)), Some((2, 2)), None, Some((4, 1))];
    let vocabulary = Vocabulary::new(1, Vec::new());
    let capacity = Capacity { max_num_seqs: 2, max_num_batched_tokens: 7, block_size: 4 };
    let blocks = PerKind::only_full(5);
    let mut steps =
        (on.device.step(capacity, blocks, &vocabulary)?, on.cpu.step(capacity, blocks, &vocabulary)?);
    on.device.prepare(&mut steps.0, &batch, &[]);
    on.cpu.prepare(&mut steps.1, &batch, &[]);
    let frequencies: Vec<f32> = (0..dim / 2).map(|i| 0.5_f32.powi(i as i32)).collect();
    let ropes = (on.device.rope(&frequencies, 1.0)?, on.cpu.rope(&frequencies, 1.0)?);
    let mut caches = (on.device.cache(shape)?, on.cpu.cache(shape)?);
    let mut qkv = on.tensors(7, heads.qkv_width(), Precision::Working)?;
    on.device.rope_store(&steps.0, heads, None, &ropes.0, CacheLayer::full(1), &mut qkv.0, &mut caches.0);
    on.cpu.rope_store(&steps.1, heads, None, &ropes.1, CacheLayer::full(1), &mut qkv.1, &mut caches.1);

    on.device.copy_block(&mut caches.0, LayerKind::Full, BlockId(6), BlockId(3));

    let rows = LAYERS * BLOCKS * 2 * shape.heads * shape.block_size;
    let is_e4m3 = on.device.info().format.cache == Dtype::F8E4m3;
    let mut expected = vec![f32::NAN; rows * dim];
    for (row, slot) in on.cpu.download(7, &qkv.1).chunks_exact(heads.qkv_width()).zip(slots) {
        let Some((block, place)) = slot else { continue };
        for (index, head) in row[heads.query_width()..].chunks_exact(dim).enumerate() {
            let of_block = (BLOCKS + block) * 2 * shape.heads + index;
            let head = if is_e4m3 { quantize::rounded(head) } else { head.to_vec() };
            expected[(of_block * shape.block_size + place) * dim..][..dim].copy_from_slice(&head);
        }
    }
    // Block 6 is copied to block 3.
    let block = 2 * shape.heads * shape.block_size * dim;
    expected.copy_within((BLOCKS + 6) * block..(BLOCKS + 7) * block, (BLOCKS + 3) * block);
    let found = contents(on.device, &caches.0, rows, dim);
    let elsewhere = found.iter().zip(&expected).filter(|(a, b)| a.is_nan() != b.is_nan()).count();
    let written = |x: &[f32]| x.iter().copied().filter(|x| !x.is_nan()).collect::<Vec<_>>();
    let error = relative_error(&written(&found), &written(&expected));
    let check = Check::measured("rope_store", format!("the cache, {heads:?}"), error, on.bound());
    Ok(Check { differences: elsewhere, ..check })
}
