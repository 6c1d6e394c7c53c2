"""Writes tokenizers/<name>/: tokenizers in the layouts of Hugging Face, and what transformers makes of the corpus with them.

    python make_tokenizers.py [--smollm2 FOLDER] [--gemma3 FOLDER]

README.md describes the files. The folders hold the real tokenizers; without them their goldens stay as they are.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

import corpus

HERE = Path(__file__).parent / "tokenizers"
TEMPLATES = Path(__file__).parent / "templates"
CONVERSATIONS = list(corpus.conversations())
PLAIN = [text for group in corpus.TEXTS.values() for text in group if len(text) < 200]

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")
GPT4_SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|"
    r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


def special(*texts):
    return [AddedToken(text, special=True, normalized=False) for text in texts]


def ordinary(*texts):
    return [AddedToken(text, special=False, normalized=False) for text in texts]


def learn(size, normalizer, pre_tokenizer, alphabet):
    """BPE over the corpus: its pieces by id, and its merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, max_token_length=16)
    texts = sorted({m["content"] for c in CONVERSATIONS for m in c["messages"] if isinstance(m["content"], str)})
    tokenizer.train_from_iterator([t for t in texts if len(t) < 400], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(m) for m in model["merges"]]


def byte_level(split, size, added, normalizer=None, whole_words=(), **model):
    """Byte-level BPE; `whole_words` are in the vocabulary, but no merge makes them (for `ignore_merges`)."""
    steps = [
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    splitter = pre_tokenizers.Sequence(steps)
    pieces, merges = learn(size, normalizer, splitter, pre_tokenizers.ByteLevel.alphabet())
    pieces += [piece for word in whole_words for piece in [steps[1].pre_tokenize_str(word)[0][0]] if piece not in pieces]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, **model))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.add_tokens(added)
    return tokenizer


def opens_with(tokenizer, bos, before=()):
    template = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    tokenizer.post_processor = processors.Sequence([*before, template]) if before else template
    return tokenizer


def llama3():
    names = ["begin_of_text", "end_of_text", "reserved_special_token_0", "finetune_right_pad_id"]
    names += ["start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag"]
    added = special(*(f"<|{name}|>" for name in names))
    words = [" contrastive", "Unreachable", " tokenizers", "2024", "人工智能的对比解码是什么", "\n\n\n\n\n\n\n\n"]
    tokenizer = byte_level(LLAMA3_SPLIT, 900, added, whole_words=words, ignore_merges=True)
    config = dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", clean_up_tokenization_spaces=True,
                  tokenizer_class="PreTrainedTokenizerFast", model_max_length=131072)  # fmt: skip
    return opens_with(tokenizer, "<|begin_of_text|>", [processors.ByteLevel(trim_offsets=False)]), config


