//! The one forward pass, for every model family, driven by its [`Spec`].
//!
//! ```text
//! x = embed(tokens) * scale
//! for each layer:  x += norm(attention(norm(x)));  x += norm(mlp(norm(x)))
//! logits = lm_head(norm(x))
//! ```
//!
//! Most families normalize only what a block reads, some only what it adds to the residual, Gemma both.

use std::cell::Cell;
use std::ops::Range;

use super::linear::Linear;
use super::mixture::Mixture;
use super::mlp::{self, Dense, Mlp};
use super::spec::{self, NormPlacement, Spec};
use super::weights::Weights;
use crate::checkpoint::Checkpoint;
use crate::device::{
    AttentionShape, CacheLayer, Device, HeadNorms, Norm, NormScope, PerKind, Precision, Unprojected,
    WeightKind, WeightSource,
};
use crate::error::{Error, Result};

/// Name prefixes of the decoder and of the LM head in a checkpoint. The text tower of a larger model has longer prefixes; a
/// decoder that is stored alone may have none.
const PREFIXES: [(&str, &str); 5] = [
    ("model.", "lm_head."),
    ("model.language_model.", "lm_head."),
    ("language_model.model.", "language_model.lm_head."),
    ("language_model.", "lm_head."),
    ("", "lm_head."),
];

/// One model on a device: its weights and the activations of the current batch.
pub struct Decoder<D: Device> {
    spec: Spec,
    /// `[vocab_size, hidden_size]`
    embedding: D::Weight,
    ropes: Vec<D::Rope>,
    layers: Vec<Layer<D>>,
    norm: Norm<D::Weight>,
    /// `[vocab_size, hidden_size]`; if `None`, the embedding is used (tied weights).
    lm_head: Option<D::Weight>,
    scratch: Scratch<D>,
}

struct Layer<D: Device> {
    attention_norms: BlockNorms<D>,
    /// `[qkv_width, hidden_size]`
    qkv: Linear<D>,
    head_norms: Option<HeadNorms<D::Weight>>,
    /// `[hidden_size, query_width]`
    attention_out: Linear<D>,
    mlp_norms: BlockNorms<D>,
    mlp: Mlp<D>,
}

/// The norms of a block's input and of its output, where the family has them. Each `[hidden_size]`.
struct BlockNorms<D: Device> {
    before: Option<Norm<D::Weight>>,
    after: Option<Norm<D::Weight>>,
}

/// The activations, allocated once for the largest batch.
struct Scratch<D: Device> {
    /// `[tokens, hidden_size]`, the sum of all blocks up to the last but one.
    residual: D::Tensor,
    /// `[tokens, hidden_size]`, what the last block adds to the residual.
    delta: D::Tensor,
    /// `[tokens, hidden_size]`
    normed: D::Tensor,
    /// `[tokens, qkv_width]`
    qkv: D::Tensor,
    /// `[tokens, query_width]`
    attended: D::Tensor,
    mlp: mlp::Scratch<D>,
    /// `[logits, hidden_size]`, rows of `residual`.
    last_residual: D::Tensor,
    /// `[logits, hidden_size]`, rows of `delta`.
    last_delta: D::Tensor,
    /// `[logits, hidden_size]`
    last_normed: D::Tensor,
    /// `[logits, vocab_size]`
    logits: D::Tensor,
}

impl<D: Device> Decoder<D> {
    /// Loads a checkpoint onto `device`, with buffers for batches of `max_num_batched_tokens` tokens and for `logits_rows` rows of
    /// logits at once.
    ///
    /// # Errors
    /// [`Error::File`] naming the file and the field or tensor that is absent, damaged or not
    /// supported; [`Error::Io`] where a file was changed meanwhile; [`Error::Device`] where the device has too little
    /// memory.
    pub fn load(
        device: &D,
        checkpoint: &Checkpoint,
        max_num_batched_tokens: usize,
        logits_rows: usize,
    ) -> Result<Self> {
        let spec = Spec::open(checkpoint)?;
        let weights = Weights::open(checkpoint)?;
        let origin = Origin::Stored(&weights);
        let loader = Loader { device, spec: &spec, prefixes: prefixes(&weights), origin };
        let decoder = loader.decoder(max_num_batched_tokens, logits_rows)?;
        weights.check_unchanged()?;
        Ok(decoder)
    }

