"""Writes models/<case>/: pairs of small random checkpoints in the layout of Hugging Face, and what they compute.

    python make_models.py [CASE ...]

README.md describes the files and names the packages; other versions are refused. Everything is seeded. Without a name,
every case is written again.
"""

import json
import math
import shutil
import sys
import zlib
from itertools import combinations
from pathlib import Path

import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent / "models"
FAMILIES = {  # configuration, architecture
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "qwen3-moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "gemma3-tower": ("Gemma3Config", "Gemma3ForConditionalGeneration"),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM"),
    "olmo3": ("Olmo3Config", "Olmo3ForCausalLM"),
}
SETTINGS = [(0.01, 1), (0.1, 0.5), (0, 0), (0.3, 1), (0, 0.25)]  # (alpha, beta)
POSITIONS = [0, 1, 7, 15, 16, 17, 31, 32, 47]
PROMPTS = [5, 17]  # lengths of the prompts that are continued
MAX_TOKENS = 48
# A prompt is replaced by the next one when a step of its continuation is closer to a tie than this: another order of
# summation in f32 must not change a token (MARGIN) or the members of a head (EDGE).
MARGIN, EDGE = 1e-3, 1e-4
# Likewise a text when a router's logits are closer: its mixture would go through other branches.
ROUTING_MARGIN = 2e-5


def rope(theta, **scaling):
    return {"rope_type": "default", "rope_theta": theta, **scaling}


def llama3(theta, factor, original):
    bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": original}
    return rope(theta, rope_type="llama3", factor=factor, **bands)


def yarn(theta, factor, original, **more):
    return rope(theta, rope_type="yarn", factor=factor, original_max_position_embeddings=original, **more)


def by_layer(full, sliding):
    """The rotations of layers that see all positions and of those with a window."""
    return {"full_attention": full, "sliding_attention": sliding}


def shape(hidden, layers, heads, kv, head_dim, mlp, theta, vocab=256, **more):
    """The configuration of one model; `theta` is a number, or a whole rope dictionary."""
    return dict(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
        head_dim=head_dim, intermediate_size=mlp, vocab_size=vocab, max_position_embeddings=512, bos_token_id=0,
        rope_parameters=theta if isinstance(theta, dict) else rope(theta), **more,
    )  # fmt: skip


def mixture(experts, active, width, **more):
    """The part of a configuration that says what a mixture is."""
    return dict(num_experts=experts, num_experts_per_tok=active, moe_intermediate_size=width, **more)


def case(family, expert, amateur=None, dtype="bfloat16", amateur_dtype=None, amateur_family=None, **more):
    """`more`: vocab (default: all rows), length of the logits' prompts, shard (largest file), old (dialect), eos (how many)."""
    return dict(families=(family, amateur_family or family), expert=expert, amateur=amateur or expert, dtype=dtype,
                amateur_dtype=amateur_dtype or dtype, **more)  # fmt: skip


