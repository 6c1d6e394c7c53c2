"""Measures codit beside its peers on one machine, the same work for each: 16 prompts of 64 tokens, 128 new tokens a row.

    python compare.py --expert DIR --amateur DIR                                  codit and the transformers loop
    python compare.py ... --llama-batched-bench PATH --gguf-expert FILE --gguf-amateur FILE
    python compare.py ... --skip codit                                            the peers alone

Repetitions are interleaved (A B C A B C ...), so that a noisy machine is noisy for all. Prints a table of medians and
writes JSON. The columns:

- tok/s: generated tokens over prefill and decode, model loading left out.
- decode tok/s: generated tokens, without each row's first, over the decode phase.
- prefill s: the seconds before the decode phase.
- ratio: the tok/s of codit (`--dtype auto`) over this engine's; without codit, each engine's tok/s over the first one's.

llama.cpp has no contrastive decoding. Its own batched benchmark runs each model by itself; a pair takes the sum of the two
times. It neither samples nor combines logits, so this is an upper bound of what it could do.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

from prompts import prompts, write_prompts

HERE = os.path.dirname(os.path.abspath(__file__))


def run(command, env=None):
    """Runs a command; returns (standard output, standard error, wall seconds) or raises with what it said."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    wall = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nexit {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return done.stdout, done.stderr, wall


def result(rows, max_tokens, total_s, decode_s):
    return {
        "total_s": total_s,
        "decode_s": decode_s,
        "prefill_s": total_s - decode_s,
        "tokens_per_s": rows * max_tokens / total_s,
        "decode_tokens_per_s": rows * (max_tokens - 1) / decode_s,
        "ms_per_step": 1000 * decode_s / (max_tokens - 1),
    }


def codit_seconds(text):
    """The seconds of "2,048 response tokens in 12.34 s", codit's summary, or None. The one place that knows its format."""
    for line in reversed(text.splitlines()):
        match = re.search(r"[\d,]+ response tokens in ([\d.]+) s", line)
        if match:
            return float(match.group(1))
    return None


def codit(dtype):
    return lambda args: codit_in(dtype, args)


def codit_in(dtype, args):
    """One run of codit, and one of a single token a row, which costs the loading and the prefill but no decoding."""

    def synth(max_tokens):
        with tempfile.TemporaryDirectory() as scratch:
            prompts_path, out = f"{scratch}/prompts.jsonl", f"{scratch}/out.jsonl"
            write_prompts(prompts_path, args.texts)
            stdout, stderr, wall = run(
                [args.codit, "synth", prompts_path, "-o", out, "--expert", args.expert, "--amateur", args.amateur]
                + ["--ignore-eos", "--max-tokens", str(max_tokens), "--max-num-seqs", str(args.rows)]
                + ["--seed", "1", "--device", "cpu", "--dtype", dtype, *args.codit_args.split()]
            )
            with open(out) as records:
                tokens = sum(len(json.loads(line)["score"]) for line in records)
        if tokens != args.rows * max_tokens:
            raise RuntimeError(f"codit gave {tokens} tokens, not {args.rows * max_tokens}\n{stdout}{stderr}")
        return wall, codit_seconds(stdout + stderr)

    wall_one, seconds_one = synth(1)
    wall, seconds = synth(args.max_tokens)
    if seconds is None or seconds_one is None:
        found = result(args.rows, args.max_tokens, wall, wall - wall_one)
        return {**found, "note": "no seconds in codit's summary: total_s is the wall time, loading included"}
    return {**result(args.rows, args.max_tokens, seconds, seconds - seconds_one), "load_s": wall - seconds}


