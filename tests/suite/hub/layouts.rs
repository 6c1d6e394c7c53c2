//! Checkpoints in the layout in which each named pair is published: the dialect of config.json, names of tensors,
//! shards and their index, tokenizer, template and stop ids. The weights are random and of reduced sizes.

use std::path::Path;

use half::bf16;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};

use super::{Files, read_folder};
use crate::random::Random;

const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 48;
const EXPERTS: usize = 8;
/// Responses end here, because random models hardly ever stop.
const POSITIONS: usize = 160;

/// How a pair is published.
pub struct Layout {
    family: Family,
    shards: usize,
    /// Fields of config.json that add to or replace the fields of the family.
    config: Value,
    /// Whether the LM head is stored although it equals the embedding.
    stores_tied_lm_head: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Llama,
    SmolLm2,
    Qwen3,
    Qwen3Moe,
    Gemma3,
    /// The text decoder of a model that also reads images.
    Gemma3Vision,
    Olmo3,
}

impl Layout {
    /// The layout of the pair called `name`.
    pub fn of(name: &str) -> Self {
        let qwen3 = |shards, tied| (Family::Qwen3, shards, json!({"tie_word_embeddings": tied}));
        let llama = |shards, factor: f64, heads: usize, tied| {
            let scaling = json!({"factor": factor, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64, "rope_type": "llama3"});
            let config =
                json!({"num_attention_heads": heads, "rope_scaling": scaling, "tie_word_embeddings": tied});
            (Family::Llama, shards, config)
        };
        let vision = |shards, text| (Family::Gemma3Vision, shards, text);
        let (family, shards, config) = match name {
            "qwen3-0.6b" | "qwen3-1.7b" => qwen3(if name == "qwen3-0.6b" { 1 } else { 2 }, true),
            "qwen3-4b" => qwen3(3, true),
            "qwen3-8b" => qwen3(5, false),
            "qwen3-14b" => qwen3(8, false),
            "qwen3-30b-a3b" => (Family::Qwen3Moe, 16, json!({})),
            "gemma-3-270m" => (Family::Gemma3, 1, json!({"num_attention_heads": 4})),
            "gemma-3-1b" => {
                (Family::Gemma3, 1, json!({"num_attention_heads": 4, "sliding_window_pattern": 6}))
            }
            "gemma-3-4b" => vision(2, json!({})),
            "gemma-3-12b" => {
                vision(5, json!({"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 16}))
            }
            "gemma-3-27b" => vision(
                12,
                json!({"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 8, "query_pre_attn_scalar": 168}),
            ),
            "llama-3.1-8b" => llama(4, 8.0, 4, false),
            "llama-3.2-1b" => llama(1, 32.0, 4, true),
            "llama-3.2-3b" => llama(2, 32.0, 6, true),
            "olmo-3-7b" | "olmo-3-7b-sft" => (Family::Olmo3, 3, json!({})),
            "smollm2-135m" | "smollm2-360m" | "smollm2-1.7b" => (Family::SmolLm2, 1, json!({})),
            _ => panic!("the layout of {name} is not known here"),
        };
        let stores_tied_lm_head = matches!(name, "qwen3-0.6b" | "qwen3-1.7b");
        Self { family, shards, config, stores_tied_lm_head }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// The stop tokens that the expert's generation configuration names.
    pub fn stops(&self) -> &'static [&'static str] {
        match self.family {
            Family::Llama => &["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
            Family::SmolLm2 => &["<|im_end|>"],
            Family::Qwen3 | Family::Qwen3Moe | Family::Olmo3 => &["<|im_end|>", "<|endoftext|>"],
            Family::Gemma3 | Family::Gemma3Vision => &["<eos>", "<end_of_turn>"],
        }
    }

    /// All files of the expert or the amateur. The amateur has no template, and its only stop token is the end of
    /// text.
    pub fn files(&self, is_expert: bool, seed: u64) -> Files {
        let tokenizer = match self.family {
            Family::Llama => "llama3",
            Family::SmolLm2 => "smollm2",
            Family::Qwen3 | Family::Qwen3Moe => "qwen3",
            Family::Gemma3 | Family::Gemma3Vision => "gemma3",
            Family::Olmo3 => "olmo3",
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizers").join(tokenizer);
        let mut files = read_folder(&folder);
        files.retain(|name, _| !name.starts_with("expected"));
        let ids = Ids::of(&files);
        if !is_expert {
            files.remove("chat_template.jinja");
            let mut config: Value = serde_json::from_slice(&files["tokenizer_config.json"]).unwrap();
            config.as_object_mut().unwrap().remove("chat_template");
            files.insert("tokenizer_config.json".to_owned(), config.to_string().into_bytes());
        }
        let stops: Vec<u64> = self.stops().iter().map(|token| ids.id(token)).collect();
        let generation = if is_expert { json!({"eos_token_id": stops}) } else { json!({"eos_token_id": 0}) };
        files.insert("generation_config.json".to_owned(), generation.to_string().into_bytes());
        let config = self.config_json(ids.count, stops[0]);
        files.insert("config.json".to_owned(), config.to_string().into_bytes());
        let text = config.get("text_config").unwrap_or(&config);
        files.extend(shards(&self.tensors(text), self.shards, &mut Random::new(seed)));
        files
    }

    fn config_json(&self, tokens: usize, eos: u64) -> Value {
        let common = json!({
            "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": eos, "hidden_act": "silu",
            "hidden_size": HIDDEN, "initializer_range": 0.02, "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": POSITIONS, "num_attention_heads": 4, "num_hidden_layers": 2,
            "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_scaling": null, "torch_dtype": "bfloat16",
            "transformers_version": "4.51.0", "use_cache": true,
            // The vocabulary is padded, as in Qwen3 and Gemma.
            "vocab_size": tokens + 11,
        });
        let qwen3 = json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 16, "max_window_layers": 2,
            "rope_theta": 1_000_000, "sliding_window": null, "use_sliding_window": false,
        });
        let gemma3 = json!({
            "attn_logit_softcapping": null, "final_logit_softcapping": null, "cache_implementation": "hybrid",
            "head_dim": 16, "hidden_act": null, "hidden_activation": "gelu_pytorch_tanh", "num_hidden_layers": 7,
            "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000,
            "rope_theta": 1_000_000, "sliding_window": 24, "model_type": "gemma3_text",
        });
        let config = match self.family {
            Family::Llama => json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": false, "pretraining_tp": 1,
                "head_dim": 16, "rope_theta": 500_000.0,
            }),
            Family::SmolLm2 => json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": false, "pretraining_tp": 1,
                "is_llama_config": true, "rope_interleaved": false, "rope_theta": 100_000, "tie_word_embeddings": true,
                "vocab_size": tokens,
            }),
            Family::Qwen3 => qwen3,
            Family::Qwen3Moe => merged(
                qwen3,
                &json!({
                    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1,
                    "mlp_only_layers": [], "moe_intermediate_size": 16, "norm_topk_prob": true, "num_experts": EXPERTS,
                    "num_experts_per_tok": 3, "output_router_logits": false, "router_aux_loss_coef": 0.001,
                    "tie_word_embeddings": false,
                }),
            ),
            Family::Gemma3 => merged(gemma3, &json!({"architectures": ["Gemma3ForCausalLM"]})),
            Family::Gemma3Vision => {
                let text = json!({
                    "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "model_type": "gemma3_text",
                    "num_hidden_layers": 7, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                    "sliding_window": 24, "max_position_embeddings": POSITIONS, "vocab_size": tokens + 11,
                });
                return json!({
                    "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 1, "eoi_token_index": 2,
                    "eos_token_id": [eos], "image_token_index": 3, "initializer_range": 0.02,
                    "mm_tokens_per_image": 256, "model_type": "gemma3", "text_config": merged(text, &self.config),
                    "torch_dtype": "bfloat16", "transformers_version": "4.50.0",
                    "vision_config": {"hidden_size": 24, "image_size": 896, "model_type": "siglip_vision_model",
                        "num_hidden_layers": 1, "patch_size": 14, "vision_use_head": false},
                });
            }
            Family::Olmo3 => json!({
                "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "num_hidden_layers": 5,
                "num_key_value_heads": 4, "rope_theta": 500_000, "sliding_window": 24, "tie_word_embeddings": false,
                "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention",
                    "sliding_attention"],
                "rope_scaling": {"attention_factor": 1.207_944_154_167_983_6, "beta_fast": 32.0, "beta_slow": 1.0,
                    "factor": 8.0, "original_max_position_embeddings": 64, "rope_type": "yarn"},
            }),
        };
        merged(merged(common, &config), &self.config)
    }

