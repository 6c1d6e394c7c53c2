//! The rule by which CoDIT's authors detect a response that repeats itself.

/// A shorter text does not count as repetitive.
const SHORTEST: usize = 100;

/// `(n, share)`: a text is repetitive if its most frequent n-gram makes up this share of its characters.
const SHARES: [(usize, f64); 3] = [(2, 0.16), (3, 0.18), (4, 0.20)];

/// A text is repetitive if it holds one n-gram of this length this many times.
const LONG_GRAM: (usize, usize) = (100, 10);

/// Whether `text` repeats itself: its most frequent 2-gram, 3-gram or 4-gram makes up at least 16, 18 or 20 % of it, or
/// it holds a 100-gram at least ten times. The n-grams are of Unicode characters. A text of fewer than 100 characters
/// is not repetitive.
pub fn is_repetitive(text: &str) -> bool {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() < SHORTEST {
        return false;
    }
    let length = characters.len() as f64;
    let is_frequent =
        |(n, share): (usize, f64)| (n * most_frequent(short_grams(&characters, n))) as f64 >= share * length;
    let (n, times) = LONG_GRAM;
    SHARES.into_iter().any(is_frequent) || most_frequent(long_grams(&characters, n)) >= times
}

/// How often the most frequent key occurs.
fn most_frequent(mut keys: Vec<u128>) -> usize {
    keys.sort_unstable();
    keys.chunk_by(|one, other| one == other).map(<[u128]>::len).max().unwrap_or(0)
}

/// The n-grams of at most 6 characters, each packed into a number.
fn short_grams(characters: &[char], n: usize) -> Vec<u128> {
    const BITS: usize = 21;
    let pack = |gram: &[char]| gram.iter().fold(0, |key, c| key << BITS | u128::from(u32::from(*c)));
    characters.windows(n).map(pack).collect()
}

/// A hash of each n-gram. Each follows from the one before, so that the length of an n-gram costs nothing.
fn long_grams(characters: &[char], n: usize) -> Vec<u128> {
    // An odd number without a pattern. Two of a million n-grams share a hash with a probability under 1e-20.
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let highest = (0..n).fold(1, |power: u128, _| power.wrapping_mul(FACTOR));
    let mut hash = 0_u128;
    let mut hashes = Vec::with_capacity(characters.len());
    for (index, character) in characters.iter().enumerate() {
        hash = hash.wrapping_mul(FACTOR).wrapping_add(u128::from(u32::from(*character)));
        if let Some(left) = index.checked_sub(n) {
            let left = u128::from(u32::from(characters[left]));
            hash = hash.wrapping_sub(left.wrapping_mul(highest));
        }
        if index + 1 >= n {
            hashes.push(hash);
        }
    }
    hashes
}
