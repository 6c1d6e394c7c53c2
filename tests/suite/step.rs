//! Steps of a device for tests that call its operations one by one.

use codit::contrast::Vocabulary;
use codit::device::{
    AmateurLogits, Batch, Capacity, Decision, Device, ExpertLogits, PerKind, RowResult, SampleRow,
    Unprojected,
};

/// Prepares a step for `batch`, with exactly the capacity that it needs. `rows` sample its outputs.
pub fn begin<D: Device>(
    device: &D,
    block_size: usize,
    vocabulary: &Vocabulary,
    batch: &Batch,
    rows: &[SampleRow],
) -> D::Step {
    let capacity = Capacity {
        max_num_seqs: batch.spans.len().max(batch.logits_indices.len()),
        max_num_batched_tokens: batch.tokens.len(),
        block_size,
    };
    let mut step = device.step(capacity, PerKind::of(|_| batch.blocks.len()), vocabulary).unwrap();
    device.prepare(&mut step, batch, rows);
    step
}

/// Prepares a step for `batch`; the step samples nothing.
pub fn begin_forward<D: Device>(device: &D, block_size: usize, batch: &Batch) -> D::Step {
    begin(device, block_size, &Vocabulary::new(1, vec![]), batch, &[])
}

/// Submits the step and returns its decisions.
pub fn end<D: Device>(device: &D, mut step: D::Step) -> Vec<Decision> {
    device.submit(&mut step);
    device.collect(&mut step).unwrap().into_iter().map(RowResult::decision).map(Option::unwrap).collect()
}

/// The decision for each of `rows`, drawn from its row of the logits.
pub fn sample<D: Device>(
    device: &D,
    rows: &[SampleRow],
    vocabulary: &Vocabulary,
    expert: &D::Tensor,
    amateur: Option<&D::Tensor>,
) -> Vec<Decision> {
    let batch = Batch { logits_indices: (0..rows.len() as u32).collect(), ..Batch::default() };
    let mut step = begin(device, 1, vocabulary, &batch, rows);
    let amateur = amateur.map_or(AmateurLogits::Unneeded, AmateurLogits::Computed);
    device.sample(&mut step, 0..rows.len(), ExpertLogits::Computed(expert), amateur);
    end(device, step)
}

/// Like [`sample`], but the amateur's logits are not computed yet: the sampler computes them from the hidden states
/// and the LM head.
pub fn sample_hidden<D: Device>(
    device: &D,
    rows: &[SampleRow],
    vocabulary: &Vocabulary,
    expert: &D::Tensor,
    amateur: (&D::Tensor, &D::Weight),
    logits: &mut D::Tensor,
) -> Vec<Decision> {
    let batch = Batch { logits_indices: (0..rows.len() as u32).collect(), ..Batch::default() };
    let mut step = begin(device, 1, vocabulary, &batch, rows);
    let (hidden, lm_head) = amateur;
    let amateur = AmateurLogits::Unprojected(Unprojected { hidden, lm_head, logits });
    device.sample(&mut step, 0..rows.len(), ExpertLogits::Computed(expert), amateur);
    end(device, step)
}
