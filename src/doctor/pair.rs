//! Checks a pair end to end: compares the embedded pair's responses on the device and on the CPU, which sums in f64.

use super::comparison::{Check, relative_error};
use crate::contrast::Contrast;
use crate::device::cpu::{Cpu, Isa};
use crate::device::inspect::Inspect;
use crate::device::{Dtype, Format, Role};
use crate::embedded;
use crate::engine::{Completion, Engine, EngineConfig, Request};
use crate::error::Result;

const INSTRUCTIONS: [&str; 6] = [
    "What is 3 plus 4?",
    "Write the word river in capital letters.",
    "Name the color of the sky.",
    "Count from 2 to 6.",
    "Which is larger, 12 or 7?",
    "Repeat the word stone three times.",
];
const MAX_TOKENS: usize = 24;
const BETA: f64 = 0.5;
/// The share of the tokens that must agree with the CPU where rounding may decide between tokens.
const AGREEMENT: f64 = 0.5;

/// Checks greedy contrastive responses. In f32, all tokens and scores must agree. In other formats rounding may
/// decide between two tokens, so the scores must agree up to the first token that differs, and enough tokens must
/// come before it.
///
/// With `has_fault`, the device gets another beta, so its scores are wrong.
///
/// # Errors
/// If the device fails.
pub fn checks<D: Inspect>(open: &dyn Fn() -> Result<D>, has_fault: bool) -> Result<Vec<Check>> {
    let device = open()?;
    let formats = [Role::Expert, Role::Amateur].map(|role| device.role(role).info().format);
    let exact = formats == [Format::of(Dtype::F32); 2];
    let has_e4m3 = formats.iter().any(|format| [format.weights, format.cache].contains(&Dtype::F8E4m3));
    let has_bf16 = device.info().dtype == Dtype::Bf16 || formats[0].weights == Dtype::Bf16;
    let bound = match (has_bf16, has_e4m3) {
        (false, false) => 1e-4,
        (false, true) | (_, false) => 5e-2,
        // The last bit of a bf16 number may decide between two neighbours in e4m3, which are an eighth apart.
        (_, true) => 1e-1,
    };
    let beta = if has_fault { 2.0 * BETA } else { BETA };
    let found = responses(device, beta)?;
    let expected = responses(Cpu::limited(None, Isa::Reference)?.with_formats(formats), BETA)?;
    let case = |at: usize| format!("greedy response to \"{}\"", INSTRUCTIONS[at]);
    let pairs = found.iter().zip(&expected).enumerate();
    Ok(pairs
        .map(|(at, (found, expected))| {
            let same = found.tokens.iter().zip(&expected.tokens).take_while(|(a, b)| a == b).count();
            let enough =
                if exact { expected.tokens.len() as f64 } else { expected.tokens.len() as f64 * AGREEMENT };
            let error = relative_error(&found.scores[..same], &expected.scores[..same]);
            let agrees = same as f64 >= enough && (!exact || found.tokens.len() == same);
            Check::measured("pair", case(at), if agrees { error } else { f64::INFINITY }, bound)
        })
        .collect())
}

/// The responses in the order of the instructions.
fn responses<D: Inspect>(device: D, beta: f64) -> Result<Vec<Completion>> {
    let (expert, amateur) = (embedded::expert(), embedded::amateur());
    let config = EngineConfig { max_num_seqs: 4, kv_cache_memory: Some(8 << 20), ..EngineConfig::default() };
    let mut engine = Engine::load(device, &expert, Some(&amateur), &config)?;
    for (at, instruction) in INSTRUCTIONS.iter().enumerate() {
        engine.submit(Request {
            max_tokens: MAX_TOKENS,
            contrast: Contrast { alpha: 0.1, beta, temperature: 0.0, ..Contrast::default() },
            ..Request::new(at.to_string(), *instruction)
        })?;
    }
    let mut completions = engine.by_ref().collect::<Result<Vec<_>>>()?;
    completions.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(completions)
}
