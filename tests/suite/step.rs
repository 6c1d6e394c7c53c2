//! Steps of a device for tests that call its operations one by one.

use codit::contrast::Vocabulary;
use codit::device::{Batch, Device, RowResult, SampleRow, StepCapacity};

/// `batch` as the step at hand, its outputs to be sampled by `rows`, with no more room than it takes.
pub fn begin<D: Device>(
    device: &D,
    block_size: usize,
    vocabulary: &Vocabulary,
    batch: &Batch,
    rows: &[SampleRow],
) -> D::Step {
    let room = StepCapacity {
        tokens: batch.tokens.len(),
        sequences: batch.spans.len().max(batch.logits_indices.len()),
        blocks: batch.blocks.len(),
        block_size,
        vocabulary,
    };
    let mut step = device.step(room).unwrap();
    device.begin(&mut step, batch, rows);
    step
}

/// `batch` as the step at hand, of which nothing is sampled.
pub fn begin_forward<D: Device>(device: &D, block_size: usize, batch: &Batch) -> D::Step {
    begin(device, block_size, &Vocabulary::new(1, vec![]), batch, &[])
}

/// What the step at hand gave.
pub fn end<D: Device>(device: &D, mut step: D::Step) -> Vec<RowResult> {
    device.finish(&mut step);
    device.collect(&mut step).unwrap()
}

/// What each of `rows` draws from its row of the logits.
pub fn sample<D: Device>(
    device: &D,
    rows: &[SampleRow],
    vocabulary: &Vocabulary,
    expert: &D::Tensor,
    amateur: Option<&D::Tensor>,
) -> Vec<RowResult> {
    let batch = Batch { logits_indices: (0..rows.len() as u32).collect(), ..Batch::default() };
    let mut step = begin(device, 1, vocabulary, &batch, rows);
    device.contrast_sample(&mut step, 0..rows.len(), expert, amateur);
    end(device, step)
}

/// As [`sample`], the amateur's logits not yet computed from its hidden states and its head.
pub fn sample_hidden<D: Device>(
    device: &D,
    rows: &[SampleRow],
    vocabulary: &Vocabulary,
    expert: &D::Tensor,
    amateur: (&D::Tensor, &D::Weight),
    logits: &mut D::Tensor,
) -> Vec<RowResult> {
    let batch = Batch { logits_indices: (0..rows.len() as u32).collect(), ..Batch::default() };
    let mut step = begin(device, 1, vocabulary, &batch, rows);
    device.contrast_sample_hidden(&mut step, 0..rows.len(), expert, amateur, logits);
    end(device, step)
}
