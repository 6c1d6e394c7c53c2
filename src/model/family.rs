//! What a model family is beyond its config.json, as data, and the defaults of transformers for the fields that a
//! config.json may omit.

use serde_json::{Value, json};

use super::json_reader::JsonReader;
use crate::device::NormScope;
use crate::error::Result;

/// The properties of a model family that its config.json does not state.
pub(super) struct Family {
    /// The names of whole models in the field `architectures` of config.json.
    pub architectures: &'static [&'static str],
    /// The name there of a decoder that was stored without its LM head.
    pub decoder: &'static str,
    /// The fields that config.json may omit, with the defaults of transformers.
    pub defaults: fn() -> Value,
    /// The width of a head, where config.json gives none; by default the heads share the residual stream's width.
    pub head_dim: Option<usize>,
    /// The base of the rotation, where config.json gives none.
    pub thetas: Thetas,
    pub norm_placement: NormPlacement,
    pub unit_offset: bool,
    pub head_norms: Option<NormScope>,
    /// Which of attention's projections have biases.
    pub attention_biases: AttentionBiases,
    /// Whether the embedding is multiplied by the square root of its width.
    pub scales_embedding: bool,
    pub windows: Windows,
    /// Whether layers may be mixtures of experts.
    pub has_mixtures: bool,
}

/// The places of the norms around attention and the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before the block: its input is normalized.
    Before,
    /// After the block: its output is normalized before it is added to the residual.
    After,
    /// Before and after the block.
    Both,
}

/// The base of the rotation of layers that see all positions, and of layers with a window.
#[derive(Clone, Copy)]
pub(super) struct Thetas {
    pub full: f64,
    pub sliding: f64,
}

/// Which of attention's projections have biases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AttentionBiases {
    /// All or none, as `attention_bias` says.
    Configured,
    /// q, k and v, and never the output; transformers reads no field.
    QueryKeyValue,
}

/// Which layers have a sliding window.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    Never,
    /// No layer unless `use_sliding_window` is set; then the layers that `layer_types` names, or all from
    /// `max_window_layers` on.
    Optional,
    /// No layer unless `use_sliding_window` is set; then all.
    OptionalEverywhere,
    /// The layers that `layer_types` names, or all but every `sliding_window_pattern`-th. They have their own rotation.
    Alternating,
    /// The layers that `layer_types` names, or all but every fourth. They have their own rotation.
    AllButEveryFourth,
}

impl Windows {
    /// Whether layers with a window have their own rotation.
    pub fn have_rotation(self) -> bool {
        matches!(self, Self::Alternating | Self::AllButEveryFourth)
    }
}

/// The architecture that transformers takes for a type where the file names none.
const MODEL_TYPES: [(&str, &str); 8] = [
    ("llama", "LlamaForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("qwen3_moe", "Qwen3MoeForCausalLM"),
    ("gemma3_text", "Gemma3ForCausalLM"),
    ("gemma3", "Gemma3ForConditionalGeneration"),
    ("olmo2", "Olmo2ForCausalLM"),
    ("olmo3", "Olmo3ForCausalLM"),
];

const LLAMA: Family = Family {
    architectures: &["LlamaForCausalLM"],
    decoder: "LlamaModel",
    defaults: || {
        json!({
            "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6
        })
    },
    head_dim: None,
    thetas: Thetas { full: 1e4, sliding: 1e4 },
    norm_placement: NormPlacement::Before,
    unit_offset: false,
    head_norms: None,
    attention_biases: AttentionBiases::Configured,
    scales_embedding: false,
    windows: Windows::Never,
    has_mixtures: false,
};

const FAMILIES: [Family; 7] = [
    LLAMA,
    Family {
        architectures: &["Qwen2ForCausalLM"],
        decoder: "Qwen2Model",
        defaults: || {
            json!({
                "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
                "rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28
            })
        },
        attention_biases: AttentionBiases::QueryKeyValue,
        windows: Windows::Optional,
        ..LLAMA
    },
    Family {
        architectures: &["Qwen3ForCausalLM"],
        decoder: "Qwen3Model",
        defaults: || {
            json!({
                "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 32,
                "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "sliding_window": 4096,
                "max_window_layers": 28
            })
        },
        head_dim: Some(128),
        head_norms: Some(NormScope::Head),
        windows: Windows::Optional,
        ..LLAMA
    },
    Family {
        architectures: &["Qwen3MoeForCausalLM"],
        decoder: "Qwen3MoeModel",
        defaults: || {
            json!({
                "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
                "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 32_768,
                "rms_norm_eps": 1e-6, "sliding_window": 4096, "decoder_sparse_step": 1,
                "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8
            })
        },
        head_norms: Some(NormScope::Head),
        windows: Windows::OptionalEverywhere,
        has_mixtures: true,
        ..LLAMA
    },
    Family {
        architectures: &["Gemma3ForCausalLM", "Gemma3TextModel", "Gemma3ForConditionalGeneration"],
        decoder: "Gemma3Model",
        defaults: || {
            json!({
                "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
                "num_attention_heads": 8, "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
                "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6,
                "sliding_window": 4096, "sliding_window_pattern": 6, "tie_word_embeddings": true
            })
        },
        head_dim: Some(256),
        thetas: Thetas { full: 1e6, sliding: 1e4 },
        norm_placement: NormPlacement::Both,
        unit_offset: true,
        head_norms: Some(NormScope::Head),
        scales_embedding: true,
        windows: Windows::Alternating,
        ..LLAMA
    },
    Family {
        architectures: &["Olmo2ForCausalLM"],
        decoder: "Olmo2Model",
        defaults: || {
            json!({
                "vocab_size": 50_304, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
                "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5
            })
        },
        norm_placement: NormPlacement::After,
        head_norms: Some(NormScope::Projection),
        ..LLAMA
    },
    Family {
        architectures: &["Olmo3ForCausalLM"],
        decoder: "Olmo3Model",
        defaults: || {
            json!({
                "vocab_size": 50_304, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
                "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
                "sliding_window": 4096
            })
        },
        thetas: Thetas { full: 5e5, sliding: 5e5 },
        norm_placement: NormPlacement::After,
        head_norms: Some(NormScope::Projection),
        windows: Windows::AllButEveryFourth,
        ..LLAMA
    },
];

impl Family {
    /// The family that `architectures` names.
    pub fn read(config: &JsonReader) -> Result<&'static Self> {
        let mut names = config.texts("architectures")?.unwrap_or_default();
        let kind = config.text("model_type")?;
        if let (true, Some((_, name))) =
            (names.is_empty(), MODEL_TYPES.iter().find(|(known, _)| Some(*known) == kind))
        {
            names.push(name);
        }
        let is_named = |family: &&Self| {
            family.architectures.iter().chain([&family.decoder]).any(|name| names.contains(name))
        };
        FAMILIES.iter().find(is_named).ok_or_else(|| {
            let supported = FAMILIES.map(|family| family.architectures.join(", ")).join(", ");
            config.unexpected("architectures", &format!("one of the supported architectures: {supported}"))
        })
    }
}