    /// A model of the shape `spec` with random weights drawn from `seed` on the device, for measurements. Its buffers are sized
    /// as in [`Decoder::load`].
    ///
    /// # Errors
    /// [`Error::Device`] where the device has too little memory.
    pub fn random(
        device: &D,
        spec: &Spec,
        seed: u64,
        max_num_batched_tokens: usize,
        logits_rows: usize,
    ) -> Result<Self> {
        let origin = Origin::Random(Cell::new(seed));
        Loader { device, spec, prefixes: PREFIXES[0], origin }.decoder(max_num_batched_tokens, logits_rows)
    }

    /// The model's shape.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Bytes of the layers' matrices that a step reads.
    pub fn layer_bytes(&self, device: &D) -> usize {
        let of = |layer: &Layer<D>| [&layer.qkv, &layer.attention_out].map(|linear| linear.bytes(device));
        self.layers.iter().map(|layer| of(layer).iter().sum::<usize>() + layer.mlp.bytes(device)).sum()
    }

    /// Bytes of the LM head.
    pub fn lm_head_bytes(&self, device: &D) -> usize {
        device.weight_size(self.lm_head.as_ref().unwrap_or(&self.embedding)).bytes
    }

    /// Runs the current step through all layers and appends its keys and values to `cache`. [`Decoder::logits`] then computes
    /// the logits of its outputs.
    ///
    /// The step must not have more tokens than the buffers hold, and each id must be below [`Spec::vocab_size`].
    pub fn forward(&mut self, device: &D, step: &D::Step, cache: &mut D::Cache) {
        let (rows, spec, s) = (device.rows(step), &self.spec, &mut self.scratch);
        device.embed(step, &self.embedding, spec.embedding_scale, &mut s.residual);
        // The norm of the last block's output. The next block applies it as its first operation, before adding the output.
        let mut after: Option<Option<&Norm<_>>> = None;
        let mut layers_before = PerKind::<usize>::default();
        for (layer, shape) in self.layers.iter().zip(&spec.layers) {
            let place = CacheLayer { kind: shape.kind(), index: layers_before[shape.kind()] };
            layers_before[shape.kind()] += 1;
            let (attention, mlp) = (&layer.attention_norms, &layer.mlp_norms);
            let delta = after.map(|after| (&s.delta, after));
            device.rms_norm(rows, delta, &mut s.residual, attention.before.as_ref(), &mut s.normed);
            layer.qkv.apply(device, rows, &s.normed, &mut s.qkv);
            let (norms, rope) = (layer.head_norms.as_ref(), &self.ropes[shape.rope]);
            device.rope_store(step, spec.heads, norms, rope, place, &mut s.qkv, cache);
            let (scale, window) = (spec.attention_scale, shape.window);
            let shape = AttentionShape { heads: spec.heads, scale, window, layer: place };
            device.attention(step, shape, &s.qkv, cache, &mut s.attended);
            layer.attention_out.apply(device, rows, &s.attended, &mut s.delta);

            let delta = Some((&s.delta, attention.after.as_ref()));
            device.rms_norm(rows, delta, &mut s.residual, mlp.before.as_ref(), &mut s.normed);
            layer.mlp.apply(device, step, spec.activation, &s.normed, &mut s.mlp, &mut s.delta);
            after = Some(mlp.after.as_ref());
        }
    }

    /// The logits `[outputs.len(), vocab_size]` of some of the step's outputs, at most as many as the buffers hold. They can be
    /// computed repeatedly.
    pub fn logits(&mut self, device: &D, step: &D::Step, outputs: Range<usize>) -> &D::Tensor {
        let rows = outputs.len();
        let Unprojected { hidden, lm_head, logits } = self.hidden(device, step, outputs);
        device.matmul(rows, hidden, lm_head, None, logits);
        logits
    }

