"""The pair's accuracy on the held-out instructions at several settings, decoded by codit: a Markdown table.

usage: measure.py [--codit PATH] [--seeds N]        Needs nothing but Python.
"""
import argparse
import statistics
import subprocess
import tempfile
from pathlib import Path

import check

HERE = Path(__file__).parent
HELDOUT = HERE / "heldout.jsonl"
SETTINGS = [  # temperature, alpha, beta
    (0, 0, 0), (1, 0, 0), (1, 0.01, 0), (1, 0.01, 0.25), (1, 0.01, 0.5), (1, 0.01, 1),
]  # fmt: skip


def accuracy(codit, temperature, alpha, beta, seed):
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.jsonl"
        method = ["--temperature", temperature, "--alpha", alpha, "--beta", beta, "--seed", seed, "--max-tokens", 64]
        subprocess.run([codit, "synth", HELDOUT, "-o", output, *map(str, method)], check=True, capture_output=True)
        responses = {record["id"]: record["response"] for record in check.read(output)}
    return check.scores(check.read(HELDOUT), responses)["all"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codit", default=HERE.parent / "target/release/codit")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print("| temperature | alpha | beta | correct | standard deviation over seeds |\n| --- | --- | --- | --- | --- |")
    for temperature, alpha, beta in SETTINGS:
        seeds = range(options.seeds if temperature else 1)
        found = [accuracy(options.codit, temperature, alpha, beta, seed) for seed in seeds]
        spread = f"{statistics.stdev(found):.1%}" if len(found) > 1 else ""
        print(f"| {temperature} | {alpha} | {beta} | {statistics.mean(found):.1%} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
