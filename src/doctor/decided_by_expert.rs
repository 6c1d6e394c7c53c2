//! Checks [`Device::sample`](crate::device::Device::sample) without the amateur's logits, and the later sampling with
//! them, against the f64 reference of `contrast/`. The expert must decide the right rows. The device must keep the
//! expert's logits of the rows that await the amateur, also during a second step that was prepared before the first
//! step's results were known. The tokens drawn from the kept logits must be right.
//!
//! The checks count wrong rows.

use super::comparison::{Check, Comparison};
use super::sample::{Rows, agrees, decisions, decoding, step};
use crate::contrast::{Distribution, RowFault, Sampled};
use crate::device::inspect::Inspect;
use crate::device::{AmateurLogits, Batch, ExpertLogits, PendingToken, Precision, RowResult, SampleRow};
use crate::error::Result;

const ROWS: usize = 48;

/// All checks of rows that the expert decides.
pub fn checks<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    // A tile of the kernel has 512 tokens, and eight tiles fill a block.
    [40, 513, 5000].map(|len| check(on, len)).into_iter().collect()
}

/// Runs a step, then a second step that takes its tokens from the first and is prepared before the first step's
/// results are known, and at last the amateur's step for the rows that the first step left undecided.
fn check<D: Inspect>(on: &mut Comparison<'_, D>, len: usize) -> Result<Check> {
    let mut first = Rows::random(&mut on.numbers, len, ROWS);
    let mut second =
        Rows { vocabulary: first.vocabulary.clone(), ..Rows::random(&mut on.numbers, len, ROWS) };
    for (index, (first, second)) in first.samples.iter_mut().zip(&mut second.samples).enumerate() {
        second.contrast = first.contrast;
        for row in [first, second] {
            row.log_probabilities = on.numbers.below(4) == 0;
            // A slot that is not the row's own index.
            row.deferred_row = row.contrast.needs_amateur().then_some((ROWS - 1 - index) as u32);
        }
    }
    let device = on.device;
    let mut step = step(device, ROWS, &first.vocabulary)?;
    let width = len + 3;
    let mut deferred_logits = device.tensor(ROWS, width, Precision::Single)?;
    device.upload(&vec![f32::NAN; ROWS * width], &mut deferred_logits);

    decide(on, &mut step, &first, Vec::new(), &mut deferred_logits)?;
    let fed = (0..ROWS as u32).map(|row| PendingToken { index: row, source_output: row }).collect();
    decide(on, &mut step, &second, fed, &mut deferred_logits)?;
    let (one, two) = (device.collect(&mut step)?, device.collect(&mut step)?);
    let left = device.download(ROWS, &deferred_logits);
    let keeps = |rows: &Rows, row: usize| {
        let slot = ROWS - 1 - row;
        let found = &left[slot * width..][..len];
        found.iter().zip(rows.expert(row)).all(|(a, b)| a.to_bits() == b.to_bits())
    };
    let is_right = |row: usize| {
        let waits = awaits_amateur(&first, row);
        is_decided(&first, row, one[row])
            && if waits { keeps(&first, row) } else { is_decided(&second, row, two[row]) }
            && (waits || !awaits_amateur(&second, row) || keeps(&second, row))
    };
    let mut wrong = (0..ROWS).filter(|row| !is_right(*row)).count();

    let waiting: Vec<usize> = (0..ROWS).filter(|row| awaits_amateur(&first, *row)).collect();
    let samples: Vec<SampleRow> =
        waiting.iter().map(|row| SampleRow { log_probabilities: true, ..first.samples[*row] }).collect();
    let amateur: Vec<f32> = waiting.iter().flat_map(|row| first.amateur(*row)).copied().collect();
    let mut logits = device.tensor(waiting.len(), first.amateur.0, Precision::Single)?;
    device.upload(&amateur, &mut logits);
    device.prepare(&mut step, &decoding(waiting.len()), &samples);
    let (expert, amateur) = (ExpertLogits::Deferred(&deferred_logits), AmateurLogits::Computed(&logits));
    device.sample(&mut step, 0..waiting.len(), expert, amateur);
    device.submit(&mut step);
    for (row, drawn) in waiting.into_iter().zip(decisions(device.collect(&mut step)?)?) {
        let is_right = match (drawn, reference(&first, row)) {
            (Ok(found), Ok(expected)) => agrees(&found, &expected, &first.samples[row]),
            (found, expected) => found.err() == expected.err(),
        };
        wrong += usize::from(!is_right);
    }
    let case = format!("{ROWS} rows of {len} tokens, a step in vain, and what is kept");
    Ok(Check::counted("sample", case, wrong))
}

fn decide<D: Inspect>(
    on: &Comparison<'_, D>,
    step: &mut D::Step,
    rows: &Rows,
    fed: Vec<PendingToken>,
    kept: &mut D::Tensor,
) -> Result<()> {
    let (device, (width, logits)) = (on.device, &rows.expert);
    let mut expert = device.tensor(ROWS, *width, Precision::Single)?;
    device.upload(&on.given(logits), &mut expert);
    device.prepare(step, &Batch { pending_tokens: fed, ..decoding(ROWS) }, &rows.samples);
    device.sample(step, 0..ROWS, ExpertLogits::Computed(&expert), AmateurLogits::Later { kept });
    device.submit(step);
    Ok(())
}

fn reference(rows: &Rows, row: usize) -> std::result::Result<Distribution, RowFault> {
    let contrast = &rows.samples[row].contrast;
    Distribution::new(contrast, &rows.vocabulary, rows.expert(row), Some(rows.amateur(row)))
}

/// Whether a row must wait for the amateur.
fn awaits_amateur(rows: &Rows, row: usize) -> bool {
    let SampleRow { deferred_row, log_probabilities, .. } = rows.samples[row];
    deferred_row.is_some()
        && reference(rows, row).is_ok_and(|expected| log_probabilities || expected.tokens.len() > 1)
}

/// Whether `found` is a correct result given only the expert's logits.
fn is_decided(rows: &Rows, row: usize, found: RowResult) -> bool {
    match (found, reference(rows, row)) {
        (RowResult::AwaitsAmateur, _) => awaits_amateur(rows, row),
        (RowResult::Fault(found), Err(expected)) => found == expected,
        (RowResult::Sampled(Sampled { token, num_candidates, .. }), Ok(expected)) => {
            let is_plausible = expected.tokens.binary_search(&token).is_ok();
            !awaits_amateur(rows, row) && is_plausible && num_candidates as usize == expected.tokens.len()
        }
        _ => false,
    }
}
