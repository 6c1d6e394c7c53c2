//! Checks of [`Device::settle`] and of what follows it, against the f64 reference of `contrast.rs`: which rows are settled,
//! what is kept of the others, that it outlasts a step which was begun before that was known, and what is drawn from it.
//!
//! It counts rows.

use super::sample::{Rows, agrees, decoding};
use super::{Check, Comparison};
use crate::contrast::{Distribution, RowFault, Sampled};
use crate::device::{Batch, Device, PendingToken, Precision, RowResult, SampleRow, StepCapacity};
use crate::error::Result;

const ROWS: usize = 48;

/// All of them.
pub fn checks<D: Device>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    // 512 is a tile of the kernel, eight tiles fill a block.
    [40, 513, 5000].map(|len| check(on, len)).into_iter().collect()
}

/// A step, one that is fed by it and begun before its results are known, and the amateur's over what the first has left.
fn check<D: Device>(on: &mut Comparison<'_, D>, len: usize) -> Result<Check> {
    let mut first = Rows::random(&mut on.numbers, len, ROWS);
    let mut second =
        Rows { vocabulary: first.vocabulary.clone(), ..Rows::random(&mut on.numbers, len, ROWS) };
    for (index, (first, second)) in first.samples.iter_mut().zip(&mut second.samples).enumerate() {
        second.contrast = first.contrast;
        for row in [first, second] {
            row.log_probabilities = on.numbers.below(4) == 0;
            // Some other row.
            row.deferred_row = row.contrast.needs_amateur().then_some((ROWS - 1 - index) as u32);
        }
    }
    let device = on.device;
    let mut step = device.step(StepCapacity {
        tokens: ROWS,
        sequences: ROWS,
        blocks: ROWS,
        block_size: 1,
        vocabulary: &first.vocabulary,
    })?;
    let width = len + 3;
    let mut deferred_logits = device.tensor(ROWS, width, Precision::Single)?;
    device.upload(&vec![f32::NAN; ROWS * width], &mut deferred_logits);

    settle(on, &mut step, &first, Vec::new(), &mut deferred_logits)?;
    let fed = (0..ROWS as u32).map(|row| PendingToken { index: row, source_output: row }).collect();
    settle(on, &mut step, &second, fed, &mut deferred_logits)?;
    let (one, two) = (device.collect_settled(&mut step)?, device.collect_settled(&mut step)?);
    let left = device.download(ROWS, &deferred_logits);
    let keeps = |rows: &Rows, row: usize| {
        let slot = ROWS - 1 - row;
        let found = &left[slot * width..][..len];
        found.iter().zip(rows.expert(row)).all(|(a, b)| a.to_bits() == b.to_bits())
    };
    let is_right = |row: usize| {
        let waits = is_contested(&first, row);
        is_settled(&first, row, one[row])
            && if waits { keeps(&first, row) } else { is_settled(&second, row, two[row]) }
            && (waits || !is_contested(&second, row) || keeps(&second, row))
    };
    let mut wrong = (0..ROWS).filter(|row| !is_right(*row)).count();

    let waiting: Vec<usize> = (0..ROWS).filter(|row| is_contested(&first, *row)).collect();
    let samples: Vec<SampleRow> =
        waiting.iter().map(|row| SampleRow { log_probabilities: true, ..first.samples[*row] }).collect();
    let amateur: Vec<f32> = waiting.iter().flat_map(|row| first.amateur(*row)).copied().collect();
    let mut logits = device.tensor(waiting.len(), first.amateur.0, Precision::Single)?;
    device.upload(&amateur, &mut logits);
    device.begin(&mut step, &decoding(waiting.len()), &samples);
    device.contrast_sample(&mut step, 0..waiting.len(), &deferred_logits, Some(&logits));
    device.finish(&mut step);
    for (row, drawn) in waiting.into_iter().zip(device.collect(&mut step)?) {
        let is_right = match (drawn, reference(&first, row)) {
            (Ok(found), Ok(expected)) => agrees(&found, &expected, &first.samples[row]),
            (found, expected) => found.err() == expected.err(),
        };
        wrong += usize::from(!is_right);
    }
    let case = format!("{ROWS} rows of {len} tokens, a step in vain, and what is kept");
    Ok(Check::counted("settle", case, wrong))
}

fn settle<D: Device>(
    on: &Comparison<'_, D>,
    step: &mut D::Step,
    rows: &Rows,
    fed: Vec<PendingToken>,
    deferred_logits: &mut D::Tensor,
) -> Result<()> {
    let (device, (width, logits)) = (on.device, &rows.expert);
    let mut expert = device.tensor(ROWS, *width, Precision::Single)?;
    device.upload(&on.given(logits), &mut expert);
    device.begin(step, &Batch { pending_tokens: fed, ..decoding(ROWS) }, &rows.samples);
    device.settle(step, 0..ROWS, &expert, deferred_logits);
    device.finish(step);
    Ok(())
}

fn reference(rows: &Rows, row: usize) -> std::result::Result<Distribution, RowFault> {
    let contrast = &rows.samples[row].contrast;
    Distribution::new(contrast, &rows.vocabulary, rows.expert(row), Some(rows.amateur(row)))
}

/// Whether a row must wait for the amateur.
fn is_contested(rows: &Rows, row: usize) -> bool {
    let SampleRow { deferred_row, log_probabilities, .. } = rows.samples[row];
    deferred_row.is_some()
        && reference(rows, row).is_ok_and(|expected| log_probabilities || expected.tokens.len() > 1)
}

/// Whether a result is what the expert alone can say.
fn is_settled(rows: &Rows, row: usize, found: Option<RowResult>) -> bool {
    match (found, reference(rows, row)) {
        (None, _) => is_contested(rows, row),
        (Some(Err(found)), Err(expected)) => found == expected,
        (Some(Ok(Sampled { token, num_candidates, .. })), Ok(expected)) => {
            let is_plausible = expected.tokens.binary_search(&token).is_ok();
            !is_contested(rows, row) && is_plausible && num_candidates as usize == expected.tokens.len()
        }
        _ => false,
    }
}
