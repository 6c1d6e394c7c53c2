//! Decode steps are padded to a few sizes; other steps are not padded.

use codit::contrast::{Contrast, Noise, Vocabulary};
use codit::device::gpu::{SPLIT, bucket, context_bucket};
use codit::device::inspect::Inspect;
use codit::device::simt::Simt;
use codit::device::{
    AmateurLogits, AttentionShape, Batch, CacheLayer, CacheShape, Capacity, Device, Dtype, ExpertLogits,
    Heads, Pass, PendingToken, PerKind, Precision, SampleRow, Span, WeightKind, WeightSource,
};
use codit::ids::{BlockId, TokenId};

const BLOCK_SIZE: usize = 4;

/// A batch of spans, given by their first position and length. Each span has the blocks that it needs, and all are
/// sampled.
fn batch(spans: &[(usize, usize)]) -> (Batch, Vec<SampleRow>) {
    let mut batch = Batch::default();
    for &(first, len) in spans {
        let (token, block) = (batch.tokens.len(), batch.blocks.len());
        batch.tokens.extend(vec![TokenId(1); len]);
        batch.positions.extend((first..first + len).map(|position| position as u32));
        let blocks = (first + len).div_ceil(BLOCK_SIZE);
        batch.blocks.extend((0..blocks).map(|index| BlockId((block + index) as u32)));
        batch.spans.push(Span { tokens: token..token + len, blocks: block..block + blocks });
        batch.logits_indices.push((token + len - 1) as u32);
    }
    let noise = Noise::new(1, "launch", 0);
    let rows = vec![
        SampleRow {
            contrast: Contrast::default(),
            noise,
            position: 1,
            log_probabilities: false,
            deferred_row: None
        };
        spans.len()
    ];
    (batch, rows)
}

const CAPACITY: Capacity = Capacity { max_num_seqs: 21, max_num_batched_tokens: 64, block_size: BLOCK_SIZE };

#[test]
fn a_bucket_holds_its_size_and_little_more() {
    let mut buckets = std::collections::BTreeSet::new();
    for size in 1..10_000 {
        let padded = bucket(size);
        assert!(padded >= size && (padded <= size + 7 || 4 * padded <= 5 * size), "{size} to {padded}");
        assert_eq!(bucket(padded), padded);
        buckets.insert(padded);
    }
    assert_eq!(buckets.range(..=256).count(), 19);
}

/// Up to 2,048 positions no split is too many, beyond that less than a quarter of them; and contexts of up to 131,072
/// positions have 32 sizes.
#[test]
fn a_context_is_padded_by_whole_splits_and_little_more() {
    let mut buckets = std::collections::BTreeSet::new();
    for positions in 1..=131_072_usize {
        let (splits, padded) = (positions.div_ceil(SPLIT), context_bucket(positions));
        assert!(padded >= positions && padded.is_multiple_of(SPLIT), "{positions} to {padded}");
        let extra = padded / SPLIT - splits;
        assert!(if splits <= 8 { extra == 0 } else { 4 * extra < splits }, "{positions} to {padded}");
        buckets.insert(padded);
    }
    assert_eq!(buckets.len(), 32);
}

