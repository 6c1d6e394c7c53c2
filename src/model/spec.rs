//! The shape of a model as data: config.json of any supported family becomes one [`Spec`], and the one forward pass
//! follows it.

use serde_json::Value;

pub use super::family::NormPlacement;
use super::family::{AttentionBiases, Family, Windows};
use super::json_reader::JsonReader;
use super::rope::Rope;
use crate::checkpoint::{CONFIG_FILE, Checkpoint};
use crate::device::{Activation, CacheShape, Heads, LayerKind, NormScope, PerKind, RoutingShape};
use crate::error::Result;
use crate::ids::TokenId;

/// A decoder's shape.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // As config.json has them.
pub struct Spec {
    /// Rows of the embedding and of the LM head; may exceed the number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated activation of a dense MLP.
    pub intermediate_size: usize,
    /// The longest context, in tokens.
    pub context_length: usize,
    /// Attention heads, the same in every layer.
    pub heads: Heads,
    /// The factor that multiplies the embedding.
    pub embedding_scale: f32,
    /// Which norms a layer has.
    pub norm_placement: NormPlacement,
    /// Whether norms multiply by `1 + weight`.
    pub unit_offset: bool,
    /// The scope of the norms of queries and keys before the rotation, if there are any.
    pub head_norms: Option<NormScope>,
    /// The factor that multiplies attention scores before the softmax.
    pub attention_scale: f32,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has a bias.
    pub attention_out_bias: bool,
    /// The gate's activation.
    pub activation: Activation,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
    /// Every norm's epsilon.
    pub epsilon: f32,
    /// Whether the LM head is the embedding (tied weights).
    pub tied_lm_head: bool,
    /// The rotations that layers refer to.
    pub ropes: Vec<Rope>,
    /// The properties that differ between layers, first layer first.
    pub layers: Vec<Layer>,
}

/// The properties that differ between layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Index into [`Spec::ropes`].
    pub rope: usize,
    /// How many of the last positions a token attends to, itself included; `None` for all.
    pub window: Option<usize>,
    /// The block after attention.
    pub mlp: Mlp,
}

/// The second half of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// One MLP for all rows, of width [`Spec::intermediate_size`].
    Dense,
    /// Many MLPs, of which each row uses a few.
    Mixture(Mixture),
}

/// The shape of a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixture {
    /// The number of branches, and how many of them a row uses.
    pub routing: RoutingShape,
    /// Width of the gated activation of a branch.
    pub intermediate_size: usize,
}

/// Fields of config.json that ask for an unsupported computation, each with its error message.
const REFUSED: [(&str, &str); 4] = [
    (
        "quantization_config",
        "is present: quantized checkpoints are not supported; use the bf16, f16 or f32 original",
    ),
    ("attn_logit_softcapping", "is set: capped attention scores are not supported"),
    ("final_logit_softcapping", "is set: capped logits are not supported"),
    ("use_bidirectional_attention", "is set: it makes an encoder; a decoder is needed"),
];

// Limits far above any model, and low enough that no product of sizes overflows.
const MOST_PARAMETERS: f64 = 1e15;
const MOST_LAYERS: usize = 1 << 12;
const MOST_HEADS: usize = 1 << 12;
const WIDEST_HEAD: usize = 1 << 12;
const WIDEST: usize = 1 << 24;
const MOST_BRANCHES: usize = 1 << 10;

