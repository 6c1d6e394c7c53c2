//! Padded sizes of steps. Few sizes occur, so recorded work can be replayed.

/// Positions of a context that one block of the decode kernel reads.
pub const SPLIT: usize = 256;

/// The padded number of rows: 1, 2, 4, multiples of 8 up to 64, then four sizes between powers of two.
pub fn bucket(rows: usize) -> usize {
    if rows <= 4 { rows.next_power_of_two() } else { quarter_octave(rows).next_multiple_of(8) }
}

/// The padded row counts up to `most`.
pub fn buckets(most: usize) -> Vec<usize> {
    let next = |size: &usize| Some(bucket(size + 1).min(most)).filter(|next| next > size);
    std::iter::successors(Some(1).filter(|_| most > 0), next).collect()
}

/// The padded length of a step's longest context: 1 to 8 whole splits, then four numbers of splits between powers of
/// two. Each split that is too many is an empty block for every row and head.
pub fn context_bucket(positions: usize) -> usize {
    quarter_octave(positions.div_ceil(SPLIT).max(1)) * SPLIT
}

/// The next of four sizes between powers of two; sizes up to 8 as they are.
fn quarter_octave(size: usize) -> usize {
    size.next_multiple_of((size.next_power_of_two() / 8).max(1))
}
