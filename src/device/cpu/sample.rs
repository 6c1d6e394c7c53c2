//! The method of `contrast.rs` over rows of logits.

use rayon::prelude::*;

use super::Tensor;
use crate::contrast::{Distribution, RowFault, Sampled, Vocabulary};
use crate::device::SampleRow;

/// See [`crate::device::Device::contrast_sample`].
pub fn contrast_sample(
    rows: &[SampleRow<'_>],
    vocabulary: &Vocabulary,
    expert: &Tensor,
    amateur: Option<&Tensor>,
) -> Vec<Result<Sampled, RowFault>> {
    rows.par_iter()
        .enumerate()
        .map(|(index, row)| {
            let amateur = amateur.map(|amateur| amateur.row(index));
            let distribution = Distribution::new(row.contrast, vocabulary, expert.row(index), amateur)?;
            Ok(distribution.sample(&row.noise, row.position))
        })
        .collect()
}
