//! Named teacher pairs: two models and the settings that suit them.

use serde_json::{Map, Value, json};

/// A teacher pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairPreset {
    /// The name that `--pair` accepts.
    pub name: &'static str,
    /// Repository of the post-trained model.
    pub expert: &'static str,
    /// Repository of the model that the expert was made from.
    pub amateur: &'static str,
    /// Name of the built-in shape of both models.
    pub shape: &'static str,
    /// Length limit of a response, in tokens.
    pub max_tokens: u32,
    /// Value of the chat template's `enable_thinking`, if the template has this variable.
    pub thinking: Option<bool>,
}

/// Default value of `max_tokens`.
pub const MAX_TOKENS: u32 = 4096;

const fn preset(name: &'static str, expert: &'static str, amateur: &'static str) -> PairPreset {
    PairPreset { name, expert, amateur, shape: name, max_tokens: MAX_TOKENS, thinking: None }
}

/// A pair of Qwen3's hybrid models. They think unless they are told not to.
const fn qwen3(
    name: &'static str,
    expert: &'static str,
    amateur: &'static str,
    max_tokens: u32,
) -> PairPreset {
    PairPreset { max_tokens, thinking: Some(false), ..preset(name, expert, amateur) }
}

/// The pairs of the method's paper (qwen3-8b, qwen3-30b-a3b, gemma-3-27b, llama-3.1-8b, llama-3.2-1b and -3b,
/// olmo-3-7b and -sft) with the paper's settings, and their siblings. Settings that a preset does not list keep the
/// program's defaults.
pub const PAIRS: &[PairPreset] = &[
    qwen3("qwen3-0.6b", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", 2048),
    qwen3("qwen3-1.7b", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B-Base", 2048),
    qwen3("qwen3-4b", "Qwen/Qwen3-4B", "Qwen/Qwen3-4B-Base", 2048),
    qwen3("qwen3-8b", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base", 2048),
    qwen3("qwen3-14b", "Qwen/Qwen3-14B", "Qwen/Qwen3-14B-Base", 2048),
    qwen3("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-30B-A3B-Base", MAX_TOKENS),
    preset("gemma-3-270m", "google/gemma-3-270m-it", "google/gemma-3-270m"),
    preset("gemma-3-1b", "google/gemma-3-1b-it", "google/gemma-3-1b-pt"),
    preset("gemma-3-4b", "google/gemma-3-4b-it", "google/gemma-3-4b-pt"),
    preset("gemma-3-12b", "google/gemma-3-12b-it", "google/gemma-3-12b-pt"),
    preset("gemma-3-27b", "google/gemma-3-27b-it", "google/gemma-3-27b-pt"),
    preset("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
    preset("llama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-1B"),
    preset("llama-3.2-3b", "meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.2-3B"),
    preset("olmo-3-7b", "allenai/Olmo-3-7B-Instruct", "allenai/Olmo-3-1025-7B"),
    PairPreset {
        shape: "olmo-3-7b",
        ..preset("olmo-3-7b-sft", "allenai/Olmo-3-7B-Instruct-SFT", "allenai/Olmo-3-1025-7B")
    },
    preset("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M"),
    preset("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct", "HuggingFaceTB/SmolLM2-360M"),
    preset("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "HuggingFaceTB/SmolLM2-1.7B"),
];

/// The pair called `name`.
pub fn find(name: &str) -> Option<&'static PairPreset> {
    PAIRS.iter().find(|pair| pair.name == name)
}

impl PairPreset {
    /// The variables that its chat template gets.
    pub fn template_variables(&self) -> Map<String, Value> {
        self.thinking.map(|thinking| ("enable_thinking".to_owned(), json!(thinking))).into_iter().collect()
    }
}