#[test]
fn decoding_is_padded_within_the_room_and_named_by_its_size() {
    let device = Simt::simt(Dtype::F32, 0);
    let vocabulary = Vocabulary { len: 8, special: vec![] };
    let mut step = device.step(CAPACITY, PerKind::only_full(4096), &vocabulary).unwrap();
    let mut begin = |spans: &[(usize, usize)]| {
        let (batch, rows) = batch(spans);
        device.prepare(&mut step, &batch, &rows);
        (
            device.rows(&step),
            device.outputs(&step),
            step.replay_key(Pass::Joint),
            step.replay_key(Pass::ExpertOnly),
        )
    };
    let decode = |count, position| vec![(position, 1); count];

    let (rows, outputs, key, other_variant) = begin(&decode(9, 5));
    assert_eq!((rows, outputs), (16, 16));
    assert!(key.is_some() && key != other_variant);
    assert_eq!(begin(&decode(13, 250)).2, key, "the same size, contexts of up to 256");
    assert_ne!(begin(&decode(13, 256)).2, key, "a context of 257");
    assert_eq!(begin(&decode(3, 2048)).2, begin(&decode(3, 2559)).2, "contexts of 9 and of 10 splits");
    assert_ne!(begin(&decode(3, 2048)).2, begin(&decode(3, 2560)).2, "contexts of 9 and of 11 splits");
    assert_ne!(begin(&decode(17, 5)).2, key, "another size");
    assert_eq!(begin(&decode(20, 5)).0, 21, "no more than there is room for");
    assert_eq!(begin(&decode(1, 0)).0, 1);

    let (rows, outputs, key, _) = begin(&[(5, 1), (0, 7), (9, 1)]);
    assert_eq!((rows, outputs, key), (9, 3, None), "a prefill chunk among them");

    let mut other = device.step(CAPACITY, PerKind::only_full(4096), &vocabulary).unwrap();
    let (batch, rows) = batch(&decode(9, 5));
    device.prepare(&mut step, &batch, &rows);
    device.prepare(&mut other, &batch, &rows);
    assert_ne!(
        other.replay_key(Pass::Joint),
        step.replay_key(Pass::Joint),
        "another step's recording is at other addresses"
    );
}

/// A step may begin before it is known which of its rows have a token. Rows without a token are not written, and the
/// other rows are not affected.
#[test]
fn rows_without_a_token_are_padding() {
    let (device, rows, heads) = (Simt::simt(Dtype::F32, 3), 3, Heads { query: 1, key_value: 1, dim: 16 });
    let vocabulary = Vocabulary::new(8, vec![]);
    let mut step = device.step(CAPACITY, PerKind::only_full(4096), &vocabulary).unwrap();
    let (mut batch, mut samples) = batch(&[(0, 1); 3]);
    for (row, slot) in samples.iter_mut().zip(0..) {
        (row.contrast.alpha, row.deferred_row) = (0.5, Some(slot));
    }
    let tensor = |width, values: &[f32]| {
        let mut tensor = device.tensor(rows, width, Precision::Single).unwrap();
        device.upload(values, &mut tensor);
        tensor
    };
    // The second row has two equally likely tokens.
    let mut logits = vec![0.0; rows * 8];
    for likely in [4, 8 + 1, 8 + 6, 16 + 7] {
        logits[likely] = 9.0;
    }
    let mut deferred_logits = tensor(8, &[f32::NAN; 24]);
    let mut sample = |step: &mut _| {
        let expert = tensor(8, &logits);
        let amateur = AmateurLogits::Later { deferred_logits: &mut deferred_logits };
        device.sample(step, 0..rows, ExpertLogits::Computed(&expert), amateur);
        device.submit(step);
        let results = device.collect(step).unwrap().into_iter();
        results.map(|row| row.decision().map(|row| row.unwrap().token.0)).collect::<Vec<_>>()
    };
    device.prepare(&mut step, &batch, &samples);
    assert_eq!(sample(&mut step), [Some(4), None, Some(7)]);

    batch.pending_tokens = (0..3).map(|row| PendingToken { index: row, source_output: row }).collect();
    device.prepare(&mut step, &batch, &samples);
    let random = WeightSource::Random { shape: &[8, 16], seed: 1 };
    let table = device.load(random, WeightKind::Other).unwrap();
    let mut out = tensor(16, &[f32::NAN; 48]);
    device.embed(&step, &table, 1.0, &mut out);
    let is_there = |out: &_| {
        let numbers = device.download(rows, out);
        numbers.chunks(16).map(|row| row.iter().all(|x| !x.is_nan())).collect::<Vec<_>>()
    };
    assert_eq!(is_there(&out), [true, false, true]);
    let shape = CacheShape {
        layers: PerKind::only_full(1),
        heads: 1,
        group: 1,
        head_dim: 16,
        block_size: BLOCK_SIZE,
        blocks: PerKind::only_full(4096),
    };
    let mut cache = device.cache(shape).unwrap();
    let rope = device.rope(&[1.0; 8], 1.0).unwrap();
    let mut qkv = tensor(48, &[1.0; 144]);
    device.rope_store(&step, heads, None, &rope, CacheLayer::full(0), &mut qkv, &mut cache);
    let mut out = tensor(16, &[f32::NAN; 48]);
    let attention = AttentionShape { heads, scale: 1.0, window: None, layer: CacheLayer::full(0) };
    device.attention(&step, attention, &qkv, &cache, &mut out);
    assert_eq!(is_there(&out), [true, false, true]);
    assert_eq!(sample(&mut step)[2], Some(7));
}