    /// Names and shapes of the tensors, in the order of their files.
    fn tensors(&self, config: &Value) -> Vec<(String, Vec<usize>)> {
        // Gemma 3's defaults hold for the fields that config.json leaves out.
        let number = |name: &str, default: usize| config[name].as_u64().map_or(default, |n| n as usize);
        let (heads, kv_heads) = (number("num_attention_heads", 8), number("num_key_value_heads", 4));
        let default_dim = if self.family == Family::Gemma3Vision { 256 } else { HIDDEN / heads };
        let dim = number("head_dim", default_dim);
        let vocabulary = number("vocab_size", 0);
        let is_gemma = matches!(self.family, Family::Gemma3 | Family::Gemma3Vision);
        let is_tied = is_gemma || config["tie_word_embeddings"] == true;
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary, HIDDEN])];
        for layer in 0..number("num_hidden_layers", 0) {
            let mut add = |part: &str, shape: &[usize]| {
                tensors.push((format!("model.layers.{layer}.{part}.weight"), shape.to_vec()));
            };
            let mut mlp = |name: &str, width: usize| {
                add(&format!("{name}.down_proj"), &[HIDDEN, width]);
                add(&format!("{name}.gate_proj"), &[width, HIDDEN]);
                add(&format!("{name}.up_proj"), &[width, HIDDEN]);
            };
            if self.family == Family::Qwen3Moe {
                (0..EXPERTS).for_each(|expert| mlp(&format!("mlp.experts.{expert}"), 16));
                add("mlp.gate", &[EXPERTS, HIDDEN]);
            } else {
                mlp("mlp", INTERMEDIATE);
            }
            add("self_attn.q_proj", &[heads * dim, HIDDEN]);
            add("self_attn.k_proj", &[kv_heads * dim, HIDDEN]);
            add("self_attn.v_proj", &[kv_heads * dim, HIDDEN]);
            add("self_attn.o_proj", &[HIDDEN, heads * dim]);
            let (query_norm, key_norm) = match self.family {
                Family::Llama | Family::SmolLm2 => (0, 0),
                Family::Olmo3 => (heads * dim, kv_heads * dim),
                _ => (dim, dim),
            };
            if query_norm > 0 {
                add("self_attn.q_norm", &[query_norm]);
                add("self_attn.k_norm", &[key_norm]);
            }
            let norms: &[&str] = match self.family {
                Family::Olmo3 => &["post_attention_layernorm", "post_feedforward_layernorm"],
                _ if is_gemma => &[
                    "input_layernorm",
                    "post_attention_layernorm",
                    "pre_feedforward_layernorm",
                    "post_feedforward_layernorm",
                ],
                _ => &["input_layernorm", "post_attention_layernorm"],
            };
            for norm in norms {
                add(norm, &[HIDDEN]);
            }
        }
        tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
        if !is_tied || self.stores_tied_lm_head {
            tensors.push(("lm_head.weight".to_owned(), vec![vocabulary, HIDDEN]));
        }
        if self.family == Family::Gemma3Vision {
            for (name, _) in &mut tensors {
                name.insert_str(0, "language_model.");
            }
            let vision = "vision_tower.vision_model";
            tensors.push(("multi_modal_projector.mm_input_projection_weight".to_owned(), vec![24, HIDDEN]));
            tensors.push(("multi_modal_projector.mm_soft_emb_norm.weight".to_owned(), vec![24]));
            tensors.push((format!("{vision}.embeddings.patch_embedding.weight"), vec![24, 3, 14, 14]));
            tensors.push((format!("{vision}.encoder.layers.0.self_attn.q_proj.weight"), vec![24, 24]));
            tensors.push((format!("{vision}.encoder.layers.0.self_attn.q_proj.bias"), vec![24]));
        }
        tensors
    }
}

