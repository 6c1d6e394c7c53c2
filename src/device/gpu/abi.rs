//! The memory layouts that Rust and the kernels share: the words of a step's buffer and the parameters of every kernel.
//!
//! Each `#[repr(C)]` struct of this file mirrors the struct of the same name in `kernels/`, which documents the fields
//! and is followed by `MIRRORED(name)`. The build script (`build/abi.rs`) turns this file into C++ assertions on the name,
//! type and offset of every field and on the size of every struct; the C++ compiler checks them where it meets
//! `MIRRORED`. A struct that is declared on one side only, or differently, fails the build, with or without nvcc.

use bytemuck::{Pod, Zeroable};

use crate::contrast::{LogProbabilities, RowFault, Sampled};
use crate::device::types::batch::{RowResult, SampleRow};
use crate::ids::TokenId;

/// The value that stands for no slot, no token and no output.
pub const NONE: u32 = u32::MAX;

/// One span of a step.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SpanWords {
    pub first_token: u32,
    pub tokens: u32,
    pub context: u32,
    pub first_block: u32,
}

/// How one row is sampled.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SampleWords {
    pub ln_alpha: f64,
    pub beta: f64,
    pub special_beta: f64,
    pub temperature: f64,
    pub top_p: f64,
    pub min_p: f64,
    pub top_k: u32,
    pub position: u32,
    pub key: [u32; 2],
    pub record: [u32; 2],
    pub deferred_row: u32,
    pub flags: u32,
}

/// What sampling returns for one row.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ResultWords {
    pub token: u32,
    pub status: u32,
    pub num_candidates: u32,
    pub score: f32,
    pub expert_log_probability: f32,
    pub amateur_log_probability: f32,
}

/// Summary of one tile of a row's logits, from one sampling kernel to the next.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct TileWords {
    expert_peak: f32,
    expert_sum: f32,
    amateur_peak: f32,
    amateur_sum: f32,
    faults: u32,
    unmasked: u32,
    tempered_sum: f32,
    winner: u32,
    winner_logit: f32,
}

/// One candidate whose logit of the amateur is computed by itself.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct CandidateEntry {
    row: u32,
    id: u32,
    expert: f32,
    amateur: f32,
}

/// The candidates of one row among all entries.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct CandidateList {
    first: u32,
    size: u32,
}

/// How many entries and rows the listing kernel found.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct CandidateCounts {
    pub entries: u32,
    pub full_row_offsets: [u32; 2],
    pub unused: u32,
}

/// Parameters of the kernels of `embed.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct EmbedParams {
    pub tokens: u64,
    pub source_outputs: u64,
    pub slots: u64,
    pub results: u64,
    pub table: u64,
    pub out: u64,
    pub width: u32,
    pub scale: f32,
}

/// One norm; all zero for none.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct NormParams {
    pub weight: u64,
    pub epsilon: f32,
    pub weight_offset: f32,
}

/// Parameters of the kernels of `rms_norm.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct RmsNormParams {
    pub delta: u64,
    pub residual: u64,
    pub delta_norm: NormParams,
    pub norm: NormParams,
    pub out: u64,
    pub width: u32,
    pub unused: u32,
}

/// Parameters of the kernels of `rope_store.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct RopeStoreParams {
    pub positions: u64,
    pub slots: u64,
    pub inverse_frequencies: u64,
    pub query_norm: NormParams,
    pub key_norm: NormParams,
    pub qkv: u64,
    pub cache: u64,
    pub scales: u64,
    pub query_heads: u32,
    pub key_value_heads: u32,
    pub head_dim: u32,
    pub block_size: u32,
    pub lanes: u32,
    pub angle_scale: f32,
    pub norms_span_heads: u32,
    pub unused: u32,
}

/// Parameters of the kernels of `attention.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct AttentionParams {
    pub qkv: u64,
    pub cache: u64,
    pub scales: u64,
    pub out: u64,
    pub spans: u64,
    pub prefills: u64,
    pub blocks: u64,
    pub partials: u64,
    pub counters: u64,
    pub kv_heads: u32,
    pub group: u32,
    pub head_dim: u32,
    pub block_size: u32,
    pub window: u32,
    pub scale: f32,
    pub first_span: u32,
    pub unused: u32,
}

/// Parameters of the kernels of `gated.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct GatedParams {
    pub x: u64,
    pub out: u64,
    pub width: u32,
    pub activation: u32,
}