    /// The factors of the product that [`Decoder::logits`] computes.
    pub fn hidden(
        &mut self,
        device: &D,
        step: &D::Step,
        outputs: Range<usize>,
    ) -> Unprojected<'_, D::Tensor, D::Weight> {
        let (rows, s) = (outputs.len(), &mut self.scratch);
        device.gather(step, outputs.clone(), &s.residual, &mut s.last_residual);
        device.gather(step, outputs, &s.delta, &mut s.last_delta);
        let after = self.layers.last().and_then(|layer| layer.mlp_norms.after.as_ref());
        let delta = Some((&s.last_delta, after));
        device.rms_norm(rows, delta, &mut s.last_residual, Some(&self.norm), &mut s.last_normed);
        let lm_head = self.lm_head.as_ref().unwrap_or(&self.embedding);
        Unprojected { hidden: &s.last_normed, lm_head, logits: &mut s.logits }
    }
}

impl<D: Device> Scratch<D> {
    fn new(device: &D, spec: &Spec, max_num_batched_tokens: usize, logits_rows: usize) -> Result<Self> {
        use Precision::{Single, Working};
        let tokens = |width| device.tensor(max_num_batched_tokens, width, Working);
        let outputs = |width, precision| device.tensor(logits_rows, width, precision);
        Ok(Self {
            residual: device.tensor(max_num_batched_tokens, spec.hidden_size, Single)?,
            delta: tokens(spec.hidden_size)?,
            normed: tokens(spec.hidden_size)?,
            qkv: tokens(spec.heads.qkv_width())?,
            attended: tokens(spec.heads.query_width())?,
            mlp: mlp::Scratch::new(device, spec, max_num_batched_tokens)?,
            last_residual: outputs(spec.hidden_size, Single)?,
            last_delta: outputs(spec.hidden_size, Working)?,
            last_normed: outputs(spec.hidden_size, Working)?,
            logits: device.logits(logits_rows, spec.vocab_size)?,
        })
    }
}

/// Loads the tensors of a checkpoint by name.
struct Loader<'a, D> {
    device: &'a D,
    spec: &'a Spec,
    /// The name prefixes of the decoder's tensors and of the LM head's.
    prefixes: (&'static str, &'static str),
    origin: Origin<'a>,
}

/// The source of the weights.
enum Origin<'a> {
    Stored(&'a Weights),
    /// The seed of the next weight.
    Random(Cell<u64>),
}

const EMBEDDING: &str = "embed_tokens.weight";

/// The entry of [`PREFIXES`] that the checkpoint uses; the usual one if it has neither an embedding nor a last norm.
fn prefixes(weights: &Weights) -> (&'static str, &'static str) {
    // A tied checkpoint may hold its embedding as an LM head alone.
    let used = [EMBEDDING, "norm.weight"].into_iter().find_map(|tensor| {
        PREFIXES.into_iter().find(|(decoder, _)| weights.contains(&format!("{decoder}{tensor}")))
    });
    used.unwrap_or(PREFIXES[0])
}

