//! The shape of a model as data: config.json of any supported family becomes one [`Spec`], and the one forward pass
//! follows it.

use serde_json::Value;

use super::fields::Fields;
use super::rope::Rope;
use crate::checkpoint::Checkpoint;
use crate::device::{Activation, CacheShape, Heads, RoutingShape};
use crate::error::Result;
use crate::ids::TokenId;

/// A decoder's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Rows of the embedding and of the head; may exceed the tokenizer's ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated activation of a dense MLP.
    pub intermediate_size: usize,
    /// Positions that the model can tell apart, in tokens.
    pub context_length: usize,
    /// Attention heads, the same in every layer.
    pub heads: Heads,
    /// Which part of queries and keys is normed.
    pub head_norm: HeadNorm,
    /// What scores are multiplied by before the softmax.
    pub attention_scale: f32,
    /// Whether q, k, v and the attention's output have biases.
    pub attention_bias: bool,
    /// The gate's activation.
    pub activation: Activation,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
    /// Every norm's epsilon.
    pub epsilon: f32,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// The rotations that layers refer to.
    pub ropes: Vec<Rope>,
    /// What differs from layer to layer, first layer first.
    pub layers: Vec<Layer>,
}

/// Which part of queries and keys has a root-mean-square norm before the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNorm {
    /// None.
    None,
    /// Each head, with one weight `[head_dim]` for all query heads and one for all key heads.
    PerHead,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Index into [`Spec::ropes`].
    pub rope: usize,
    /// How many of the last positions a token attends to, itself included; all where `None`.
    pub window: Option<usize>,
    /// What follows the attention.
    pub mlp: Mlp,
}

/// The second half of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// One for all rows, of [`Spec::intermediate_size`].
    Dense,
    /// Many, of which each row goes through a few.
    Mixture(Mixture),
}

/// The shape of a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixture {
    /// Its branches, and how many of them a row goes through.
    pub routing: RoutingShape,
    /// Width of a branch's gated activation.
    pub intermediate_size: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Qwen3,
    Qwen3Moe,
}

const FAMILIES: [(&str, Family); 3] = [
    ("LlamaForCausalLM", Family::Llama),
    ("Qwen3ForCausalLM", Family::Qwen3),
    ("Qwen3MoeForCausalLM", Family::Qwen3Moe),
];

// Far above any model, and low enough that no product of sizes overflows.
const MOST_LAYERS: usize = 1 << 12;
const MOST_HEADS: usize = 1 << 12;
const WIDEST_HEAD: usize = 1 << 12;
const WIDEST: usize = 1 << 24;
const MOST_BRANCHES: usize = 1 << 10;

impl Spec {
    /// Reads config.json.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) naming the field that is absent, out of range or not supported.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self> {
        let config = Fields::read(checkpoint, "config.json")?;
        let family = Family::read(&config)?;
        if config.get("quantization_config").is_some() {
            return Err(config.error(
                "quantization_config",
                "is present: quantized checkpoints are not supported; use the bf16, f16 or f32 original",
            ));
        }
        let hidden_size = config.count("hidden_size", WIDEST)?;
        let heads = read_heads(&config, family, hidden_size)?;
        Ok(Self {
            vocab_size: config.count("vocab_size", WIDEST)?,
            hidden_size,
            intermediate_size: config.count("intermediate_size", WIDEST)?,
            context_length: config.count("max_position_embeddings", WIDEST)?,
            heads,
            head_norm: family.head_norm(),
            attention_scale: (heads.dim as f32).sqrt().recip(),
            attention_bias: config.flag("attention_bias")?,
            activation: read_activation(&config)?,
            mlp_bias: family == Family::Llama && config.flag("mlp_bias")?,
            epsilon: config.number_or("rms_norm_eps", &(0.0..=1.0), 1e-6)? as f32,
            tied_head: config.flag("tie_word_embeddings")?,
            ropes: vec![Rope::read(&config, heads.dim)?],
            layers: read_layers(&config, family)?,
        })
    }

    /// The shape of this model's plane of a cache of `blocks` blocks of `block_size` tokens.
    pub fn cache_shape(&self, block_size: usize, blocks: usize) -> CacheShape {
        CacheShape {
            layers: self.layers.len(),
            heads: self.heads.key_value,
            group: self.heads.query / self.heads.key_value,
            head_dim: self.heads.dim,
            block_size,
            blocks,
        }
    }
}

impl Family {
    fn read(config: &Fields) -> Result<Self> {
        let names = config.texts("architectures")?.unwrap_or_default();
        let known = FAMILIES.iter().find(|(name, _)| names.contains(name));
        known.map(|(_, family)| *family).ok_or_else(|| {
            let supported = FAMILIES.map(|(name, _)| name).join(", ");
            config.unexpected("architectures", &format!("one of the supported architectures: {supported}"))
        })
    }

    fn head_norm(self) -> HeadNorm {
        match self {
            Self::Llama => HeadNorm::None,
            Self::Qwen3 | Self::Qwen3Moe => HeadNorm::PerHead,
        }
    }
}