CASES = {
    "llama-mha-tied-f32": case("llama", shape(48, 2, 3, 3, 16, 64, 10000.0, tie_word_embeddings=True), dtype="float32"),
    "llama-gqa2-f16": case("llama", shape(64, 2, 4, 2, 16, 64, 500000.0, rms_norm_eps=1e-5), dtype="float16", eos=1),
    "llama-gqa3-scaled": case(
        "llama", shape(48, 2, 6, 2, 16, 48, llama3(10000.0, 8.0, 64), tie_word_embeddings=True, rms_norm_eps=1e-5),
        length=160, eos=3),  # fmt: skip
    "llama-gqa4-scaled-old": case("llama", shape(64, 2, 8, 2, 8, 64, llama3(5000.0, 32.0, 64)), length=160, old=True),
    "llama-gqa8-shards": case("llama", shape(48, 2, 8, 1, 16, 48, 10000.0), shard="40KB"),
    "llama-bias": case("llama", shape(48, 3, 4, 2, 16, 48, 777.0, attention_bias=True)),
    "llama-mlp-bias-linear": case(
        "llama", shape(48, 2, 4, 2, 16, 48, rope(10000.0, rope_type="linear", factor=4.0), mlp_bias=True)
    ),
    "llama-head64-old": case("llama", shape(48, 2, 4, 1, 64, 48, 37777.0, rms_norm_eps=1e-5), old=True, eos=1),
    "qwen2-gqa7-tied-old": case(
        "qwen2", shape(56, 2, 7, 1, 8, 48, 1000000.0, tie_word_embeddings=True), old=True, eos=1
    ),
    "qwen2-unlike": case(
        "qwen2",
        shape(48, 3, 4, 2, 16, 48, 1000000.0, vocab=320, use_sliding_window=True, sliding_window=8, max_window_layers=1),
        shape(32, 2, 6, 3, 16, 40, 10000.0, vocab=352, tie_word_embeddings=True, rms_norm_eps=1e-5),
        vocab=300, amateur_dtype="float16"),  # fmt: skip
    "qwen3-gqa2-tied": case("qwen3", shape(48, 2, 4, 2, 32, 48, 1000000.0, tie_word_embeddings=True)),
    "qwen3-head128-old": case("qwen3", shape(48, 2, 2, 1, 128, 48, 1000000.0), old=True),
    "qwen3-gqa3-shards-f32": case("qwen3", shape(48, 2, 6, 2, 16, 48, 1234.5), dtype="float32", shard="60KB"),
    "qwen3-unlike": case(
        "qwen3",
        shape(48, 3, 8, 1, 16, 48, 10000.0, attention_bias=True),
        shape(64, 2, 3, 3, 32, 48, 50000.0, tie_word_embeddings=True, rms_norm_eps=1e-5),
        amateur_dtype="float16", eos=3),  # fmt: skip
    "qwen3-window": case(
        "qwen3", shape(48, 3, 4, 2, 16, 48, 10000.0, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    ),
    "qwen3-padded": case(
        "qwen3", shape(48, 2, 4, 2, 32, 48, 10000.0, vocab=320), shape(48, 2, 4, 2, 32, 48, 10000.0, vocab=352), vocab=300
    ),
    "qwen3-moe": case("qwen3-moe", shape(48, 2, 4, 2, 16, 40, 10000.0, **mixture(40, 8, 8, norm_topk_prob=True))),
    "qwen3-moe-plain-old": case(
        "qwen3-moe", shape(48, 4, 4, 1, 16, 48, 10000.0, **mixture(6, 2, 24, decoder_sparse_step=2)), shard="60KB", old=True
    ),
    "qwen3-moe-unlike": case(
        "qwen3-moe",
        shape(32, 3, 4, 2, 16, 48, 10000.0, vocab=320, use_sliding_window=True, sliding_window=12,
              **mixture(12, 3, 16, norm_topk_prob=True, mlp_only_layers=[1])),
        shape(48, 2, 4, 2, 32, 48, 10000.0, vocab=352), amateur_family="qwen3", vocab=300, dtype="float32"),  # fmt: skip
    "qwen3-yarn-old": case(
        "qwen3",
        shape(48, 2, 4, 2, 32, 48, yarn(10000.0, 4.0, 40, beta_fast=16.0, beta_slow=2.0, truncate=False)),
        shape(48, 2, 4, 2, 32, 48, yarn(10000.0, 4.0, 40, mscale=0.8, mscale_all_dim=0.3)),
        length=160, old=True),  # fmt: skip
    "gemma3-linear": case(
        "gemma3",
        shape(32, 7, 4, 2, 16, 32, by_layer(rope(50000.0, rope_type="linear", factor=8.0), rope(777.0)),
              sliding_window=8, query_pre_attn_scalar=24)),  # fmt: skip
    "gemma3-head256-old": case(
        "gemma3",
        shape(16, 3, 2, 1, 256, 32, by_layer(rope(1e6), rope(1e4)), sliding_window=16, sliding_window_pattern=2),
        old=True, eos=1),  # fmt: skip
    "gemma3-tower": case(
        "gemma3-tower",
        shape(32, 7, 8, 4, 8, 32, by_layer(rope(1e6, rope_type="linear", factor=8.0), rope(1e4)), sliding_window=8)),
    "gemma3-tower-unlike-old": case(
        "gemma3-tower",
        shape(32, 4, 8, 4, 8, 32, by_layer(rope(1e6, rope_type="linear", factor=8.0), rope(1e4)),
              vocab=320, sliding_window=8, sliding_window_pattern=3),
        shape(48, 3, 3, 1, 16, 48, by_layer(rope(1e6), rope(1e4)), vocab=352, sliding_window=12,
              sliding_window_pattern=2),
        amateur_family="gemma3", amateur_dtype="float16", vocab=300, shard="60KB", old=True, eos=3),  # fmt: skip
    "olmo2-f16": case("olmo2", shape(48, 2, 6, 2, 16, 48, 500000.0), dtype="float16"),
    "olmo3-yarn": case(
        "olmo3",
        shape(32, 5, 4, 2, 16, 32, by_layer(yarn(500000.0, 8.0, 32), rope(10000.0)), sliding_window=8),
        length=160),  # fmt: skip
    "olmo3-unlike-old": case(
        "olmo3",
        shape(32, 5, 4, 4, 8, 32, by_layer(yarn(500000.0, 8.0, 32, attention_factor=1.2), rope(500000.0)),
              vocab=320, sliding_window=8),
        shape(48, 4, 6, 2, 16, 32, by_layer(rope(500000.0), rope(500000.0)), vocab=352, sliding_window=20),
        vocab=300, old=True, eos=3),  # fmt: skip
}

# What the published text towers of Gemma leave to the defaults, less what would make these files large.
LEFT_OUT = [
    "_sliding_window_pattern", "attention_bias", "attn_logit_softcapping", "final_logit_softcapping", "hidden_activation",
    "max_position_embeddings", "num_attention_heads", "num_key_value_heads", "query_pre_attn_scalar", "rms_norm_eps",
    "rope_local_base_freq", "rope_theta", "tie_word_embeddings", "use_bidirectional_attention",
]  # fmt: skip
VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)