#[test]
fn results_are_of_the_rows_that_were_asked_for() {
    let device = Simt::simt(Dtype::F32, 0);
    let vocabulary = Vocabulary { len: 8, special: vec![] };
    let mut step = device.step(CAPACITY, PerKind::only_full(4096), &vocabulary).unwrap();
    let (batch, rows) = batch(&[(5, 1); 9]);
    device.prepare(&mut step, &batch, &rows);
    device.submit(&mut step);
    assert_eq!(device.collect(&mut step).unwrap().len(), 9);
}

/// A step that decodes and prefills computes both attentions side by side. Each is as in a step of its own, and what
/// reads the results waits for both: on this device, kernels that nothing waits for never run.
#[test]
fn both_attentions_of_a_mixed_step_are_waited_for() {
    const HEADS: Heads = Heads { query: 2, key_value: 1, dim: 64 };
    const QKV: usize = 4 * 64;
    let capacity = Capacity { max_num_seqs: 4, max_num_batched_tokens: 512, block_size: BLOCK_SIZE };
    let shape = CacheShape {
        layers: PerKind::only_full(1),
        heads: 1,
        group: 2,
        head_dim: HEADS.dim,
        block_size: BLOCK_SIZE,
        blocks: PerKind::only_full(128),
    };
    for seed in 0..4 {
        let device = Simt::simt(Dtype::Bf16, seed);
        let vocabulary = Vocabulary::new(8, vec![]);
        let mut step = device.step(capacity, PerKind::only_full(512), &vocabulary).unwrap();
        let mut cache = device.cache(shape).unwrap();
        let rope = device.rope(&[1.0; 32], 1.0).unwrap();
        let mut attention = |spans: &[(usize, usize)]| {
            let (batch, rows) = batch(spans);
            device.prepare(&mut step, &batch, &rows);
            let rows = device.rows(&step);
            let number = |span: usize, position: usize, column: usize| {
                let mixed = (span * 7919 + position * 104_729 + column * 1_299_709) % 1009;
                mixed as f32 / 1009.0 - 0.5
            };
            let tokens = spans.iter().enumerate().flat_map(|(span, &(first, len))| {
                (first..first + len)
                    .flat_map(move |position| (0..QKV).map(move |column| number(span, position, column)))
            });
            let mut numbers: Vec<f32> = tokens.collect();
            numbers.resize(rows * QKV, 0.0);
            let mut qkv = device.tensor(rows, QKV, Precision::Working).unwrap();
            device.upload(&numbers, &mut qkv);
            device.rope_store(&step, HEADS, None, &rope, CacheLayer::full(0), &mut qkv, &mut cache);
            let mut out = device.tensor(rows, 2 * HEADS.dim, Precision::Working).unwrap();
            let attention =
                AttentionShape { heads: HEADS, scale: 0.125, window: None, layer: CacheLayer::full(0) };
            device.attention(&step, attention, &qkv, &cache, &mut out);
            let out = device.download(rows, &out);
            out.chunks(2 * HEADS.dim).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let prefilled = attention(&[(0, 300), (0, 7), (0, 41)]);
        let decoded = attention(&[(299, 1)]);
        let mixed = attention(&[(299, 1), (0, 7), (40, 1)]);
        assert!(mixed.iter().flatten().all(|number| number.is_finite()), "seed {seed}");
        assert_eq!(mixed[0], decoded[0], "seed {seed}");
        assert_eq!(mixed[1..8], prefilled[300..307], "seed {seed}");
    }
}