fn read_heads(config: &Fields, family: Family, hidden_size: usize) -> Result<Heads> {
    let query = config.count("num_attention_heads", MOST_HEADS)?;
    let key_value = config.count_or("num_key_value_heads", MOST_HEADS, query)?;
    if !query.is_multiple_of(key_value) {
        let expected = format!("a divisor of num_attention_heads, {query}");
        return Err(config.unexpected("num_key_value_heads", &expected));
    }
    let default_dim = match family {
        Family::Llama | Family::Qwen3Moe => hidden_size / query,
        Family::Qwen3 => 128,
    };
    let dim = config.count_or("head_dim", WIDEST_HEAD, default_dim)?;
    if dim == 0 || !dim.is_multiple_of(2) {
        let expected = format!("even (by default it is {default_dim} here)");
        return Err(config.unexpected("head_dim", &expected));
    }
    Ok(Heads { query, key_value, dim })
}

fn read_activation(config: &Fields) -> Result<Activation> {
    match config.text("hidden_act")?.unwrap_or("silu") {
        "silu" => Ok(Activation::Silu),
        _ => Err(config.unexpected("hidden_act", "silu")),
    }
}

fn read_layers(config: &Fields, family: Family) -> Result<Vec<Layer>> {
    let windows = read_windows(config, family)?;
    let mlps = match family {
        Family::Qwen3Moe => read_mlps(config, windows.len())?,
        Family::Llama | Family::Qwen3 => vec![Mlp::Dense; windows.len()],
    };
    Ok(windows.into_iter().zip(mlps).map(|(window, mlp)| Layer { rope: 0, window, mlp }).collect())
}

/// Every `decoder_sparse_step`th layer has a mixture, but for those of `mlp_only_layers`.
fn read_mlps(config: &Fields, layers: usize) -> Result<Vec<Mlp>> {
    let names = ["num_experts", "num_local_experts"];
    let name = names.into_iter().find(|name| config.get(name).is_some()).unwrap_or(names[0]);
    let branches = config.count(name, MOST_BRANCHES)?;
    let mixture = Mixture {
        routing: RoutingShape {
            branches,
            active: config.count("num_experts_per_tok", branches)?,
            normalized: config.flag("norm_topk_prob")?,
        },
        intermediate_size: config.count("moe_intermediate_size", WIDEST)?,
    };
    let step = config.count_or("decoder_sparse_step", MOST_LAYERS, 1)?;
    let dense = config.optional("mlp_only_layers", "a list of layers' numbers", |value| {
        value.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<_>>>()
    })?;
    let is_dense = |layer: usize| {
        !(layer + 1).is_multiple_of(step) || dense.iter().flatten().any(|dense| *dense == layer as u64)
    };
    Ok((0..layers).map(|layer| if is_dense(layer) { Mlp::Dense } else { Mlp::Mixture(mixture) }).collect())
}

/// Each layer's window. Qwen3 may name its layers' kinds, or say from which layer on there is a window; with mixtures
/// there is one everywhere.
fn read_windows(config: &Fields, family: Family) -> Result<Vec<Option<usize>>> {
    let layers = config.count("num_hidden_layers", MOST_LAYERS)?;
    if family == Family::Llama {
        return Ok(vec![None; layers]);
    }
    let window =
        if config.flag("use_sliding_window")? { Some(config.count("sliding_window", WIDEST)?) } else { None };
    if family == Family::Qwen3Moe {
        return Ok(vec![window; layers]);
    }
    let Some(kinds) = config.texts("layer_types")? else {
        let full = config.optional("max_window_layers", "a whole number", Value::as_u64)?.unwrap_or(28);
        return Ok((0..layers).map(|layer| window.filter(|_| layer as u64 >= full)).collect());
    };
    if kinds.len() != layers {
        return Err(config
            .error("layer_types", &format!("names {} layers; num_hidden_layers is {layers}", kinds.len())));
    }
    let windows = kinds.iter().map(|kind| match (*kind, window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(_)) => Ok(window),
        ("sliding_attention", None) => {
            Err(config.unexpected("use_sliding_window", "true where layer_types has sliding_attention"))
        }
        _ => Err(config
            .error("layer_types", &format!("has {kind:?}; supported: full_attention, sliding_attention"))),
    });
    windows.collect()
}

/// The ids that end a text: `eos_token_id` of `generation_config.json`, else of config.json. Empty where
/// neither has one.
///
/// # Errors
/// [`Error::File`](crate::Error::File) where the field is neither an id nor a list of ids.
pub fn stop_tokens(checkpoint: &Checkpoint) -> Result<Vec<TokenId>> {
    let generation = Fields::find(checkpoint, "generation_config.json")?;
    if let Some(ids) = generation.map(|fields| read_ids(&fields)).transpose()?.flatten() {
        return Ok(ids);
    }
    Ok(read_ids(&Fields::read(checkpoint, "config.json")?)?.unwrap_or_default())
}

fn read_ids(fields: &Fields) -> Result<Option<Vec<TokenId>>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).map(TokenId);
    fields.optional("eos_token_id", "a token id or a list of token ids", |value| match value {
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    })
}
