//! Sizes of steps: few sizes occur, so that recorded work can be replayed.

/// Sizes that are padded to one, or treated as one: 1, 2, 4, multiples of 8 up to 64, and four between powers of two.
pub fn bucket(size: usize) -> usize {
    let power = size.next_power_of_two();
    if size <= 4 { power } else { size.next_multiple_of((power / 8).max(8)) }
}

/// The sizes that sizes up to `most` are padded to where there is room for `most`.
pub fn buckets(most: usize) -> Vec<usize> {
    let next = |size: &usize| Some(bucket(size + 1).min(most)).filter(|next| next > size);
    std::iter::successors(Some(1).filter(|_| most > 0), next).collect()
}
