"""Writes bf16.json: how far transformers in bf16 is from transformers in f32. Prints the same for the embedded pair.

    python make_bf16.py

The distance is `||x - reference|| / ||reference||`. For every case and model it is that of the logits in
`golden.safetensors`; it bounds how far codit in bf16 may be from the same logits. For the embedded pair it is that of the
scores which `codit doctor` compares; `src/doctor/pair.rs` holds it.
"""

import json
import math
import re
from pathlib import Path

import torch
from make_models import CASES, HERE
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = HERE.parents[2]
ROLES = ("expert", "amateur")
ALPHA, BETA, MAX_TOKENS = 0.1, 0.5, 24  # as in src/doctor/pair.rs


def load(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def distance(found, reference):
    return round(float((found - reference).norm() / reference.norm()), 6)


@torch.no_grad()
def of_case(case):
    golden = load_file(HERE / case / "golden.safetensors")

    def of_model(role):
        model = load(HERE / case / role, torch.bfloat16)
        found = model(golden["input_ids"], use_cache=False).logits[:, golden["positions"]]
        return distance(found.double(), golden[f"{role}_logits"].double())

    return {role: of_model(role) for role in ROLES}


@torch.no_grad()
def best(pair, ids):
    """The score of the best token after each of `ids`, and the token."""
    expert, amateur = (m(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1) for m in pair)
    plausible = expert >= math.log(ALPHA) + expert.max(-1, keepdim=True).values
    return (expert - BETA * amateur).masked_fill(~plausible, -math.inf).log_softmax(-1).max(-1)


def of_embedded_pair():
    source = (ROOT / "src/doctor/pair.rs").read_text()
    instructions = re.findall(r'^    "(.*)",$', source, re.MULTILINE)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "embedded/expert")
    f32, bf16 = ([load(ROOT / "embedded" / role, dtype) for role in ROLES] for dtype in (torch.float32, torch.bfloat16))
    stop_tokens = f32[0].generation_config.eos_token_id
    scores = {"f32": [], "bf16": []}
    for instruction in instructions:
        messages = [{"role": "user", "content": instruction}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = list(prompt)
        while len(ids) < len(prompt) + MAX_TOKENS and ids[-1] not in stop_tokens:
            ids.append(int(best(f32, ids).indices[-1]))
        for name, pair in (("f32", f32), ("bf16", bf16)):
            scores[name].append(best(pair, ids[:-1]).values[len(prompt) - 1 :])
    return distance(torch.cat(scores["bf16"]), torch.cat(scores["f32"]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    lines = [f'"{case}": {json.dumps(of_case(case))}' for case in sorted(CASES)]
    (HERE.parent / "bf16.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"embedded pair: {of_embedded_pair()}")
