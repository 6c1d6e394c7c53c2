"""Compares greedy continuations of real models with those of transformers in f32, on the CPU.

    python tests/real_models.py PROMPTS MODEL... [--codit target/release/codit] [--count 32] [--max-tokens 48]

PROMPTS is JSONL with "instruction" in every line, MODEL a checkpoint's folder. A model with a chat template is given
conversations, another plain text. A continuation agrees where text, number of tokens and every token's score (its
log-probability, within 1e-3) do. One that does not is looked at where it first differs: if transformers' best two
logits are there nearer than 1e-3, it is a tie. Exit code 1 if any other differs. Needs torch and transformers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TIE, SCORE = 1e-3, 1e-3


def codit(program, model, prompts, max_tokens, folder):
    """A record a prompt, by id."""
    settings = "--alpha 0 --beta 0 --temperature 0 --seed 1 --device cpu".split()
    paths = [Path(folder) / name for name in ("in.jsonl", "out.jsonl")]
    paths[0].write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    arguments = [program, "synth", paths[0], "-o", paths[1], "--expert", model, "--max-tokens", str(max_tokens)]
    subprocess.run([*map(str, arguments), *settings], check=True, stderr=subprocess.DEVNULL)
    return {record["id"]: record for record in map(json.loads, paths[1].open())}


def ids_of(tokenizer, prompt):
    if "prompt" in prompt:
        return tokenizer(prompt["prompt"]).input_ids
    messages = [{"role": "user", "content": prompt["instruction"]}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


@torch.inference_mode()
def greedy(model, ids, max_tokens, stops):
    """[(token, log-probability, best logit minus second best)]"""
    steps, cache, feed = [], None, ids
    while len(steps) < max_tokens and not (steps and steps[-1][0] in stops):
        out = model(torch.tensor([feed]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits, cache = out.logits[0, -1].double(), out.past_key_values
        best = logits.topk(2).values
        token = int(logits.argmax())
        steps.append((token, float(logits.log_softmax(-1)[token]), float(best[0] - best[1])))
        feed = [token]
    return steps


def compare(tokenizer, steps, record):
    """What became of one prompt: "same", "tie" or what differs."""
    tokens, scores, margins = zip(*steps)
    found = record.get("score") or []
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    near = [abs(a - b) <= SCORE for a, b in zip(scores, found)]
    if len(near) == len(scores) == len(found) and all(near) and text == record["response"]:
        return "same"
    place = near.index(False) if False in near else len(near) - 1
    # A tied token has nearly the score of the other: the step before the first that differs may be the one.
    nearest = min(margins[max(place - 1, 0) : place + 1])
    return "tie" if nearest < TIE else f"differs at token {place}, margins {nearest:.4f} and more: {record}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--codit", default="target/release/codit")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=48)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    lines = [json.loads(line) for line in args.prompts.open()][: args.count]
    is_good = True
    for folder in args.models:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        field = "instruction" if tokenizer.chat_template else "prompt"
        prompts = [{"id": str(i), field: line["instruction"]} for i, line in enumerate(lines)]
        with tempfile.TemporaryDirectory() as place:
            records = codit(args.codit, folder, prompts, args.max_tokens, place)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        stops = model.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        counts, tokens, ties, error = {}, 0, 0, 0.0
        for prompt in prompts:
            steps = greedy(model, ids_of(tokenizer, prompt), args.max_tokens, stops)
            record = records[prompt["id"]]
            verdict = compare(tokenizer, steps, record)
            counts[verdict.split()[0]] = counts.get(verdict.split()[0], 0) + 1
            if verdict == "same":
                error = max([error, *(abs(a[1] - b) for a, b in zip(steps, record["score"]))])
            elif verdict != "tie":
                is_good = False
                print(f"  {prompt['id']}: {verdict}")
            tokens += len(steps)
            ties += sum(margin < TIE for *_, margin in steps)
        print(f"{Path(folder).name}: {counts}, {tokens} tokens, of which {ties} have a margin under {TIE};"
              f" largest difference of a score {error:.1e}", flush=True)  # fmt: skip
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
