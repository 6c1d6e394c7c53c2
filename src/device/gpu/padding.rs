//! Padded sizes of steps. Few sizes occur, so recorded work can be replayed.

/// The padded size: 1, 2, 4, multiples of 8 up to 64, then four sizes between powers of two.
pub fn bucket(size: usize) -> usize {
    let power = size.next_power_of_two();
    if size <= 4 { power } else { size.next_multiple_of((power / 8).max(8)) }
}

/// The padded sizes up to `most`.
pub fn buckets(most: usize) -> Vec<usize> {
    let next = |size: &usize| Some(bucket(size + 1).min(most)).filter(|next| next > size);
    std::iter::successors(Some(1).filter(|_| most > 0), next).collect()
}
