"""Compares two codit programs, the old and the new: the bytes of what both write, and their speed.

    python compare_commits.py OLD NEW [--only bytes|speed] ...          compare_commits.sh builds the two programs

Bytes: both programs run with equal arguments on the embedded pair and on every pair of tests/golden/models, and the sorted
lines of what they write must be equal. Prints a line for each case.

Speed: `codit bench`, and the 16 prompts of peers/compare.py. The programs take turns (old, new, old, new, ...), and each two
neighbours give the ratio of the new program's speed to the old one's. Fails where the median of the ratios is below 0.98.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Where what takes time to make is kept: what the old program wrote, and the random pair.
KEPT = ROOT / "target/compare"
LEAST_RATIO = 0.98

# Both programs must know these names; one that a later version renames must stay an alias in it.
SHORTCUTS = {
    "default": [],
    "eager": ["--eager"],
    "gathered-head": ["--shortcuts", "gathered-head"],
    "deferred-amateur": ["--shortcuts", "deferred-amateur"],
    "always-deferred-amateur": ["--shortcuts", "always-deferred-amateur"],
    "shared-prefixes": ["--shortcuts", "shared-prefixes"],
    "all": ["--shortcuts", "gathered-head,deferred-amateur,shared-prefixes"],
    "all, always deferred": ["--shortcuts", "gathered-head,always-deferred-amateur,shared-prefixes"],
}
METHODS = {"sampled": [], "greedy": ["--temperature", "0"]}
# A run of each golden pair under every combination of these.
SWEEP = ["--alpha", "0,0.01,0.3,1", "--beta", "0,0.5,1"]
# Other arguments, on the first prompts of the embedded pair.
OTHERS = [
    ["--max-tokens", "64", "--n", "3", "--top-p", "0.9", "--top-k", "20", "--min-p", "0.02"],
    ["--max-tokens", "64", "--log-probabilities", "--special-token-beta", "0.2"],
    ["--max-tokens", "64", "--guidance", "0.5", "--system", "Answer in one word."],
    ["--max-tokens", "64", "--dtype", "fp8", "--kv-cache-dtype", "fp8"],
    ["--max-tokens", "64", "--max-num-seqs", "7", "--max-num-batched-tokens", "32", "--block-size", "4"],
    # So small a cache that sequences are preempted.
    ["--max-tokens", "100", "--ignore-eos", "--kv-cache-memory", "1MiB", "--max-model-len", "200"],
]


# Bytes


def embedded_prompts(count):
    """Prompt rows with distinct ids: those of the examples and of the held-out tasks, over and over."""
    files = (ROOT / "examples/prompts.jsonl", ROOT / "embedded/heldout.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [{**rows[index % len(rows)], "id": f"prompt-{index}"} for index in range(count)]


def golden_prompts(case, count):
    """Prompt rows of a golden pair: its own prompts, and random ones of which many begin alike."""
    golden = json.loads((case / "golden.json").read_text())
    chance = random.Random(case.name)
    draw = lambda length: [chance.randrange(golden["vocab"]) for _ in range(length)]  # noqa: E731
    beginning = draw(40)
    prompts = [run["prompt"] for run in golden["continuations"]]
    prompts += [beginning[: chance.randrange(40)] + draw(1 + index % 7) for index in range(count - len(prompts))]
    return [{"id": index, "prompt": " ".join(f"t{token}" for token in ids)} for index, ids in enumerate(prompts[:count])]


def make_checkpoints(case, folder):
    """Writes the golden pair `case` into `folder` with the tokenizer that it lacks: token 5 is the word t5."""
    size = json.loads((case / "golden.json").read_text())["vocab"]
    words = {"type": "WordLevel", "vocab": {f"t{token}": token for token in range(size)}, "unk_token": "t0"}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": words}
    tokenizer |= dict.fromkeys(["truncation", "padding", "normalizer", "post_processor", "decoder"])
    for model in ("expert", "amateur"):
        shutil.copytree(case / model, folder / model)
        (folder / model / "tokenizer.json").write_text(json.dumps(tokenizer))


def byte_cases(folder):
    """(name, input, arguments) of every run; the paths are relative to `folder`, so that records name models alike."""

    def write(name, rows):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    cpu = ["--seed", "1", "--device", "cpu"]
    settings = [(f"{method}, {name}", METHODS[method] + SHORTCUTS[name]) for method in METHODS for name in SHORTCUTS]
    prompts = write("embedded.jsonl", embedded_prompts(2000))
    for name, arguments in settings:
        yield f"embedded, {name}", prompts, [*cpu, "--max-tokens", "64", *arguments]
    prompts = write("few.jsonl", embedded_prompts(200))
    for arguments in OTHERS:
        yield f"embedded, {' '.join(arguments)}", prompts, [*cpu, *arguments]
    for case in sorted((ROOT / "tests/golden/models").iterdir()):
        make_checkpoints(case, folder / case.name)
        pair = ["--expert", f"{case.name}/expert", "--amateur", f"{case.name}/amateur"]
        prompts = write(f"{case.name}.jsonl", golden_prompts(case, 24))
        for name, arguments in settings:
            yield f"{case.name}, {name}", prompts, [*cpu, "--max-tokens", "32", *pair, *SWEEP, *arguments]
        # The GPU's kernels, run on the host, are slow.
        prompts = write(f"{case.name}-few.jsonl", golden_prompts(case, 8))
        for dtype in ("bfloat16", "float32"):
            arguments = ["--seed", "1", "--device", "simt", "--dtype", dtype, "--max-tokens", "8"]
            yield f"{case.name}, simt, {dtype}", prompts, [*arguments, *pair, *SHORTCUTS["all, always deferred"]]


def synth(codit, folder, prompts, arguments):
    """The sorted lines of all datasets of one run."""
    with tempfile.TemporaryDirectory() as scratch:
        output = ["-o", f"{scratch}/{{alpha}}-{{beta}}.jsonl"]
        done = subprocess.run([codit, "synth", prompts, *output, *arguments], cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            return [f"exit {done.returncode}: {done.stderr[-1000:]}"]
        lines = [line for file in Path(scratch).glob("*.jsonl") for line in file.read_text().splitlines()]
    return sorted(lines)


def kept_synth(codit, folder, prompts, arguments):
    """The same as `synth`; a run of the same program with the same arguments and files is not made twice."""
    key = hashlib.sha256(repr((arguments, instruction_set())).encode())
    models = [folder / name for name in arguments if name.endswith(("/expert", "/amateur"))]
    for file in [Path(codit), folder / prompts, *sorted(file for model in models for file in model.iterdir())]:
        key.update(hashlib.sha256(file.read_bytes()).digest())
    kept = KEPT / "outputs" / key.hexdigest()
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        lines = synth(codit, folder, prompts, arguments)
        kept.with_suffix(".part").write_text("\n".join(lines))
        kept.with_suffix(".part").rename(kept)
    return kept.read_text().split("\n")


def first_difference(old, new):
    """Where two lists of lines part, for people."""
    index = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
    a, b = (lines[index] if index < len(lines) else "(no line)" for lines in (old, new))
    column = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    around = slice(max(0, column - 80), column + 80)
    return f"  line {index + 1}, column {column + 1}\n  old: {a[:40]} ... {a[around]}\n  new: {b[:40]} ... {b[around]}"


def compare_bytes(args):
    """Whether all cases are equal."""
    differing = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = [case for case in byte_cases(folder) if args.case in case[0]]
        if not cases:
            sys.exit(f"no case's name holds {args.case!r}")
        for name, prompts, arguments in cases:
            old = kept_synth(args.old, folder, prompts, arguments)
            new = synth(args.new, folder, prompts, arguments)
            failed = old[0].startswith("exit ")
            if old == new and not failed:
                print(f"equal    {name} ({len(old)} records)", flush=True)
            else:
                differing.append(name)
                print(f"DIFFERS  {name}\n" + (old[0] if failed else first_difference(old, new)), flush=True)
    print(f"bytes: {len(differing)} of {len(cases)} cases differ")
    return not differing


# Speed


def instruction_set():
    """The processor's name, and the best instruction set that codit may find in it."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = set(fields.get("flags", "").split())
    sets = {"AMX": "amx_tile amx_bf16", "AVX-512": "avx512f avx512bw avx512dq avx512vl", "AVX2": "avx2 fma f16c"}
    best = next((name for name, needed in sets.items() if flags.issuperset(needed.split())), "baseline")
    return f"{fields.get('model name', 'unknown processor')}, {os.cpu_count()} cores, {best}"


