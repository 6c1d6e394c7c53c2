"""Contrastive decoding of two models as a plain transformers loop: what one would write without codit.

Two causal models with KV caches read the same 16 prompts of 64 tokens (one length, so no padding and no attention
mask) and generate 128 tokens a row, end-of-sequence ignored. The loop is written to be fast: only the last position's
logits, no normaliser that cancels out, one uniform number a row instead of one a vocabulary entry.

    python transformers_loop.py --expert DIR --amateur DIR --dtype bf16

Prints one JSON line: medians over the repeats. `tokens_per_s` counts the generated tokens over prefill and decode;
`decode_tokens_per_s` leaves out the prefill and the token it gives.
"""

import argparse
import json
import math
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

from prompts import prompts

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def sample(expert_logits, amateur_logits, alpha, beta, temperature):
    """One token a row from softmax((z_e - beta * z_a) / T) over the expert's plausible tokens.

    Each model's log-normaliser is a constant of its row, so neither the head nor the softmax needs it.
    """
    expert = expert_logits.float()
    head = expert >= expert.amax(-1, keepdim=True) + math.log(alpha)
    scores = (expert - beta * amateur_logits.float()) / temperature
    cumulative = scores.masked_fill_(~head, -math.inf).softmax(-1).cumsum(-1)
    uniform = torch.rand(len(cumulative), 1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, uniform, right=True).clamp_(max=cumulative.shape[1] - 1)


def new_cache(model, kind, rows, length):
    if kind == "static":
        return StaticCache(config=model.config, max_cache_len=length, max_batch_size=rows)
    return DynamicCache(config=model.config)


@torch.inference_mode()
def generate(models, input_ids, max_tokens, alpha, beta, temperature, cache_kind):
    """Returns (tokens, prefill seconds, decode seconds, decode CPU seconds). The first token counts as prefill."""
    rows, prompt_len = input_ids.shape
    caches = [new_cache(model, cache_kind, rows, prompt_len + max_tokens) for model in models]

    def step(ids):
        logits = [
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
            for model, cache in zip(models, caches)
        ]
        return sample(*logits, alpha, beta, temperature)

    start = time.perf_counter()
    token = step(input_ids)
    prefilled, cpu_prefilled = time.perf_counter(), time.process_time()
    tokens = [token]
    for _ in range(max_tokens - 1):
        token = step(token)
        tokens.append(token)
    done, cpu_done = time.perf_counter(), time.process_time()
    return torch.cat(tokens, 1), prefilled - start, done - prefilled, cpu_done - cpu_prefilled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expert", required=True)
    parser.add_argument("--amateur", required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--alpha", type=float, default=0.01)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", choices=("dynamic", "static"), default="dynamic")
    parser.add_argument("--compile", action="store_true", help="torch.compile the forward passes")
    parser.add_argument("--profile", action="store_true", help="print where one decode step spends its time, then exit")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    models = [
        AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[args.dtype], attn_implementation="sdpa").eval()
        for path in (args.expert, args.amateur)
    ]
    if args.compile:
        for model in models:
            model.forward = torch.compile(model.forward, dynamic=args.cache == "dynamic")
    input_ids = torch.tensor(prompts(args.expert, args.rows, args.prompt_tokens)[1])
    method = (args.alpha, args.beta, args.temperature, args.cache)

    # The cold pass: oneDNN's primitives and, with --compile, the graphs. A static cache's length is part of its shape,
    # so a compiled run must be warmed at the full length.
    start = time.perf_counter()
    generate(models, input_ids, args.max_tokens if args.compile else 4, *method)
    warm_up_s = time.perf_counter() - start

    if args.profile:
        profile(models, input_ids, method)
        return

    prefills, decodes, cpus, totals = [], [], [], []
    for _ in range(args.repeats):
        tokens, prefill, decode, cpu = generate(models, input_ids, args.max_tokens, *method)
        assert tokens.shape == (args.rows, args.max_tokens)
        prefills.append(prefill)
        decodes.append(decode)
        cpus.append(cpu)
        totals.append(prefill + decode)

    steps = args.max_tokens - 1
    total, decode = statistics.median(totals), statistics.median(decodes)
    print(
        json.dumps(
            {
                "engine": "transformers",
                "dtype": args.dtype,
                "cache": args.cache,
                "compile": args.compile,
                "threads": args.threads,
                "torch": torch.__version__,
                "repeats": args.repeats,
                "warm_up_s": round(warm_up_s, 2),
                "prefill_s": round(statistics.median(prefills), 4),
                "decode_s": round(decode, 4),
                "total_s": round(total, 4),
                "total_s_all": [round(t, 4) for t in totals],
                "ms_per_step": round(1000 * decode / steps, 2),
                "cpu_ms_per_step": round(1000 * statistics.median(cpus) / steps, 2),
                "tokens_per_s": round(args.rows * args.max_tokens / total, 1),
                "decode_tokens_per_s": round(args.rows * steps / decode, 1),
                "best_tokens_per_s": round(args.rows * args.max_tokens / min(totals), 1),
            }
        )
    )


def profile(models, input_ids, method, max_tokens=32):
    """Self CPU time by operator, over the prefill and `max_tokens - 1` decode steps."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as prof:
        _, prefill, decode, _ = generate(models, input_ids, max_tokens, *method)
    print(f"prefill {prefill:.3f} s, {1000 * decode / (max_tokens - 1):.2f} ms a decode step, profiled")
    print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


if __name__ == "__main__":
    main()
