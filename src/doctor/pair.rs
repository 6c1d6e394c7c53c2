//! Checks a pair end to end: compares the embedded pair's responses on the device and on the CPU, which sums in f64.

use super::comparison::{Check, relative_error};
use crate::contrast::Contrast;
use crate::device::cpu::{Cpu, Isa};
use crate::device::inspect::Inspect;
use crate::device::{Dtype, Format, Role};
use crate::embedded;
use crate::engine::{Completion, Engine, EngineConfig, Finish, Prompt, Request};
use crate::error::Result;
use crate::ids::TokenId;
use crate::text::Conversation;

const INSTRUCTIONS: [&str; 6] = [
    "What is 3 plus 4?",
    "Write the word river in capital letters.",
    "Name the color of the sky.",
    "Count from 2 to 6.",
    "Which is larger, 12 or 7?",
    "Repeat the word stone three times.",
];
const MAX_TOKENS: usize = 24;
const ALPHA: f64 = 0.1;
const BETA: f64 = 0.5;
/// The largest relative error of scores where the device and the CPU compute in f32.
const BOUND_IN_F32: f64 = 1e-4;
/// The relative distance of these scores from f32 when transformers computes in bf16: `tests/golden/make_bf16.py`.
const DISTANCE_OF_BF16: f64 = 0.0186;

/// Checks greedy contrastive responses. The CPU reads the device's responses and scores the best token at each of their
/// positions. Rounding may decide between two tokens, but then both have nearly the same score, so the scores must
/// agree everywhere. In f32 all tokens must be the same too.
///
/// With `has_fault`, the device gets another beta, so its scores are wrong.
///
/// # Errors
/// If the device fails.
pub fn checks<D: Inspect>(open: &dyn Fn() -> Result<D>, has_fault: bool) -> Result<Vec<Check>> {
    let device = open()?;
    let formats = [Role::Expert, Role::Amateur].map(|role| device.role(role).info().format);
    let texts = responses(device, if has_fault { 2.0 * BETA } else { BETA })?;
    let found: Vec<f32> = texts.iter().flat_map(|text| text.scores.clone()).collect();
    let (expected_tokens, expected) = best_tokens(formats, &texts)?;
    let is_exact = formats == [Format::of(Dtype::F32); 2];
    let bound = if is_exact { BOUND_IN_F32 } else { bound_of_rounding(formats, &texts, &expected)? };
    let case = format!("scores of {} greedy responses, {} tokens", texts.len(), found.len());
    let mut checks = vec![Check::measured("pair", case, relative_error(&found, &expected), bound)];
    if is_exact {
        let tokens = texts.iter().flat_map(|text| &text.response);
        let differences = tokens.zip(&expected_tokens).filter(|(token, best)| token != best).count();
        checks.push(Check::counted("pair", "tokens of the same responses", differences));
    }
    Ok(checks)
}

/// How far apart the scores of two devices may be that round correctly: each may be as far from exact arithmetic as
/// rounding to bf16 carries transformers. Numbers on either side of a boundary of e4m3 move apart, so a cache in e4m3 adds
/// as much as it changes the CPU's scores. Weights are rounded before they are multiplied and are the same on both.
fn bound_of_rounding(formats: [Format; 2], texts: &[Text], expected: &[f32]) -> Result<f64> {
    let mut bound = 2.0 * DISTANCE_OF_BF16;
    if formats.iter().any(|format| format.cache == Dtype::F8E4m3) {
        let (_, unrounded) =
            best_tokens(formats.map(|format| Format { cache: Dtype::F32, ..format }), texts)?;
        bound += relative_error(expected, &unrounded);
    }
    Ok(bound)
}

/// A prompt, the device's response and its scores.
struct Text {
    prompt: Vec<TokenId>,
    response: Vec<TokenId>,
    scores: Vec<f32>,
}

/// The device's responses in the order of the instructions.
fn responses<D: Inspect>(device: D, beta: f64) -> Result<Vec<Text>> {
    let mut engine = load(device)?;
    let ids = |instruction: &&str| engine.chat_ids(&Conversation::of_instruction(*instruction));
    let prompts = INSTRUCTIONS.iter().map(ids).collect::<Result<Vec<_>>>()?;
    let completions = complete(&mut engine, &prompts, MAX_TOKENS, beta)?;
    let text = |(prompt, Completion { tokens, scores, .. })| Text { prompt, response: tokens, scores };
    Ok(prompts.into_iter().zip(completions).map(text).collect())
}

/// The best token at each position of the responses, and its score, on the CPU in the formats.
fn best_tokens(formats: [Format; 2], texts: &[Text]) -> Result<(Vec<TokenId>, Vec<f32>)> {
    let cpu = Cpu::limited(None, Isa::Reference)?.with_formats(formats);
    let prefixes: Vec<Vec<TokenId>> = texts
        .iter()
        .flat_map(|Text { prompt, response, .. }| {
            (0..response.len()).map(|position| [prompt, &response[..position]].concat())
        })
        .collect();
    let completions = complete(&mut load(cpu)?, &prefixes, 1, BETA)?;
    Ok(completions.iter().map(|best| (best.tokens[0], best.scores[0])).unzip())
}

fn load<D: Inspect>(device: D) -> Result<Engine<D>> {
    let config = EngineConfig { max_num_seqs: 4, kv_cache_memory: Some(8 << 20), ..EngineConfig::default() };
    Engine::load(device, &embedded::expert(), Some(&embedded::amateur()), &config)
}

/// The greedy completions of the prompts, in their order.
fn complete<D: Inspect>(
    engine: &mut Engine<D>,
    prompts: &[Vec<TokenId>],
    max_tokens: usize,
    beta: f64,
) -> Result<Vec<Completion>> {
    for (tag, prompt) in prompts.iter().enumerate() {
        engine.submit(Request {
            prompt: Prompt::Tokens(prompt.clone()),
            tag,
            max_tokens,
            contrast: Contrast { alpha: ALPHA, beta, temperature: 0.0, ..Contrast::default() },
            ..Request::new(tag.to_string(), "")
        })?;
    }
    let mut completions = engine.collect::<Result<Vec<_>>>()?;
    completions.sort_by_key(|completion| completion.tag);
    for completion in &mut completions {
        if let Finish::Failed(error) = std::mem::replace(&mut completion.finish, Finish::Stop) {
            return Err(error);
        }
    }
    Ok(completions)
}
