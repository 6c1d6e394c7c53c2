"""Measures how bf16 changes the contrast of a pair in transformers, with the columns of `cargo bench --bench formats`.

    codit synth PROMPTS --expert EXPERT --amateur AMATEUR --dtype float32 --limit 32 --max-tokens 96 -o DATASET
    python formats.py --expert EXPERT --amateur AMATEUR DATASET

Both models read the dataset's responses in f32 and in bf16; the distribution of each next token is compared.
"""

import argparse
import json
import math

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

METHODS = [(0.01, 1.0), (0.1, 1.0), (0.0, 0.0)]  # alpha, beta


def texts(tokenizer, dataset):
    """(token ids of prompt and response, length of the prompt) of each record."""
    for line in open(dataset, encoding="utf-8"):
        record = json.loads(line)
        messages = record.get("messages") or [{"role": "user", "content": record["instruction"]}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, record["response"])]
        if ids[1]:
            yield torch.tensor([ids[0] + ids[1]]), len(ids[0])


@torch.no_grad()
def log_probabilities(model, ids, prompt):
    """[response tokens, vocabulary], f64."""
    return model(ids, use_cache=False).logits[0, prompt - 1 : -1].double().log_softmax(-1)


def distribution(expert, amateur, alpha, beta):
    """Logarithms of the contrastive distribution: -inf outside the plausible set."""
    if alpha > 0:
        threshold = expert.max(-1, keepdim=True).values + math.log(alpha)
        return (expert - beta * amateur).masked_fill(expert < threshold, -math.inf).log_softmax(-1)
    return (expert - beta * amateur).log_softmax(-1)


def compare(p, q):
    """Whether the greedy tokens agree, KL within both plausible sets, p's mass outside q's set, total variation."""
    both = p.isfinite() & q.isfinite()
    masses = [x.exp().masked_fill(~both, 0).sum(-1, keepdim=True).clamp(max=1) for x in (p, q)]
    ratio = ((p - masses[0].log()) - (q - masses[1].log())).masked_fill(~both, 0)
    divergence = (p.exp() / masses[0] * ratio).masked_fill(~both, 0).sum(-1).clamp(min=0)
    variation = (p.exp() - q.exp()).abs().sum(-1) / 2
    return torch.stack([(p.argmax(-1) == q.argmax(-1)).double(), divergence, 1 - masses[0][:, 0], variation], -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--expert", required=True)
    parser.add_argument("--amateur", required=True)
    parser.add_argument("dataset")
    args = parser.parse_args()
    folders = (args.expert, args.amateur)
    load = lambda folder, dtype: AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()  # noqa: E731
    pairs = [[load(folder, dtype) for folder in folders] for dtype in (torch.float32, torch.bfloat16)]
    found = [[] for _ in METHODS]
    for ids, prompt in texts(AutoTokenizer.from_pretrained(args.expert), args.dataset):
        f32, bf16 = ([log_probabilities(model, ids, prompt) for model in pair] for pair in pairs)
        for method, (alpha, beta) in enumerate(METHODS):
            found[method].append(compare(distribution(*f32, alpha, beta), distribution(*bf16, alpha, beta)))
    print(f"{len(found[0])} answers, {sum(map(len, found[0]))} tokens\n")
    print("| | alpha | beta | same greedy token | KL median | mean | 99th percentile | mass lost | total variation |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (alpha, beta), rows in zip(METHODS, found):
        agrees, divergence, lost, variation = torch.cat(rows).T
        print(
            f"| transformers, bf16 | {alpha} | {beta} | {100 * agrees.mean():.1f}% | {divergence.median():.4f} "
            f"| {divergence.mean():.4f} | {divergence.quantile(0.99):.3f} | {100 * lost.mean():.2f}% | {variation.mean():.3f} |"
        )


if __name__ == "__main__":
    main()
