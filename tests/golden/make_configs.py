#!/usr/bin/env python3
"""Writes configs.jsonl: random config.json files, and what transformers makes of each.

A line has the config and either `error`, where transformers cannot build or run such a model, or `model`: what the
model computes with. The models have random weights and are run on three tokens. See README.md for the versions.
"""
import json
import random
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

CASES = 80  # of each family
FAMILIES = {
    "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM", "gemma3_text": "Gemma3ForCausalLM", "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
}  # fmt: skip
BY_LAYER = ("gemma3_text", "olmo3")


def scaling(rng, kind, head_dim, theta=True):
    """The object of a rotation, in either dialect's words."""
    fields = {rng.choice(["rope_type", "rope_type", "type"]): kind}
    if theta and rng.random() < 0.5:
        fields["rope_theta"] = rng.choice([10000.0, 500000, 1e6, 777.0])
    maybe = lambda name, values, share=0.5: rng.random() < share and fields.update({name: rng.choice(values)})  # noqa: E731
    if kind in ("linear", "dynamic", "llama3", "yarn", "longrope"):
        maybe("factor", [1.0, 2, 4.0, 8.5, 0.5, 40, None] if kind in ("yarn", "longrope") else [1.0, 2, 8.0, 0.5], 0.95)
    if kind in ("llama3", "yarn", "longrope"):
        maybe("original_max_position_embeddings", [16, 32, 100], 0.8)
    if kind == "llama3":
        maybe("low_freq_factor", [1.0, 1, 2.5], 0.97)
        maybe("high_freq_factor", [4.0, 4, 1.0, 2.5], 0.97)
    if kind == "yarn":
        maybe("mscale", [0, 0.0, 1.0, 0.7, 1, -0.5, None], 0.4)
        maybe("mscale_all_dim", [0, 0.0, 1.0, 0.3, None], 0.4)
        maybe("attention_factor", [1.2, 0.0, 1, None], 0.2)
        maybe("beta_fast", [32, 16.0, 0, None, 1], 0.3)
        maybe("beta_slow", [1, 2.0, 0, None, 40], 0.3)
        maybe("truncate", [True, False], 0.3)
    if kind == "longrope":
        for name in ("short_factor", "long_factor"):
            fields[name] = [round(rng.uniform(1, 4), 3) for _ in range(head_dim // 2)]
        maybe("attention_factor", [1.2, 1], 0.2)
    if kind == "proportional":
        maybe("factor", [1.0, 4.0])
    maybe("partial_rotary_factor", [1.0, 0.5, 0.25, 1], 0.1)
    return fields


def rotation(rng, config, family, head_dim):
    kind = rng.choice(["default", "default", "linear", "dynamic", "llama3", "yarn", "yarn", "longrope", "proportional"])
    if rng.random() < 0.5:
        config["rope_theta"] = rng.choice([10000.0, 5e5, 100])
    if family == "gemma3_text" and rng.random() < 0.5:
        config["rope_local_base_freq"] = rng.choice([10000.0, 333])
    dialect = rng.choice(["old", "new", "both", "none"])
    if dialect in ("old", "both"):
        config["rope_scaling"] = rng.choice([scaling(rng, kind, head_dim), scaling(rng, kind, head_dim, False), None, {}])
    if dialect in ("new", "both"):
        flat = scaling(rng, kind, head_dim)
        if family in BY_LAYER and rng.random() < 0.7:
            nested = {"full_attention": flat, "sliding_attention": scaling(rng, rng.choice(["default", "linear"]), head_dim)}
            for name in list(nested):
                if rng.random() < 0.15:
                    del nested[name]
            flat = nested
        config["rope_parameters"] = flat
    if rng.random() < 0.1:
        config["partial_rotary_factor"] = rng.choice([0.5, 1.0, 0.25])
    if rng.random() < 0.1:
        config["original_max_position_embeddings"] = 64


def random_config(rng, family):
    heads, head_dim = rng.choice([2, 4]), rng.choice([8, 16])
    config = {
        "architectures": [FAMILIES[family]], "model_type": family, "vocab_size": 32, "hidden_size": heads * 8,
        "intermediate_size": 16, "num_hidden_layers": rng.choice([2, 3, 7]), "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([heads, heads // 2, 1, None]), "head_dim": head_dim,
        "max_position_embeddings": rng.choice([64, 128, 256]), "rms_norm_eps": rng.choice([1e-5, 1e-6]),
        "tie_word_embeddings": rng.random() < 0.5, "attention_bias": rng.random() < 0.3, "eos_token_id": 1,
        "initializer_cutoff_factor": rng.choice([3.0, float("inf")]), "dtype": "float32",
    }  # fmt: skip
    if family in ("gemma3_text", "qwen3_moe") and config["num_key_value_heads"] is None:
        config["num_key_value_heads"] = heads
    if family == "llama":
        config["mlp_bias"] = rng.random() < 0.3
    if family.startswith("qwen"):
        config |= {"use_sliding_window": rng.random() < 0.4, "sliding_window": rng.choice([4, 8]), "max_window_layers": 1}
    if family == "qwen3_moe":
        config |= {"num_experts": 16, "num_experts_per_tok": 3, "moe_intermediate_size": 8, "norm_topk_prob": rng.random() < 0.5,
                   "decoder_sparse_step": rng.choice([1, 2]), "mlp_only_layers": rng.choice([[], [0], None])}  # fmt: skip
    if family in BY_LAYER:
        config["sliding_window"] = rng.choice([4, 8])
        layers = [rng.choice(["full_attention", "sliding_attention"]) for _ in range(config["num_hidden_layers"])]
        config["layer_types"] = rng.choice([layers, layers, None])
        if config["layer_types"] is None and rng.random() < 0.5:
            config["sliding_window_pattern"] = 2
    if family == "gemma3_text":
        config["query_pre_attn_scalar"] = rng.choice([8, 24, 256])
    # Fields that are absent take defaults. The rest must stay, or the model would be large.
    for field in ("num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings", "attention_bias", "mlp_bias",
                  "use_sliding_window", "sliding_window", "max_window_layers", "num_experts_per_tok", "norm_topk_prob",
                  "decoder_sparse_step", "mlp_only_layers", "query_pre_attn_scalar", "num_experts",
                  "max_position_embeddings", "layer_types"):  # fmt: skip
        if rng.random() < 0.08:
            config.pop(field, None)
    rotation(rng, config, family, config.get("head_dim") or config["hidden_size"] // heads)
    return config


def describe(model):
    """What the model computes with."""
    config, decoder = model.config, model.model
    layers = decoder.layers
    attention = layers[0].self_attn
    rope = decoder.rotary_emb

    def rotated(prefix):
        frequencies = getattr(rope, f"{prefix}inv_freq", None)
        if frequencies is None:
            return None
        return {"inverse_frequencies": frequencies.tolist(), "scale": float(getattr(rope, f"{prefix}attention_scaling"))}

    kinds = getattr(config, "layer_types", None) or []
    full, sliding = rotated("full_attention_"), rotated("sliding_attention_")
    ropes = [full, sliding] if full or sliding else [rotated("")]
    norm = decoder.norm

    def mixture(layer):
        mlp = layer.mlp
        if not hasattr(mlp, "experts"):
            return None
        return [mlp.gate.weight.shape[0], mlp.gate.top_k, mlp.gate.norm_topk_prob, mlp.experts.down_proj.shape[-1]]

    window = lambda layer: getattr(layer.self_attn, "sliding_window", None)  # noqa: E731
    # Llama and OLMo 2 have no such attribute; Qwen3's mixtures have a window in every layer or none.
    return {
        "query_heads": attention.q_proj.out_features // attention.head_dim,
        "key_value_heads": attention.k_proj.out_features // attention.head_dim,
        "head_dim": attention.head_dim,
        "context_length": config.max_position_embeddings,
        "attention_scale": float(attention.scaling),
        "epsilon": float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0))),
        "qkv_bias": attention.q_proj.bias is not None,
        "attention_out_bias": attention.o_proj.bias is not None,
        "tied_lm_head": model.lm_head.weight.data_ptr() == decoder.embed_tokens.weight.data_ptr(),
        "windows": [window(layer) for layer in layers],
        "kinds": kinds,
        "mixtures": [mixture(layer) for layer in layers],
        "ropes": ropes,
    }  # fmt: skip


@torch.no_grad()
def answer(config, folder):
    (folder / "config.json").write_text(json.dumps(config))
    try:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).float().eval()
        model(torch.tensor([[1, 2, 3]]), use_cache=False)
        return {"model": describe(model)}
    except Exception as error:  # whatever it is, there is no such model
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:100]}


if __name__ == "__main__":
    import tempfile

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    torch.set_num_threads(1)
    rng, here = random.Random(7), Path(__file__).parent
    loaded = 0
    with tempfile.TemporaryDirectory() as folder, open(here / "configs.jsonl", "w") as out:
        for family in FAMILIES:
            for _ in range(CASES):
                config = random_config(rng, family)
                case = {"config": config} | answer(config, Path(folder))
                loaded += "model" in case
                out.write(json.dumps(case, separators=(",", ":")) + "\n")
    print(f"{loaded} of {CASES * len(FAMILIES)} are models", file=sys.stderr)