def build(family, shape):
    config, architecture = (getattr(transformers, name) for name in FAMILIES[family])
    if family == "gemma3-tower":
        # The ids of images are beyond the vocabulary: none is read as one.
        images = dict(mm_tokens_per_image=1, image_token_index=1000, boi_token_index=1001, eoi_token_index=1002)
        return architecture(config(text_config=shape, vision_config=VISION, **images))
    return architecture(config(**shape))


def randomise(model, seed, vocab, like=None):
    """Fills every weight: norms about 1, biases about 0, projections that keep the scale, heads that spread the logits.

    With `like`, a weight of the same shape follows that model's (correlation 0.8), as an amateur resembles its expert.
    """
    noise = torch.Generator().manual_seed(seed)
    twin = dict(like.named_parameters()) if like else {}
    gemma = "gemma3" in model.config.model_type

    def mean(name):
        # Gemma adds 1. Its layers' outputs are normed to 2, so that its large embeddings do not decide alone.
        return 0.0 if "norm" not in name else 1.0 if not gemma or "post_" in name else 0.0

    for name, weight in model.named_parameters():
        fresh = torch.randn(weight.shape, generator=noise)
        if "norm" in name:
            fresh = mean(name) + 0.2 * fresh
        elif name.endswith("bias"):
            fresh = 0.5 * fresh
        elif "embed_tokens" in name or "lm_head" in name:
            fresh *= 2.8 / math.sqrt(weight.shape[1])
            fresh[vocab:] *= 2  # padding rows would win often, were they not excluded
        else:
            fresh *= 1.2 / math.sqrt(weight.shape[-1])
        if name in twin and twin[name].shape == weight.shape:
            fresh = mean(name) + 0.8 * (twin[name].data - mean(name)) + 0.6 * (fresh - mean(name))
        weight.data.copy_(fresh)


def edit_config(folder, edit):
    """Rewrites config.json after `edit` of its whole and of the decoder's part."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config, config.get("text_config", config))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def to_old_dialect(config, text):
    """As older releases of transformers wrote it."""
    scaling = text.pop("rope_parameters")
    if "full_attention" in scaling:
        scaling, sliding = scaling["full_attention"], scaling["sliding_attention"]
        if "gemma3" in text["model_type"]:
            text["rope_local_base_freq"] = sliding["rope_theta"]
            text["sliding_window_pattern"] = text["layer_types"].index("full_attention") + 1
            del text["layer_types"]
    text["rope_theta"] = scaling.pop("rope_theta")
    text["rope_scaling"] = scaling if scaling["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    if "num_local_experts" in text:
        text["num_experts"] = text.pop("num_local_experts")
    if "gemma3" not in text["model_type"] and text.get("head_dim") == text["hidden_size"] // text["num_attention_heads"]:
        del text["head_dim"]


def leave_out(config, text):
    for field in LEFT_OUT:
        text.pop(field, None)


def to_new_names(folder):
    """Renames a tower's tensors to what they are called within transformers, as some files have them."""
    path = folder / "model.safetensors"
    tensors = {f"model.{name}".replace("model.language_model.model.", "model.language_model."): tensor
               for name, tensor in load_file(path).items()}  # fmt: skip
    save_file(tensors, path, metadata={"format": "pt"})


