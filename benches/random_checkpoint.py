"""Writes a pair of random bf16 Llama checkpoints, DIR/expert and DIR/amateur, of any shape: for measuring speed.

    python random_checkpoint.py DIR --tokenizer FOLDER [--hidden 576 --layers 30 ...]

The default shape is SmolLM2-135M's. The tokenizer's files, template and stop ids are copied from FOLDER, so that `codit synth` can run
the pair. Weights depend on the seed alone; the amateur's are the expert's plus noise, so that the two resemble each other.
Needs numpy and nothing else: a safetensors file is a length, a JSON header and the tensors' bytes.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

TOKENIZER_FILES = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json",
]  # fmt: skip


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--intermediate", type=int, default=1536)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--untied", action="store_true", help="give the head a matrix of its own")
    parser.add_argument("--rope-theta", type=float, default=100_000.0)
    parser.add_argument("--context", type=int, default=8192)
    return parser.parse_args()


def config(a):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": a.hidden,
        "intermediate_size": a.intermediate,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "vocab_size": a.vocab,
        "max_position_embeddings": a.context,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": a.rope_theta},
        "tie_word_embeddings": not a.untied,
    }


def shapes(a):
    """Name and shape of every tensor, in the order of the file."""
    yield "model.embed_tokens.weight", (a.vocab, a.hidden)
    for i in range(a.layers):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (a.hidden,)
        yield layer + "self_attn.q_proj.weight", (a.heads * a.head_dim, a.hidden)
        yield layer + "self_attn.k_proj.weight", (a.kv_heads * a.head_dim, a.hidden)
        yield layer + "self_attn.v_proj.weight", (a.kv_heads * a.head_dim, a.hidden)
        yield layer + "self_attn.o_proj.weight", (a.hidden, a.heads * a.head_dim)
        yield layer + "post_attention_layernorm.weight", (a.hidden,)
        yield layer + "mlp.gate_proj.weight", (a.intermediate, a.hidden)
        yield layer + "mlp.up_proj.weight", (a.intermediate, a.hidden)
        yield layer + "mlp.down_proj.weight", (a.hidden, a.intermediate)
    yield "model.norm.weight", (a.hidden,)
    if a.untied:
        yield "lm_head.weight", (a.vocab, a.hidden)


def header(shapes):
    """The file's length prefix and header, padded as the format wants it."""
    entries, start = {}, 0
    for name, shape in shapes:
        end = start + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def values(name, shape, seed, index, amateur):
    """f32: norms about 1, projections that keep the scale, embeddings that give the logits a deviation of 4."""
    draw = lambda who: np.random.default_rng([seed, index, who]).standard_normal(shape, dtype=np.float32)  # noqa: E731
    x = 0.98 * draw(0) + 0.2 * draw(1) if amateur else draw(0)
    if len(shape) == 1:
        return 1 + 0.1 * x
    return x * ((4 if "layers" not in name else 1) / shape[1] ** 0.5)


def bf16(x):
    """Rounded to nearest, ties to even."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write(folder, a, amateur):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(a), indent=2) + "\n")
    for file in TOKENIZER_FILES:
        if (a.tokenizer / file).exists():
            shutil.copyfile(a.tokenizer / file, folder / file)
    tensors = list(shapes(a))
    with open(folder / "model.safetensors", "wb") as out:
        out.write(header(tensors))
        for index, (name, shape) in enumerate(tensors):
            out.write(bf16(values(name, shape, a.seed, index, amateur)).tobytes())


if __name__ == "__main__":
    args = arguments()
    write(args.folder / "expert", args, amateur=False)
    write(args.folder / "amateur", args, amateur=True)