impl Spec {
    /// Reads config.json.
    ///
    /// # Errors
    /// [`Error::File`](crate::error::Error::File) naming the field that is absent, out of range or not supported.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self> {
        Self::read(checkpoint, CONFIG_FILE)
    }

    /// Reads and checks `file`, which is written as a config.json.
    ///
    /// # Errors
    /// Those of [`Spec::open`].
    pub fn read(checkpoint: &Checkpoint, file: &str) -> Result<Self> {
        let config = JsonReader::read(checkpoint, file)?;
        let family = Family::read(&config)?;
        supported(&config)?;
        // The config of a text tower within a larger model.
        let config = config.object("text_config")?.unwrap_or(config).or_defaults((family.defaults)());
        supported(&config)?;
        let hidden_size = config.count("hidden_size", WIDEST)?;
        let heads = read_heads(&config, family, hidden_size)?;
        let layers = read_layers(&config, family)?;
        let ropes = read_ropes(&config, family, heads.dim, &layers)?;
        let context_length = config.count("max_position_embeddings", WIDEST)?;
        let stretched = ropes.iter().filter_map(|rope| rope.reach).fold(context_length, usize::max);
        let limit = ropes.iter().filter_map(|rope| rope.limit).fold(WIDEST, usize::min);
        let (qkv_bias, attention_out_bias) = match family.attention_biases {
            AttentionBiases::Configured => {
                let all = config.flag("attention_bias")?;
                (all, all)
            }
            AttentionBiases::QueryKeyValue => (true, false),
        };
        let score = config.number_or("query_pre_attn_scalar", &(1e-6..=1e6), heads.dim as f64)?;
        let spec = Self {
            vocab_size: config.count("vocab_size", WIDEST)?,
            hidden_size,
            intermediate_size: config.count("intermediate_size", WIDEST)?,
            context_length: stretched.min(limit),
            heads,
            embedding_scale: if family.scales_embedding { (hidden_size as f32).sqrt() } else { 1.0 },
            norm_placement: family.norm_placement,
            unit_offset: family.unit_offset,
            head_norms: family.head_norms,
            attention_scale: score.sqrt().recip() as f32,
            qkv_bias,
            attention_out_bias,
            activation: read_activation(&config)?,
            mlp_bias: config.flag("mlp_bias")?,
            epsilon: config.number("rms_norm_eps", &(0.0..=1.0))? as f32,
            tied_lm_head: config.flag("tie_word_embeddings")?,
            layers,
            ropes,
        };
        let parameters = spec.parameters();
        if parameters > MOST_PARAMETERS {
            let message = format!(
                "and the other sizes make a model of {parameters:.1e} parameters; the most is {MOST_PARAMETERS:.1e}"
            );
            return Err(config.error("hidden_size", &message));
        }
        Ok(spec)
    }

    /// The longest window of the layers, if any has one.
    pub fn longest_window(&self) -> Option<usize> {
        self.layers.iter().filter_map(|layer| layer.window).max()
    }

    /// How many numbers the large matrices have. As a float, so that no product of sizes overflows.
    fn parameters(&self) -> f64 {
        let hidden = self.hidden_size as f64;
        let attention = hidden * (self.heads.qkv_width() + self.heads.query_width()) as f64;
        let mlp = |layer: &Layer| match layer.mlp {
            Mlp::Dense => 3.0 * hidden * self.intermediate_size as f64,
            Mlp::Mixture(Mixture { routing, intermediate_size }) => {
                routing.branches as f64 * 3.0 * hidden * intermediate_size as f64
            }
        };
        let layers = self.layers.iter().map(|layer| attention + mlp(layer)).sum::<f64>();
        layers + 2.0 * hidden * self.vocab_size as f64
    }

    /// The shape of this model's plane of a KV cache with `blocks` blocks of `block_size` tokens.
    pub fn cache_shape(&self, block_size: usize, blocks: PerKind<usize>) -> CacheShape {
        CacheShape {
            layers: PerKind::of(|kind| self.layers.iter().filter(|layer| layer.kind() == kind).count()),
            heads: self.heads.key_value,
            group: self.heads.query / self.heads.key_value,
            head_dim: self.heads.dim,
            block_size,
            blocks,
        }
    }
}

impl Layer {
    /// Which of the cache's blocks hold the layer's keys and values.
    pub fn kind(&self) -> LayerKind {
        if self.window.is_some() { LayerKind::Windowed } else { LayerKind::Full }
    }
}

/// Refuses a config that asks for a computation that is not supported.
fn supported(config: &JsonReader) -> Result<()> {
    let is_set = |field: &str| config.get(field).is_some_and(|value| *value != Value::Bool(false));
    match REFUSED.iter().find(|(field, _)| is_set(field)) {
        Some((field, message)) => Err(config.error(field, message)),
        None => Ok(()),
    }
}

fn read_heads(config: &JsonReader, family: &Family, hidden_size: usize) -> Result<Heads> {
    let query = config.count("num_attention_heads", MOST_HEADS)?;
    let key_value = config.count_or("num_key_value_heads", MOST_HEADS, query)?;
    if !query.is_multiple_of(key_value) {
        let expected = format!("a divisor of num_attention_heads, {query}");
        return Err(config.unexpected("num_key_value_heads", &expected));
    }
    let dim = config.count_or("head_dim", WIDEST_HEAD, family.head_dim.unwrap_or(hidden_size / query))?;
    if dim == 0 || !dim.is_multiple_of(2) {
        let expected = "even (by default it is hidden_size / num_attention_heads)";
        return Err(config.unexpected("head_dim", expected));
    }
    Ok(Heads { query, key_value, dim })
}

fn read_activation(config: &JsonReader) -> Result<Activation> {
    let gemma = "hidden_activation";
    let field = if config.get(gemma).is_some() { gemma } else { "hidden_act" };
    match config.text(field)?.unwrap_or("silu") {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        _ => Err(config.unexpected(field, "silu or gelu_pytorch_tanh")),
    }
}

