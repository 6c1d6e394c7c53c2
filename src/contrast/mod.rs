//! The method (CoDIT, arXiv 2604.13538): its parameters, its noise, and the f64 reference that every device is
//! tested against.
//!
//! With logits `z_e`, `z_a` of expert and amateur, `l = log_softmax(z)`:
//!
//! ```text
//! candidates = { v : l_e(v) >= ln(alpha) + max l_e }   the plausible set
//! s(v)       = l_e(v) - beta * l_a(v)                  for v in candidates, -inf elsewhere
//! p          = softmax(s / temperature), then top-k, top-p, min-p
//! next       = argmax ln p(v) + gumbel(v)              a draw from p; at temperature 0 argmax s, lowest id on a tie
//! ```
//!
//! The paper leaves three cases open. A token that the expert masks (`-inf`) is never a candidate. A candidate that the
//! amateur masks counts as the least likely of the other candidates, so that no `-inf - (-inf)` can arise. A NaN or
//! `+inf` anywhere in a row that is read is a fault of that row ([`RowFault`]), and so is a score that is none because
//! `beta` is too large.

mod noise;
mod params;
mod reference;
mod sampled;
mod vocabulary;

pub use noise::{GUMBEL_MAX, Noise, philox4x32_10};
pub use params::Contrast;
pub use reference::Distribution;
pub use sampled::{LogProbabilities, RowFault, Sampled};
pub use vocabulary::Vocabulary;
