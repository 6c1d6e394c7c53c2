"""Prompts of an exact token count, the same for every engine that is measured."""

import json

from tokenizers import Tokenizer

WORDS = """
water light story garden letter music window river market bridge winter morning silver teacher school
answer question machine paper simple number circle engine forest island family doctor kitchen people
history science language picture summer village mountain office money energy sister brother animal
weather reason memory future object system method table ocean planet
""".split()


def prompts(model_dir, rows=16, tokens=64):
    """`rows` different texts that `model_dir`'s tokenizer encodes to exactly `tokens` ids each.

    Returns (texts, ids). A word is taken only where it adds exactly one id, so this works for any tokenizer.
    """
    tokenizer = Tokenizer.from_file(f"{model_dir}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts, all_ids = [], []
    for row in range(rows):
        text = WORDS[row % len(WORDS)].capitalize()
        ids = tokenizer.encode(text).ids
        skipped, i = 0, row
        while len(ids) < tokens:
            i += 1 + row % 7
            longer = f"{text} {WORDS[i % len(WORDS)]}"
            longer_ids = tokenizer.encode(longer).ids
            if len(longer_ids) == len(ids) + 1:
                text, ids, skipped = longer, longer_ids, 0
            else:
                skipped += 1
                if skipped > len(WORDS):
                    raise ValueError("none of the words is one token in this tokenizer")
        texts.append(text)
        all_ids.append(ids)
    return texts, all_ids


def write_prompts(path, texts):
    """Writes the texts as codit's prompt rows."""
    with open(path, "w") as out:
        for row, text in enumerate(texts):
            out.write(json.dumps({"id": f"row{row}", "prompt": text}) + "\n")