/// The names of a layer's norms: before and after attention, before and after the MLP.
fn norm_names(placement: NormPlacement) -> [[Option<&'static str>; 2]; 2] {
    let input = Some("input_layernorm");
    let after_attention = Some("post_attention_layernorm");
    let (before_mlp, after_mlp) = (Some("pre_feedforward_layernorm"), Some("post_feedforward_layernorm"));
    match placement {
        // The name dates from when no family had a norm at this place.
        NormPlacement::Before => [[input, None], [after_attention, None]],
        NormPlacement::After => [[None, after_attention], [None, after_mlp]],
        NormPlacement::Both => [[input, after_attention], [before_mlp, after_mlp]],
    }
}

impl<D: Device> Loader<'_, D> {
    fn decoder(&self, max_num_batched_tokens: usize, logits_rows: usize) -> Result<Decoder<D>> {
        let spec = self.spec;
        let table = [spec.vocab_size, spec.hidden_size];
        Ok(Decoder {
            embedding: self.weight([(self.embedding_name(), table.to_vec())])?,
            lm_head: if self.has_lm_head(&table)? {
                Some(self.weight([(self.lm_head_name(), table.to_vec())])?)
            } else {
                None
            },
            ropes: spec
                .ropes
                .iter()
                .map(|rope| self.device.rope(&rope.inverse_frequencies, rope.scale))
                .collect::<Result<_>>()?,
            layers: (0..spec.layers.len()).map(|index| self.layer(index)).collect::<Result<_>>()?,
            norm: self.norm(&self.name("norm"), spec.hidden_size)?,
            scratch: Scratch::new(self.device, spec, max_num_batched_tokens, logits_rows)?,
            spec: spec.clone(),
        })
    }

    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefixes.0)
    }

    /// The name of the embedding. A tied checkpoint may hold it under the name of the LM head alone.
    fn embedding_name(&self) -> String {
        let (embedding, lm_head) = (self.name(EMBEDDING), self.lm_head_name());
        match self.origin {
            Origin::Stored(weights)
                if self.spec.tied_lm_head && !weights.contains(&embedding) && weights.contains(&lm_head) =>
            {
                lm_head
            }
            _ => embedding,
        }
    }

    fn lm_head_name(&self) -> String {
        format!("{}weight", self.prefixes.1)
    }

    /// Whether there is an LM head beside the embedding. Some tied checkpoints hold the same tensor twice; where the two
    /// differ, the LM head of the file counts, as it does for transformers.
    fn has_lm_head(&self, table: &[usize]) -> Result<bool> {
        let holds_both = |weights: &Weights| {
            weights.contains(&self.lm_head_name()) && weights.contains(&self.name(EMBEDDING))
        };
        let weights = match self.origin {
            Origin::Stored(weights) if self.spec.tied_lm_head && holds_both(weights) => weights,
            _ => return Ok(!self.spec.tied_lm_head),
        };
        let embedding = weights.tensor(&self.name(EMBEDDING), table)?;
        let lm_head = weights.tensor(&self.lm_head_name(), table)?;
        Ok(lm_head.dtype != embedding.dtype || lm_head.bytes() != embedding.bytes())
    }

    fn layer(&self, index: usize) -> Result<Layer<D>> {
        let &Spec { hidden_size, heads, qkv_bias, attention_out_bias, .. } = self.spec;
        let name = |part: &str| self.name(&format!("layers.{index}.{part}"));
        let norm = |part: Option<&str>| part.map(|part| self.norm(&name(part), hidden_size)).transpose();
        let block = |[before, after]: [Option<&str>; 2]| {
            Ok::<_, Error>(BlockNorms { before: norm(before)?, after: norm(after)? })
        };
        let [attention_norms, mlp_norms] = norm_names(self.spec.norm_placement);
        let (query, key) = (heads.query_width(), heads.key_value * heads.dim);
        let qkv = [
            (name("self_attn.q_proj"), query),
            (name("self_attn.k_proj"), key),
            (name("self_attn.v_proj"), key),
        ];
        Ok(Layer {
            attention_norms: block(attention_norms)?,
            qkv: self.linear(&qkv, hidden_size, qkv_bias)?,
            head_norms: self.spec.head_norms.map(|scope| self.head_norms(scope, &name)).transpose()?,
            attention_out: self.linear(
                &[(name("self_attn.o_proj"), hidden_size)],
                query,
                attention_out_bias,
            )?,
            mlp_norms: block(mlp_norms)?,
            mlp: match self.spec.layers[index].mlp {
                spec::Mlp::Dense => Mlp::Dense(self.dense(&name("mlp"))?),
                spec::Mlp::Mixture(shape) => Mlp::Mixture(self.mixture(&name("mlp"), shape)?),
            },
        })
    }

    fn dense(&self, name: &str) -> Result<Dense<D>> {
        let &Spec { hidden_size, intermediate_size: width, mlp_bias, .. } = self.spec;
        let gate_up = [(format!("{name}.gate_proj"), width), (format!("{name}.up_proj"), width)];
        Ok(Dense {
            gate_up: self.linear(&gate_up, hidden_size, mlp_bias)?,
            down: self.linear(&[(format!("{name}.down_proj"), hidden_size)], width, mlp_bias)?,
            width,
        })
    }

    fn mixture(&self, name: &str, shape: spec::Mixture) -> Result<Mixture<D>> {
        let (hidden_size, width, branches) =
            (self.spec.hidden_size, shape.intermediate_size, shape.routing.branches);
        Ok(Mixture {
            router: self.weight([(format!("{name}.gate.weight"), vec![branches, hidden_size])])?,
            gate_up: self.branches(name, branches, &["gate_proj", "up_proj"], [width, hidden_size])?,
            down: self.branches(name, branches, &["down_proj"], [hidden_size, width])?,
            shape,
        })
    }

    /// Loads the matrices `parts`, each of `shape`, of every branch of a mixture, joined.
    fn branches(&self, name: &str, count: usize, parts: &[&str], shape: [usize; 2]) -> Result<D::Weight> {
        let [outputs, width] = shape;
        match &self.origin {
            Origin::Stored(_) => self.matrix((0..count).flat_map(|branch| {
                let tensor = move |part| (format!("{name}.experts.{branch}.{part}.weight"), shape.to_vec());
                parts.iter().map(tensor)
            })),
            Origin::Random(seed) => {
                let shape = [count, parts.len() * outputs, width];
                let source = WeightSource::Random { shape: &shape, seed: seed.replace(seed.get() + 1) };
                self.device.load(source, WeightKind::LayerMatrix)
            }
        }
    }

    fn head_norms(&self, scope: NormScope, name: &dyn Fn(&str) -> String) -> Result<HeadNorms<D::Weight>> {
        let heads = self.spec.heads;
        let (query, key) = match scope {
            NormScope::Head => (heads.dim, heads.dim),
            NormScope::Projection => (heads.query_width(), heads.key_value * heads.dim),
        };
        Ok(HeadNorms {
            scope,
            query: self.norm(&name("self_attn.q_norm"), query)?,
            key: self.norm(&name("self_attn.k_norm"), key)?,
        })
    }

    /// Loads projections from `width` inputs, each given by its name and number of outputs, joined along the outputs.
    fn linear(&self, parts: &[(String, usize)], width: usize, bias: bool) -> Result<Linear<D>> {
        let weights = parts.iter().map(|(name, outputs)| (format!("{name}.weight"), vec![*outputs, width]));
        let biases = parts.iter().map(|(name, outputs)| (format!("{name}.bias"), vec![*outputs]));
        Ok(Linear { weight: self.matrix(weights)?, bias: bias.then(|| self.weight(biases)).transpose()? })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm<D::Weight>> {
        let weight = self.weight([(format!("{name}.weight"), vec![width])])?;
        Ok(Norm { weight, epsilon: self.spec.epsilon, unit_offset: self.spec.unit_offset })
    }

    /// Loads the tensors with these names and shapes, joined along their first dimension.
    fn weight(&self, parts: impl IntoIterator<Item = (String, Vec<usize>)>) -> Result<D::Weight> {
        self.load(WeightKind::Other, parts)
    }

    /// Like [`Loader::weight`], for the matrices of a layer.
    fn matrix(&self, parts: impl IntoIterator<Item = (String, Vec<usize>)>) -> Result<D::Weight> {
        self.load(WeightKind::LayerMatrix, parts)
    }

    fn load(
        &self,
        kind: WeightKind,
        parts: impl IntoIterator<Item = (String, Vec<usize>)>,
    ) -> Result<D::Weight> {
        match &self.origin {
            Origin::Stored(weights) => {
                let parts = parts.into_iter().map(|(name, shape)| weights.tensor(&name, &shape));
                self.device.load(WeightSource::Stored(&parts.collect::<Result<Vec<_>>>()?), kind)
            }
            Origin::Random(seed) => {
                let joined = parts.into_iter().map(|(_, shape)| shape).reduce(|mut joined, shape| {
                    joined[0] += shape[0];
                    joined
                });
                let (shape, seed) = (joined.unwrap_or_default(), seed.replace(seed.get() + 1));
                self.device.load(WeightSource::Random { shape: &shape, seed }, kind)
            }
        }
    }
}