def bench(codit, args):
    """Speeds of one `codit bench`, by name."""
    command = [codit, "bench", "--json", "--device", "cpu", *args.bench_args.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{codit} bench: exit {done.returncode}\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    return {"bench, tok/s": found["tokens_per_second"], "bench, decode steps/s": 1 / found["decode_step_seconds"]}


def sixteen_rows(args):
    """A function that gives the speeds of one run of peers/compare.py's prompts, by name."""
    sys.path.insert(0, str(HERE / "peers"))
    from compare import codit as run
    from prompts import prompts

    texts, _ = prompts(args.expert, rows=16, tokens=64)
    load = dict(texts=texts, expert=args.expert, amateur=args.amateur, rows=16, max_tokens=128, codit_args="")

    def measure(codit, args):
        found = run(argparse.Namespace(codit=codit, **load))
        if "note" in found:
            raise RuntimeError(f"{codit}: {found['note']}")
        return {"16 rows, tok/s": found["tokens_per_s"], "16 rows, decode tok/s": found["decode_tokens_per_s"]}

    return measure


def random_pair(args):
    """Has a pair of random checkpoints measured, and makes it unless it is there."""
    folder = KEPT / "random-pair"
    if not (folder / "amateur/model.safetensors").exists():
        tokenizer = ROOT / "tests/golden/tokenizers/smollm2"
        subprocess.run([sys.executable, HERE / "random_checkpoint.py", folder, "--tokenizer", tokenizer], check=True)
    args.expert, args.amateur = str(folder / "expert"), str(folder / "amateur")


def compare_speed(args):
    """Whether the new program is as fast as the old one."""
    if os.getloadavg()[0] > 0.5:
        print(f"something else runs here (load average {os.getloadavg()[0]:.1f}): the figures will be noisy")
    if not args.expert:
        random_pair(args)
    programs = {"old": args.old, "new": args.new} | ({"again": args.again} if args.again else {})
    is_slower = False
    for measure in (bench, sixteen_rows(args)):
        speeds = []
        for repeat in range(args.repeats):
            speeds.append({name: measure(codit, args) for name, codit in programs.items()})
            print(f"pair {repeat + 1}/{args.repeats}: {json.dumps(speeds[-1])}", flush=True)
        for what in speeds[0]["old"]:
            for name in list(programs)[1:]:
                ratios = [pair[name][what] / pair["old"][what] for pair in speeds]
                median = statistics.median(ratios)
                is_loss = name == "new" and median < LEAST_RATIO
                is_slower = is_slower or is_loss
                verdict = f"  SLOWER: below {LEAST_RATIO}" if is_loss else ""
                spread = f"from {min(ratios):.3f} to {max(ratios):.3f}"
                each = " ".join(f"{ratio:.3f}" for ratio in ratios)
                print(f"{what}, {name} / old: {each}: median {median:.3f}, {spread}{verdict}", flush=True)
    if is_slower:
        print(
            "The layout of the code alone can move these figures by several per cent. Before you believe in a loss, add\n"
            "--repeats, look at --noise, and see in `codit bench` whether the same operation is slower each time."
        )
    return not is_slower


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=os.path.abspath)
    parser.add_argument("new", type=os.path.abspath)
    parser.add_argument("--only", choices=("bytes", "speed"))
    parser.add_argument("--case", default="", help="bytes of the cases only whose name holds this")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs for each measurement")
    parser.add_argument("--again", type=os.path.abspath, help="another build of the old program, to measure how large noise is")
    parser.add_argument("--expert", help="checkpoint folders for the 16 rows [default: a random pair]")
    parser.add_argument("--amateur")
    parser.add_argument("--bench-args", default="--output-len 64", help="arguments of `codit bench`, one string")
    args = parser.parse_args()
    if bool(args.expert) != bool(args.amateur):
        parser.error("give both --expert and --amateur, or neither")
    # Both programs take the machine's own instruction set.
    os.environ.pop("CODIT_CPU_ISA", None)
    print(instruction_set())
    is_good = args.only == "speed" or compare_bytes(args)
    is_good = (args.only == "bytes" or compare_speed(args)) and is_good
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