def qwen3():
    added = special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>")
    added += special("<|box_start|>", "<|box_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    added += ordinary("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_suffix|>", "<|repo_name|>")
    added += ordinary("<tool_response>", "</tool_response>", "<think>", "</think>")
    config = dict(add_bos_token=False, add_prefix_space=False, bos_token=None, eos_token="<|im_end|>", errors="replace",
                  pad_token="<|endoftext|>", unk_token=None, tokenizer_class="Qwen2Tokenizer", split_special_tokens=False,
                  clean_up_tokenization_spaces=False, model_max_length=131072)  # fmt: skip
    return byte_level(QWEN_SPLIT, 1100, added, normalizers.NFC()), config


def gemma3():
    first = special("<pad>", "<eos>", "<bos>", "<unk>", "<mask>") + ordinary("[multimodal]")
    first += special("<unused0>", "<unused1>", "<start_of_turn>", "<end_of_turn>")
    first += ordinary(*("\n" * n for n in range(1, 9)), *("▁" * n for n in range(2, 9)))
    first += ordinary("<table>", "</table>", "<tr>", "<td>", "<h1>", "\t", "\t\t", "\t\t\t", "\t\t\t\t")
    last = special("<start_of_image>", "<end_of_image>")
    spaces = normalizers.Replace(" ", "▁")
    pieces, merges = learn(900, spaces, pre_tokenizers.Split("▁", "merged_with_next"), [])
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    order = dict.fromkeys([*(t.content for t in first), *byte_pieces, *pieces, *(t.content for t in last)])
    vocab = {piece: i for i, piece in enumerate(order)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = spaces
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens(first + last)
    config = dict(add_bos_token=True, add_eos_token=False, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
                  unk_token="<unk>", tokenizer_class="GemmaTokenizer", spaces_between_special_tokens=False,
                  clean_up_tokenization_spaces=False, model_max_length=1000000000000000019884624838656)  # fmt: skip
    return opens_with(tokenizer, "<bos>"), config


def olmo3():
    added = special("<|endoftext|>", "<|fim_prefix|>", "<|im_start|>", "<|im_end|>", "<|endofprompt|>", "<|pad|>")
    added += ordinary("<functions>", "</functions>")
    token = {"__type": "AddedToken", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    config = dict(add_prefix_space=False, bos_token="<|endoftext|>", eos_token={**token, "content": "<|im_end|>"},
                  pad_token="<|pad|>", unk_token="<|endoftext|>", tokenizer_class="PreTrainedTokenizerFast",
                  clean_up_tokenization_spaces=False, model_max_length=65536)  # fmt: skip
    return byte_level(GPT4_SPLIT, 700, added), config


TRAINED = {"llama3": llama3, "qwen3": qwen3, "gemma3": gemma3, "olmo3": olmo3}
IN_CONFIG = {"llama3", "olmo3"}  # their template is in tokenizer_config.json, the others' in chat_template.jinja
KWARGS = {
    "llama3": [{}, {"date_string": "26 Jul 2024"}, {"tools": corpus.TOOLS}, {"date_format": "a day, 100%%"}],
    "qwen3": [{}, {"enable_thinking": False}, {"enable_thinking": True}, {"tools": corpus.TOOLS}],
    "olmo3": [{}, {"tools": corpus.TOOLS}, {"summary": {"mood": "calm", "colour": "Grün"}}],
}
EVERY_KWARGS = len(corpus.SHAPES) + 4  # the first conversations are rendered under all kwargs, the others under one (no tools)


def write_tokenizer(folder, tokenizer, config, template):
    """A folder as published on the hub: tokenizer.json, tokenizer_config.json, special_tokens_map.json, the template."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(compact(json.loads(tokenizer.to_str())))
    added = {str(i): json.loads(compact(vars_of(t))) for i, t in sorted(tokenizer.get_added_tokens_decoder().items())}
    config = {"added_tokens_decoder": added, **config}
    if folder.name in IN_CONFIG:
        config["chat_template"] = template
    else:
        (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    names = {k: v for k, v in config.items() if k in ("bos_token", "eos_token", "pad_token", "unk_token") and v}
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")


def vars_of(token):
    return {k: getattr(token, k) for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")}


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write_lines(path, rows):
    path.write_text("".join(compact(row) + "\n" for row in rows), newline="\n")


def render(tokenizer, messages, kwargs):
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **kwargs)
    except Exception:  # raise_exception, an undefined value, a list where a string is wanted: all are errors to the user
        return {"error": True}
    return {"text": text, "ids": tokenizer(text, add_special_tokens=False).input_ids}


def id_sequences(tokenizer, dice):
    """What a model may generate: texts, texts cut at both ends (through characters too), and noise."""
    texts = [text for text in PLAIN if text]
    for text in texts:
        yield tokenizer(text, add_special_tokens=False).input_ids
    for text in texts[::2]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        yield ids[dice.randint(0, 2) : max(1, len(ids) - dice.randint(0, 3))]
    vocab = tokenizer.get_vocab()
    ids, added = sorted(vocab.values()), sorted(tokenizer.added_tokens_decoder)
    fallback = [i for piece, i in vocab.items() if piece.startswith("<0x") and len(piece) == 6]
    single_bytes = sorted(fallback or [i for piece, i in vocab.items() if len(piece) == 1])
    for rare in (ids, single_bytes, added):
        for _ in range(30):
            yield [dice.choice(rare if dice.random() < 0.5 else ids) for _ in range(dice.randint(1, 40))]


def expect(name, source, template=None):
    """Writes the three goldens of the tokenizer in `source`; tokenizer.json alone must give the same ids."""
    folder = HERE / name
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = template or tokenizer.chat_template
    raw = Tokenizer.from_file(str(Path(source) / "tokenizer.json"))

    options, rows = KWARGS.get(name, [{}]), []
    short = [kwargs for kwargs in options if "tools" not in kwargs]
    for i, conversation in enumerate(CONVERSATIONS):
        for kwargs in options if i < EVERY_KWARGS else [short[i % len(short)]]:
            row = {"conversation": i, "kwargs": kwargs, **render(tokenizer, conversation["messages"], kwargs)}
            assert "error" in row or row["ids"] == raw.encode(row["text"], add_special_tokens=False).ids
            rows.append(row)
    plain = [{"text": text, "ids": tokenizer(text).input_ids} for text in PLAIN]
    assert all(row["ids"] == raw.encode(row["text"]).ids for row in plain)
    decoded = []
    for ids in id_sequences(tokenizer, random.Random(7)):
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert text == raw.decode(ids, skip_special_tokens=True)
        decoded.append({"ids": ids, "decoded": text})

    for file, lines in (("expected", rows), ("expected_plain", plain), ("expected_decoded", decoded)):
        write_lines(folder / f"{file}.jsonl", lines)
    errors, partial = sum("error" in row for row in rows), sum("\ufffd" in row["decoded"] for row in decoded)
    print(f"{name:12} vocabulary {len(tokenizer)}, rendered {len(rows) - errors} errors {errors}, plain {len(plain)}, "
          f"decoded {len(decoded)} with U+FFFD {partial}")  # fmt: skip


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--smollm2", help="folder of SmolLM2-135M-Instruct: its tokenizer is copied, made compact")
    options.add_argument("--gemma3", help="folder of Gemma 3 270M: its tokenizer is used, not copied")
    options = options.parse_args()
    HERE.mkdir(exist_ok=True)
    write_lines(HERE.parent / "conversations.jsonl", CONVERSATIONS)
    for name, build in TRAINED.items():
        shutil.rmtree(HERE / name, ignore_errors=True)
        write_tokenizer(HERE / name, *build(), (TEMPLATES / f"{name}.jinja").read_text())
        expect(name, HERE / name)
    if options.smollm2:
        source, folder = Path(options.smollm2), HERE / "smollm2"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "tokenizer.json").write_text(compact(json.loads((source / "tokenizer.json").read_text())))
        for file in ("tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(source / file, folder / file)
        expect("smollm2", folder)
    if options.gemma3:
        folder, template = HERE / "gemma3-real", (TEMPLATES / "gemma3.jinja").read_text()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "chat_template.jinja").write_text(template)
        expect("gemma3-real", options.gemma3, template)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main()