/// The ids of a tokenizer's tokens.
struct Ids {
    vocabulary: Map<String, Value>,
    count: usize,
}

impl Ids {
    fn of(files: &Files) -> Self {
        let tokenizer: Value = serde_json::from_slice(&files["tokenizer.json"]).unwrap();
        let mut vocabulary = tokenizer["model"]["vocab"].as_object().unwrap().clone();
        for token in tokenizer["added_tokens"].as_array().unwrap() {
            vocabulary.insert(token["content"].as_str().unwrap().to_owned(), token["id"].clone());
        }
        let count = vocabulary.values().map(|id| id.as_u64().unwrap() as usize + 1).max().unwrap();
        Self { vocabulary, count }
    }

    fn id(&self, token: &str) -> u64 {
        self.vocabulary[token].as_u64().unwrap()
    }
}

/// `base` with the fields of `other` added or replaced.
fn merged(mut base: Value, other: &Value) -> Value {
    for (name, value) in other.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

/// model.safetensors, or `count` shards and their index.
fn shards(tensors: &[(String, Vec<usize>)], count: usize, random: &mut Random) -> Files {
    let mut files = Files::new();
    let mut index = Map::new();
    let mut size = 0;
    for (number, part) in tensors.chunks(tensors.len().div_ceil(count)).enumerate() {
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let data: Vec<Vec<u8>> = part.iter().map(|(name, shape)| weights(name, shape, random)).collect();
        let views = part.iter().zip(&data).map(|((name, shape), data)| {
            (name.clone(), TensorView::new(Dtype::BF16, shape.clone(), data).unwrap())
        });
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        files.insert(file.clone(), safetensors::serialize(views, Some(metadata)).unwrap());
        index.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
        size += data.iter().map(Vec::len).sum::<usize>();
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": size}, "weight_map": index});
        files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    }
    files
}

/// Uniform random numbers in bf16: norms around 1, everything else around 0.
fn weights(name: &str, shape: &[usize], random: &mut Random) -> Vec<u8> {
    let is_norm = name.contains("norm");
    let mut draw = || {
        let uniform = f64::from(random.bits()) / f64::from(u32::MAX) - 0.5;
        if is_norm { 1.0 + 0.2 * uniform } else { 0.4 * uniform }
    };
    (0..shape.iter().product()).flat_map(|_| bf16::from_f64(draw()).to_le_bytes()).collect()
}
