#!/usr/bin/env python3
"""Writes seeds/: a tiny checkpoint, and the files from which the fuzz targets start.

    python fuzz/make_seeds.py        needs numpy, safetensors and tokenizers

Reproducers of faults that were found lie beside these as seeds/TARGET/found-*; this script leaves them alone.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
SEEDS = HERE / "seeds"
GOLDEN = HERE.parent / "tests" / "golden"
VOCABULARY = ["<unk>", "<bos>", "<eos>", "<pad>", *"abcdefghijklmnopqrstuvwxyz .\n?"]
SPECIAL = VOCABULARY[:4]
WIDTH, HEADS, HEAD_DIM = 16, 2, 8
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float16",
}
TEMPLATE = "{% for m in messages %}<bos>{{ m.role }} {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a {% endif %}"
CORPUS = ["the quick brown fox jumps over the lazy dog", "what is three plus four?", "a b c\n\nd  e", "née Ünïcode 東京 🙂"]


def write(path, content):
    path = SEEDS / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def weights(dtype="float16", lm_head=False):
    draw = np.random.default_rng(1)
    matrix = lambda rows, columns: (draw.standard_normal((rows, columns)) / 4).astype(dtype)
    one = lambda: np.ones(WIDTH, dtype)
    layer = "model.layers.0."
    tensors = {
        "model.embed_tokens.weight": matrix(len(VOCABULARY), WIDTH),
        "model.norm.weight": one(),
        layer + "input_layernorm.weight": one(),
        layer + "post_attention_layernorm.weight": one(),
        **{layer + f"self_attn.{name}_proj.weight": matrix(WIDTH, WIDTH) for name in "qkvo"},
        **{layer + f"mlp.{name}_proj.weight": matrix(WIDTH, WIDTH) for name in ("gate", "up", "down")},
    }
    if lm_head:
        tensors["lm_head.weight"] = matrix(len(VOCABULARY), WIDTH)
    return tensors


def tokenizers():
    """One tokenizer of each model, and of the parts that the families use."""
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}

    def special(tokenizer):
        tokenizer.add_special_tokens(SPECIAL)
        return json.loads(tokenizer.to_str())

    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    words.decoder = decoders.Fuse()
    words.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A $B", [("<bos>", 1)])
    yield "word_level", special(words)

    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    byte_level.normalizer = normalizers.NFC()
    byte_level.decoder = decoders.ByteLevel()
    byte_level.post_processor = processors.ByteLevel(trim_offsets=False)
    byte_level.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=80, special_tokens=SPECIAL, show_progress=False))
    yield "byte_level", json.loads(byte_level.to_str())

    spiece = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    spiece.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spiece.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    spiece.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=60, special_tokens=SPECIAL, show_progress=False))
    yield "sentencepiece_bpe", json.loads(spiece.to_str())

    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=50, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    unigram.train_from_iterator(CORPUS, trainer)
    yield "unigram", json.loads(unigram.to_str())

    pieces = Tokenizer(models.WordPiece({**vocabulary, **{"##" + c: len(VOCABULARY) + i for i, c in enumerate("abcde")}}, unk_token="<unk>"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    pieces.post_processor = processors.BertProcessing(("<eos>", 2), ("<bos>", 1))
    yield "word_piece", special(pieces)


def configs():
    yield "tiny", CONFIG
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 0, "beta_fast": 32.0}
    yield "rope", {**CONFIG, "rope_parameters": rope | {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}
    for folder in sorted(GOLDEN.glob("models/*/expert")):
        yield folder.parent.name, json.loads((folder / "config.json").read_text())


def records(count):
    metadata = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 8, "contrastive_decoding": True, "alpha": 0.01, "beta": 1.0,
                "expert_model_id": "e", "amateur_model_id": None}  # fmt: skip
    for index in range(count):
        record = {"id": f"q{index}", "is_completed": True, "instruction": f"say {index}", "response": "näx", "res_metadata": metadata,
                  "score": [-0.5, -1.25]}  # fmt: skip
        if index == 2:
            record |= {"is_completed": False, "response": "", "score": [], "error": "the prompt has no tokens"}
        yield json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def rows():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": [1, None, 2.5e-8]}}}
    yield "instruction", [{"id": 1, "instruction": "say a", "input": "b", "source": {"k": [1, 2]}}, {"id": "1b", "instruction": "näx"}]
    yield "prompt", [{"prompt": "once upon"}, {"id": -5, "prompt": "a\n\tb"}]
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    yield "messages", [{"id": "m", "messages": turns}]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}]
    asked = [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "r"},
             {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"}]  # fmt: skip
    yield "tools", [{"messages": [*asked, turns[1]], "tools": tools, "documents": [{"title": "t", "text": "x"}]}, {"messages": asked}]
    yield "conversations", [{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}, {"prompt": turns}]


TEMPLATES = {
    "tiny": TEMPLATE,
    "cycle": "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns.x is defined }}",
    "blocks": "{%- macro f(a, b=2) -%}{{ a }}{{ b }}{%- endmacro %}{% set t %}{% for m in messages if m.content %}"
    "{% if loop.first %}{% continue %}{% endif %}{{ f(m.content | trim) }}{% endfor %}{% endset %}{{ t | upper }}"
    "{% filter indent(2) %}{{ messages | tojson }}{% endfilter %}",
    "strings": "{{ messages[0].content.split(' ')[-1].strip() ~ '%05.2f' | format(3.14159) }}{{ 'a' * 10 | int }}"
    "{{ messages | map(attribute='role') | list | join(',') }}{{ range(10) | batch(3) | list }}{{ strftime_now('%Y-%m-%d %w') }}",
    "refuses": "{% if messages | length % 2 %}{{ raise_exception('roles must alternate: ' + messages[0].role) }}{% endif %}",
    "tools": "{% if tools %}{% for tool in tools %}{{ tool | tojson(indent=2) }}{% endfor %}{% endif %}"
    "{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ c.function.arguments | items | sort }}{% endfor %}{% else %}{{ m['content'] or '' }}{% endif %}{% endfor %}",
    "generation": "{% generation %}{{ bos_token }}{% endgeneration %}{% raw %}{% generation %}{% endraw %}{# note #}\r\nend\r\n",
}


def main():
    for folder in SEEDS.glob("*/"):
        for file in folder.iterdir():
            if not file.name.startswith("found-"):
                file.unlink()
    by_model = dict(tokenizers())
    dump = lambda value: json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    described = {"bos_token": "<bos>", "eos_token": {"content": "<eos>", "lstrip": False}, "pad_token": None, "model_max_length": 64}
    added = {"2": {"content": "<eos>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}}
    named = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": TEMPLATES["tools"]}]

    write("base/config.json", dump(CONFIG))
    write("base/generation_config.json", dump({"eos_token_id": [2]}))
    write("base/model.safetensors", save(weights()))
    write("base/tokenizer.json", dump(by_model["word_level"]))
    write("base/tokenizer_config.json", dump(described))
    write("base/chat_template.jinja", TEMPLATE)

    write("safetensors/tiny", save(weights()))
    write("safetensors/f32-head", save(weights("float32", lm_head=True)))
    where = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(weights())}
    write("index/two-shards", dump({"metadata": {"total_size": 5000}, "weight_map": where}))
    for name, config in configs():
        write(f"config/{name}", dump(config))
    write("generation_config/list", dump({"eos_token_id": [2, 7], "temperature": 0.6, "bos_token_id": 1}))
    for name, tokenizer in by_model.items():
        write(f"tokenizer/{name}", dump(tokenizer))
    write("tokenizer_config/plain", dump(described))
    write("tokenizer_config/added", dump({**described, "added_tokens_decoder": added, "extra_special_tokens": {"image_token": "a"}}))
    write("tokenizer_config/named", dump({**described, "chat_template": named}))
    for name, template in TEMPLATES.items():
        write(f"template/{name}", template)
    for file in sorted((GOLDEN / "templates").iterdir()):
        shutil.copy(file, SEEDS / "template" / file.stem)
    for name, group in rows():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in group)
        write(f"lines/{name}", lines)
        for index, row in enumerate(group):
            if "messages" in row:
                write(f"messages/{name}-{index}", json.dumps(row, ensure_ascii=False) + "\n")
    lines = list(records(4))
    write("resume/whole", "".join(lines))
    write("resume/torn", "".join(lines)[:-40])
    write("resume/nul", "".join(lines[:2]).encode() + b"\0" * 64)
    fingerprint = {"id": "e", "files": {"config.json": "00"}}
    manifest = {"version": "0.1.0", "input": {"path": "in", "sha256": "00", "prompts": 6}, "expert": fingerprint, "amateur": None, "seed": 7,
                "samples": 1, "settings": {"beta": 1.0, "system": None}, "notes": {"threads": 2}}  # fmt: skip
    write("manifest/whole", dump(manifest))


main()
