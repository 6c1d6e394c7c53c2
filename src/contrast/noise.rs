//! The noise of token draws: Gumbel noise from a counter-based generator.

use sha2::{Digest, Sha256};

use crate::ids::TokenId;

/// The noise of one sample of one record. It depends on nothing else, so a record's text does not either.
///
/// Philox4x32-10 (Salmon et al. 2011) with the seed as key and `(token / 4, position, record)` as counter. A token
/// uses word `token % 4` of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    key: [u32; 2],
    record: [u32; 2],
}

impl Noise {
    /// The noise of sample number `sample` of the record called `record_id`.
    pub fn new(seed: u64, record_id: &str, sample: u32) -> Self {
        let hash = Sha256::new().chain_update(record_id).chain_update(sample.to_le_bytes()).finalize();
        let word = |at: usize| u32::from_le_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]);
        Self { key: [seed as u32, (seed >> 32) as u32], record: [word(0), word(4)] }
    }

    /// The key, and the two words of the counter that represent the record.
    pub fn words(&self) -> [[u32; 2]; 2] {
        [self.key, self.record]
    }

    /// The 32 random bits of `token` as a candidate for `position` (counted from the start of the sequence).
    pub fn bits(&self, position: u32, token: TokenId) -> u32 {
        philox4x32_10([token.0 / 4, position, self.record[0], self.record[1]], self.key)[token.index() % 4]
    }

    /// The bits of the 64 tokens from `64 * index` on; those of token `t` are at `[t % 4][t / 4 % 16]`. Sixteen
    /// blocks of Philox are computed side by side, for vector registers.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "to be compiled for its caller's instruction set")]
    pub fn bits_of_64(&self, position: u32, index: u32) -> [[u32; 16]; 4] {
        let first = std::array::from_fn(|lane| 16 * index + lane as u32);
        let mut counter = [first, [position; 16], [self.record[0]; 16], [self.record[1]; 16]];
        let mut key = self.key;
        for _ in 0..10 {
            let mut next = [[0; 16]; 4];
            for lane in 0..16 {
                let first = u64::from(PHILOX_MULTIPLIERS[0]) * u64::from(counter[0][lane]);
                let second = u64::from(PHILOX_MULTIPLIERS[1]) * u64::from(counter[2][lane]);
                next[0][lane] = (second >> 32) as u32 ^ counter[1][lane] ^ key[0];
                next[1][lane] = second as u32;
                next[2][lane] = (first >> 32) as u32 ^ counter[3][lane] ^ key[1];
                next[3][lane] = first as u32;
            }
            counter = next;
            key = [key[0].wrapping_add(PHILOX_KEY_STEP[0]), key[1].wrapping_add(PHILOX_KEY_STEP[1])];
        }
        counter
    }

    /// A draw from the standard Gumbel distribution, `-ln(-ln u)` with `u = (bits + 1/2) / 2^32`; at most
    /// [`GUMBEL_MAX`].
    pub fn gumbel(&self, position: u32, token: TokenId) -> f64 {
        gumbel_of_bits(self.bits(position, token))
    }
}

/// The largest value of [`Noise::gumbel`], `-ln(-ln(1 - 2^-33))`, rounded up.
pub const GUMBEL_MAX: f64 = 22.874;

fn gumbel_of_bits(bits: u32) -> f64 {
    let uniform = (f64::from(bits) + 0.5) / 4_294_967_296.0;
    -(-uniform.ln()).ln()
}

const PHILOX_MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const PHILOX_KEY_STEP: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One block of Philox4x32-10.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product = |multiplier: u32, word: u32| u64::from(multiplier) * u64::from(word);
        let first = product(PHILOX_MULTIPLIERS[0], counter[0]);
        let second = product(PHILOX_MULTIPLIERS[1], counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(PHILOX_KEY_STEP[0]), key[1].wrapping_add(PHILOX_KEY_STEP[1])];
    }
    counter
}