def save(model, folder, dtype, eos, shard="1GB", old=False):
    model.config.eos_token_id = eos if isinstance(eos, int) else eos[0]
    model.generation_config.eos_token_id = eos
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    if old:
        edit_config(folder, to_old_dialect)
    if hasattr(model.config, "text_config"):
        edit_config(folder, leave_out)
        if not old:
            to_new_names(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model.routing = Routing(model)
    return model


@torch.no_grad()
def logits(model, ids):
    """[n, len] -> [n, len, vocab_size], f32."""
    return model(torch.as_tensor(ids), use_cache=False).logits


class Routing:
    """What every router of a model chooses while it reads, and how close it was to another choice."""

    def __init__(self, model):
        self.clear()
        for module in model.modules():
            if type(module).__name__ == "Qwen3MoeTopKRouter":
                module.register_forward_hook(self.note)

    def clear(self):
        self.ids, self.weights, self.margin = [], [], math.inf

    def note(self, router, _, output):
        logits, weights, ids = output
        self.ids.append(ids)
        self.weights.append(weights)
        best = logits.double().topk(router.top_k + 1).values
        self.margin = min(self.margin, float((best[:, :-1] - best[:, 1:]).min()))

    def tensors(self, name, texts):
        """[mixtures, texts, len, active] of what was read at once; nothing where there is no mixture."""
        whole = lambda xs: torch.stack(xs).unflatten(1, (texts, -1)).contiguous()  # noqa: E731
        return {f"{name}_branches": whole(self.ids), f"{name}_branch_weights": whole(self.weights)} if self.ids else {}


def step(expert, amateur, ids, alpha, beta, vocab):
    """One greedy token: (token, score, margin, head size, edge), in f64 over f32 logits."""
    l_e, l_a = (logits(m, [ids])[0, -1, :vocab].double().log_softmax(-1) for m in (expert, amateur))
    threshold = (math.log(alpha) if alpha > 0 else -math.inf) + l_e.max()
    head = l_e >= threshold
    s = (l_e - beta * l_a).masked_fill(~head, -math.inf)
    token = int(s.argmax()) if head.sum() > 1 else int(head.nonzero())
    best = s.topk(2).values
    edge = float((l_e - threshold).abs().min())
    return token, float(s.log_softmax(-1)[token]), float(best[0] - best[1]), int(head.sum()), edge


def continuation(expert, amateur, prompt, alpha, beta, vocab):
    ids, steps = list(prompt), []
    expert.routing.clear(), amateur.routing.clear()
    while len(steps) < MAX_TOKENS:
        steps.append(step(expert, amateur, ids, alpha, beta, vocab))
        routing_margin = min(expert.routing.margin, amateur.routing.margin)
        if steps[-1][2] < MARGIN or steps[-1][4] < EDGE or routing_margin < ROUTING_MARGIN:
            return None
        ids.append(steps[-1][0])
    return prompt, alpha, beta, steps


def continuations(expert, amateur, vocab, lengths, seed):
    noise = torch.Generator().manual_seed(seed)
    for alpha, beta in SETTINGS:
        for length in lengths:
            found = None
            while not found:
                prompt = torch.randint(vocab, (length,), generator=noise).tolist()
                found = continuation(expert, amateur, prompt, alpha, beta, vocab)
            yield found


def choose_eos(runs, count):
    """The `count` ids that end about two runs of five, the later the better; and the id that would end most others."""
    firsts = [{t: i for i, (t, *_) in reversed(list(enumerate(steps)))} for *_, steps in runs]
    ids = sorted(set().union(*firsts))

    def fit(eos):
        ends = [min((f[t] for t in eos if t in f), default=None) for f in firsts]
        ends = [e for e in ends if e is not None]
        return abs(len(ends) - 0.4 * len(runs)), -sum(ends)

    eos = min(combinations(ids, count if count < 3 else 2), key=fit)
    if count == 3:  # an id that is never generated
        eos = (*eos, min(set(range(256)) - set(ids)))
    decoy = max((i for i in ids if i not in eos), key=lambda i: sum(i in f for f in firsts))
    return (eos[0] if count == 1 else list(eos)), decoy


def record(run, eos):
    prompt, alpha, beta, steps = run
    end = next((i + 1 for i, s in enumerate(steps) if s[0] in eos), None)
    tokens, scores, margins, heads, edges = zip(*steps[:end])
    short = lambda xs: [round(x, 9) if math.isfinite(x) else None for x in xs]  # noqa: E731
    return dict(prompt=prompt, alpha=alpha, beta=beta, max_tokens=MAX_TOKENS, tokens=tokens, scores=short(scores),
                margins=short(margins), heads=heads, edges=short(edges),
                finish_reason="stop" if end else "length")  # fmt: skip


def make(name, families, expert, amateur, dtype, amateur_dtype, vocab=None, length=48, shard="1GB", old=False, eos=2):
    seed, folder = zlib.crc32(name.encode()), HERE / name
    vocab = vocab or expert["vocab_size"]
    shutil.rmtree(folder, ignore_errors=True)

    models = [build(family, shape) for family, shape in zip(families, (expert, amateur))]
    randomise(models[0], seed, vocab)
    randomise(models[1], seed + 1, vocab, like=models[0])
    paths = [folder / "expert", folder / "amateur"]
    for model, path, kind in zip(models, paths, (dtype, amateur_dtype)):
        save(model, path, kind, 0, shard, old)
    expert, amateur = map(load, paths)

    lengths = PROMPTS if length == 48 else [5, length - MAX_TOKENS]
    runs = list(continuations(expert, amateur, vocab, lengths, seed + 2))
    stop, decoy = choose_eos(runs, eos)
    save(models[0], paths[0], dtype, stop, shard, old)  # the same weights, now with the stop ids
    save(models[1], paths[1], amateur_dtype, decoy, shard, old)
    stops = [stop] if isinstance(stop, int) else stop
    golden = dict(vocab=vocab, eos=stops, continuations=[record(run, stops) for run in runs])
    (folder / "golden.json").write_text(
        json.dumps(golden, separators=(",", ":")).replace('{"prompt"', '\n{"prompt"').replace("]}]}", "]}\n]}") + "\n"
    )

    expert, amateur = map(load, paths)
    positions = POSITIONS + [p for p in (63, 64, 100, 127, 159) if p < length]
    noise, margin = torch.Generator().manual_seed(seed + 3), 0
    while margin < ROUTING_MARGIN:
        ids = torch.randint(vocab, (2, length), generator=noise)
        expert.routing.clear(), amateur.routing.clear()
        tensors = {
            "input_ids": ids,
            "positions": torch.tensor(positions),
            "expert_logits": logits(expert, ids)[:, positions].contiguous(),
            "amateur_logits": logits(amateur, ids)[:, positions].contiguous(),
        }
        margin = min(expert.routing.margin, amateur.routing.margin)
    tensors |= expert.routing.tensors("expert", len(ids)) | amateur.routing.tensors("amateur", len(ids))
    save_file(tensors, folder / "golden.safetensors")
    (folder / "golden.safetensors").chmod(0o644)
    report(name, folder, golden, tensors)


def report(name, folder, golden, tensors):
    runs = golden["continuations"]
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1000
    least = min(m for r in runs for m in r["margins"] if m is not None)
    heads = [h for r in runs for h in r["heads"] if r["alpha"] > 0]
    spread = [float(tensors[k][..., : golden["vocab"]].std()) for k in ("expert_logits", "amateur_logits")]
    print(
        f"{name:24} {size:4.0f} kB  std {spread[0]:.2f} {spread[1]:.2f}  least margin {least:.4f}  eos {golden['eos']}"
        f"  stops {sum(r['finish_reason'] == 'stop' for r in runs)}/{len(runs)}"
        f"  tokens {sum(len(r['tokens']) for r in runs)} distinct {len({t for r in runs for t in r['tokens']})}"
        f"  heads mean {sum(heads) / len(heads):.1f}, of one {sum(h == 1 for h in heads) / len(heads):.0%}",
        flush=True,
    )


def check_versions():
    """README.md names the packages that wrote the goldens."""
    readme = Path(__file__).with_name("README.md").read_text()
    for package in (torch, transformers, safetensors):
        version = f"{package.__name__}=={package.__version__.split('+')[0]}"
        if version not in readme:
            sys.exit(f"make_models.py: {version} is not what tests/golden/README.md names; install what it names")


if __name__ == "__main__":
    check_versions()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        make(name, **CASES[name])
