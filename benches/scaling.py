"""Cost grows linearly with generated tokens, and memory stays in its bounds.

Decodes 100 and 10,000 queued prompts of the embedded pair, turn about, and compares tokens a second; then decodes with a
large cache and compares the peak of resident memory with weights + cache + 256 MiB.

usage: scaling.py [--codit PATH] [--repeats N] [--tokens N]
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ALLOWANCE = 256 << 20


def synth(codit, folder, count, arguments):
    """Decodes `count` prompts; returns (tokens a second, peak resident bytes)."""
    prompts = folder / f"{count}.jsonl"
    line = lambda i: json.dumps({"id": i, "instruction": f"What is {i % 50} plus {i // 50 % 50}?"}) + "\n"
    prompts.write_text("".join(map(line, range(count))))
    output = folder / "out.jsonl"
    for old in folder.glob("out.jsonl*"):
        old.unlink()
    command = [codit, "synth", prompts, "-o", output, "--seed", "1", "--ignore-eos", "--progress", "json", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, said
    end = json.loads(said.splitlines()[-1])
    return end["response_tokens_per_second"], usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codit", default=HERE.parent / "target/release/codit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    rates = {100: [], 10_000: []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run = ["--max-num-seqs", "50", "--max-tokens", str(options.tokens)]
        for _ in range(options.repeats):
            for count in rates:
                # As many tokens in all, so that both are timed over the same span.
                runs = [synth(options.codit, folder, count, run)[0] for _ in range(20 if count == 100 else 1)]
                rates[count].append(statistics.median(runs))
        medians = {count: statistics.median(found) for count, found in rates.items()}
        cache = 64 << 20
        _, peak = synth(options.codit, folder, 2000, ["--kv-cache-memory", str(cache), "--max-tokens", "200"])
    weights = sum(f.stat().st_size for f in (HERE.parent / "embedded").glob("*/model.safetensors"))
    result = {
        "tokens_per_second": medians,
        "ratio": round(medians[10_000] / medians[100], 3),
        "peak_memory_mib": round(peak / 2**20, 1),
        "bound_mib": round((weights + cache + ALLOWANCE) / 2**20, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