fn read_layers(config: &JsonReader, family: &Family) -> Result<Vec<Layer>> {
    let windows = read_windows(config, family.windows)?;
    let mlps =
        if family.has_mixtures { read_mlps(config, windows.len())? } else { vec![Mlp::Dense; windows.len()] };
    let rope = |window: Option<usize>| usize::from(window.is_some() && family.windows.have_rotation());
    Ok(windows.into_iter().zip(mlps).map(|(window, mlp)| Layer { rope: rope(window), window, mlp }).collect())
}

/// Every `decoder_sparse_step`-th layer is a mixture, except the layers in `mlp_only_layers`.
fn read_mlps(config: &JsonReader, layers: usize) -> Result<Vec<Mlp>> {
    let renamed = "num_local_experts";
    let name = if config.get(renamed).is_some() { renamed } else { "num_experts" };
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

/// The rotation of layers that see all positions, then that of layers with a window if it differs.
fn read_ropes(config: &JsonReader, family: &Family, head_dim: usize, layers: &[Layer]) -> Result<Vec<Rope>> {
    let thetas = family.thetas;
    if !family.windows.have_rotation() {
        return Ok(vec![Rope::read(config, head_dim, thetas.full)?]);
    }
    // The fields of a rotation that no layer uses do not matter.
    let is_used = |index| layers.iter().any(|layer| layer.rope == index);
    let full = is_used(0).then(|| Rope::read_full(config, head_dim, thetas.full)).transpose()?;
    let sliding = is_used(1).then(|| Rope::read_sliding(config, head_dim, thetas.sliding)).transpose()?;
    let unused = |theta| Rope::unscaled(theta, head_dim);
    Ok(vec![full.unwrap_or_else(|| unused(thetas.full)), sliding.unwrap_or_else(|| unused(thetas.sliding))])
}

/// The window of each layer.
fn read_windows(config: &JsonReader, windows: Windows) -> Result<Vec<Option<usize>>> {
    let layers = config.count("num_hidden_layers", MOST_LAYERS)?;
    let window = match windows {
        Windows::Never => {
            refuse_window(config)?;
            return Ok(vec![None; layers]);
        }
        Windows::Optional | Windows::OptionalEverywhere if !config.flag("use_sliding_window")? => None,
        _ => Some(config.count("sliding_window", WIDEST)?),
    };
    if windows == Windows::OptionalEverywhere {
        return Ok(vec![window; layers]);
    }
    let Some(kinds) = config.texts("layer_types")? else {
        let pattern = match windows {
            Windows::AllButEveryFourth => 4,
            _ => config.count_or("sliding_window_pattern", MOST_LAYERS, 1)?,
        };
        let full = config.optional("max_window_layers", "a whole number", Value::as_u64)?.unwrap_or(0);
        let has_window = |layer: usize| match windows {
            Windows::Alternating | Windows::AllButEveryFourth => !(layer + 1).is_multiple_of(pattern),
            _ => layer as u64 >= full,
        };
        return Ok((0..layers).map(|layer| window.filter(|_| has_window(layer))).collect());
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

/// Refuses a window where the family has none. Only of what `transformers` decodes one token a step it drops the older keys;
/// other programs ignore the field.
fn refuse_window(config: &JsonReader) -> Result<()> {
    let Some(window) = config.optional("sliding_window", "a whole number", Value::as_u64)? else {
        return Ok(());
    };
    let positions = config.count("max_position_embeddings", WIDEST)?;
    if window >= positions as u64 {
        return Ok(());
    }
    let message = format!(
        "is {window}, and this architecture attends to all {positions} positions; set it to null, or give the architecture \
         of the model's family that has windows"
    );
    Err(config.error("sliding_window", &message))
}

/// The ids that end a text: `eos_token_id` of `generation_config.json`, else of config.json. Empty if
/// neither has one.
///
/// # Errors
/// [`Error::File`](crate::error::Error::File) where the field is neither an id nor a list of ids.
pub fn stop_tokens(checkpoint: &Checkpoint) -> Result<Vec<TokenId>> {
    let generation = JsonReader::find(checkpoint, "generation_config.json")?;
    if let Some(ids) = generation.map(|fields| read_ids(&fields)).transpose()?.flatten() {
        return Ok(ids);
    }
    Ok(read_ids(&JsonReader::read(checkpoint, CONFIG_FILE)?)?.unwrap_or_default())
}

fn read_ids(fields: &JsonReader) -> Result<Option<Vec<TokenId>>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).map(TokenId);
    fields.optional("eos_token_id", "a token id or a list of token ids", |value| match value {
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    })
}