def transformers(dtype):
    def once(args):
        stdout, _, _ = run(
            [sys.executable, f"{HERE}/transformers_loop.py", "--expert", args.expert, "--amateur", args.amateur]
            + ["--dtype", dtype, "--rows", str(args.rows), "--prompt-tokens", str(args.prompt_tokens)]
            + ["--max-tokens", str(args.max_tokens), "--threads", str(args.threads), "--repeats", "1"]
            + args.transformers_args.split(),
            env={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        found = json.loads(stdout.splitlines()[-1])
        return result(args.rows, args.max_tokens, found["total_s"], found["decode_s"])

    return once


def llama_cpp(args):
    prefill_s = decode_s = 0.0
    for gguf in (args.gguf_expert, args.gguf_amateur):
        stdout, stderr, _ = run(
            [args.llama_batched_bench, "-m", gguf, "-npp", str(args.prompt_tokens), "-ntg", str(args.max_tokens)]
            + ["-npl", str(args.rows), "-t", str(args.threads), "-tb", str(args.threads)]
            + ["-c", str(args.rows * (args.prompt_tokens + args.max_tokens)), "--output-format", "jsonl"]
            + args.llama_args.split()
        )
        line = next(line for line in (stdout + stderr).splitlines() if line.lstrip().startswith('{"n_kv_max"'))
        found = json.loads(line)
        prefill_s += found["t_pp"]
        decode_s += found["t_tg"]
    # It decodes one step more than codit, whose first token comes from the prefill's logits.
    decode_s *= (args.max_tokens - 1) / args.max_tokens
    return result(args.rows, args.max_tokens, prefill_s + decode_s, decode_s)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expert", required=True, help="checkpoint directory")
    parser.add_argument("--amateur", required=True, help="checkpoint directory")
    parser.add_argument("--codit", default="target/release/codit", help="the codit program")
    parser.add_argument("--codit-args", default="", help="more arguments for codit, one string")
    parser.add_argument("--transformers-args", default="", help="more arguments for transformers_loop.py, one string")
    parser.add_argument("--llama-batched-bench", help="llama.cpp's llama-batched-bench program")
    parser.add_argument("--gguf-expert")
    parser.add_argument("--gguf-amateur")
    parser.add_argument("--llama-args", default="", help="more arguments for llama-batched-bench, one string")
    parser.add_argument("--skip", nargs="*", default=[], help="engines not to measure, by a word of their name")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2, help="threads of the peers")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", default="compare.json", help="where the figures go")
    args = parser.parse_args()
    args.texts, _ = prompts(args.expert, args.rows, args.prompt_tokens)

    engines = {
        "codit": codit("auto"),
        "codit float32": codit("float32"),
        "transformers bf16": transformers("bf16"),
        "transformers f32": transformers("f32"),
    }
    engines = {name: once for name, once in engines.items() if not {name, *name.split()} & set(args.skip)}
    if args.llama_batched_bench:
        if not (args.gguf_expert and args.gguf_amateur):
            parser.error("--llama-batched-bench needs --gguf-expert and --gguf-amateur")
        engines["llama.cpp (two runs)"] = llama_cpp

    runs = {name: [] for name in engines}
    for repeat in range(args.repeats):
        for name, once in engines.items():
            found = once(args)
            runs[name].append(found)
            print(f"{repeat + 1}/{args.repeats} {name}: {found['tokens_per_s']:.1f} tok/s", file=sys.stderr, flush=True)

    def median(name, key):
        return statistics.median(found[key] for found in runs[name])

    first = next(iter(engines))
    keys = ("tokens_per_s", "decode_tokens_per_s", "ms_per_step", "prefill_s", "total_s")
    report = {"rows": args.rows, "prompt_tokens": args.prompt_tokens, "max_tokens": args.max_tokens, "engines": {}}
    print("| engine | tok/s | decode tok/s | ms a step | prefill s | seconds | fastest tok/s | ratio |\n|---|---|---|---|---|---|---|---|")
    for name in engines:
        medians = {key: median(name, key) for key in keys}
        if first == "codit":
            ratio = median(first, "tokens_per_s") / medians["tokens_per_s"]
        else:
            ratio = medians["tokens_per_s"] / median(first, "tokens_per_s")
        fastest = max(found["tokens_per_s"] for found in runs[name])
        report["engines"][name] = {"median": medians, "fastest": fastest, "ratio": ratio, "runs": runs[name]}
        print(
            f"| {name} | {medians['tokens_per_s']:.1f} | {medians['decode_tokens_per_s']:.1f} "
            f"| {medians['ms_per_step']:.1f} | {medians['prefill_s']:.2f} | {medians['total_s']:.2f} | {fastest:.1f} | {ratio:.2f} |"
        )
    for name in engines:
        if "note" in runs[name][0]:
            print(f"\n{name}: {runs[name][0]['note']}")
    with open(args.json, "w") as out:
        json.dump(report, out, indent=2)
        out.write("\n")


if __name__ == "__main__":
    main()