/// Parameters of the kernels of `grouped_matmul.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct GroupedMatmulParams {
    pub x: u64,
    pub weight: u64,
    pub scales: u64,
    pub bias: u64,
    pub out: u64,
    pub sources: u64,
    pub offsets: u64,
    pub rows: u32,
    pub groups: u32,
    pub outputs: u32,
    pub inputs: u32,
    pub out_is_f32: u32,
    pub scatters: u32,
    pub tile_rows: u32,
    pub unused: u32,
}

/// Parameters of the kernels of `route.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct RouteParams {
    pub logits: u64,
    pub slots: u64,
    pub branches: u64,
    pub weights: u64,
    pub places: u64,
    pub sources: u64,
    pub offsets: u64,
    pub rows: u32,
    pub branch_count: u32,
    pub active: u32,
    pub normalized: u32,
}

/// Parameters of the kernels of `weighted_sum.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct WeightedSumParams {
    pub x: u64,
    pub slots: u64,
    pub weights: u64,
    pub places: u64,
    pub out: u64,
    pub width: u32,
    pub active: u32,
}

/// Parameters of the kernels of `gather.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct GatherParams {
    pub logits_indices: u64,
    pub x: u64,
    pub out: u64,
    pub width: u32,
    pub unused: u32,
}

/// The buffers of candidates whose logits of the amateur are computed one by one; all zero for none.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct CandidateBuffers {
    pub lists: u64,
    pub entries: u64,
    pub counts: u64,
    pub full_rows: u64,
}

/// Parameters of the kernels of `contrast_sample.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct ContrastSampleParams {
    pub expert: u64,
    pub amateur: u64,
    pub special: u64,
    pub samples: u64,
    pub tiles: u64,
    pub results: u64,
    pub deferred_logits: u64,
    pub candidates: CandidateBuffers,
    pub vocabulary: u32,
    pub expert_stride: u32,
    pub amateur_stride: u32,
    pub special_count: u32,
    pub deferred_stride: u32,
    pub capacity: u32,
}

/// Parameters of the kernels of `contrast_project.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct ContrastProjectParams {
    pub hidden: u64,
    pub projection: u64,
    pub entries: u64,
    pub counts: u64,
    pub width: u32,
    pub unused: u32,
}

/// Parameters of the kernels of `copy_block.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct CopyBlockParams {
    pub cache: u64,
    pub layer_bytes: u64,
    pub block_bytes: u64,
    pub from: u32,
    pub to: u32,
}

/// Parameters of the kernels of `void_rows.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct VoidRowsParams {
    pub source_outputs: u64,
    pub logits_indices: u64,
    pub results: u64,
    pub slots: u64,
    pub windowed_slots: u64,
    pub spans: u64,
    pub samples: u64,
    pub span_count: u32,
    pub output_count: u32,
}

/// Parameters of the kernels of `random_weight.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct RandomWeightParams {
    pub out: u64,
    pub elements: u64,
    pub seed: u64,
    pub bound: f32,
    pub offset: f32,
}

impl SampleWords {
    pub fn new(row: &SampleRow) -> Self {
        let (contrast, [key, record]) = (&row.contrast, row.noise.words());
        Self {
            ln_alpha: contrast.alpha.ln(),
            beta: contrast.beta,
            special_beta: contrast.special_beta(),
            temperature: contrast.temperature,
            top_p: contrast.top_p,
            min_p: contrast.min_p,
            top_k: contrast.top_k,
            position: row.position,
            key,
            record,
            deferred_row: row.deferred_row.unwrap_or(NONE),
            flags: u32::from(row.log_probabilities),
        }
    }
}

impl ResultWords {
    pub fn result(&self) -> RowResult {
        match self.status {
            0 => RowResult::Sampled(Sampled {
                token: TokenId(self.token),
                score: self.score,
                num_candidates: self.num_candidates,
                log_probabilities: Some(LogProbabilities {
                    expert: self.expert_log_probability,
                    amateur: Some(self.amateur_log_probability).filter(|l_a| !l_a.is_nan()),
                }),
            }),
            1 => RowResult::Fault(RowFault::NotANumber),
            2 => RowResult::Fault(RowFault::AllMasked),
            3 => RowResult::AwaitsAmateur,
            _ => RowResult::Fault(RowFault::Overflow),
        }
    }
}

/// Tokens of a tile, the work of one warp.
pub const TILE: usize = 512;

/// Bytes that the sampling kernels need for each row that samples.
pub fn row_bytes(vocabulary: usize) -> usize {
    vocabulary.div_ceil(TILE) * size_of::<TileWords>()
}
