"""A sweep of eight settings over the same prompts, in one run, beside eight runs.

The embedded pair; every prompt is a common system message, a passage of its own and a question; every response has --tokens tokens
and as many rows decode at once as there are prompts, in a sweep too, so that what is shared is all that differs. The eight runs, the
sweep, and the sweep without shared prefixes take turns; medians of their seconds, of whole programs (start and end included) and of
decoding alone.

usage: sweep.py [--codit PATH] [--prompts N] [--tokens N] [--repeats N]
"""
import argparse
import itertools
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ALPHAS, BETAS = ["0.01", "0.1"], ["0.25", "0.5", "0.75", "1"]
SYSTEM = (
    "You are a careful assistant. Read the passage, then answer the question about it in plain words. Keep to what the passage"
    " says, do not add anything of your own, and say so if it does not hold the answer. Be brief, and write whole sentences."
)
NAMES = ["Mira", "Rosa", "Tom", "Ada", "Jon", "Lena"]
THINGS = ["a red lantern", "two loaves of bread", "an old violin", "a basket of plums", "a letter", "seven spoons"]
PLACES = ["at the mill", "by the river", "in the garden", "near the harbour", "at the winter market", "behind the school"]


def passage(draw):
    """Six sentences."""
    sentence = lambda: f"{draw.choice(NAMES)} found {draw.choice(THINGS)} {draw.choice(PLACES)} on day {draw.randrange(90)}."
    return " ".join(sentence() for _ in range(6))


def write_prompts(path, count):
    draw = random.Random(1)
    ask = lambda: f"{passage(draw)} What did {draw.choice(NAMES)} find {draw.choice(PLACES)}?"
    path.write_text("".join(json.dumps({"id": i, "instruction": ask()}) + "\n" for i in range(count)))


def run(codit, prompts, output, arguments):
    """Returns seconds of the program and of decoding, and the positions that the expert computed and tokens sampled."""
    start = time.monotonic()
    command = [codit, "synth", prompts, "-o", output, "--seed", "1", "--device", "cpu", "--system", SYSTEM, "--progress", "json", *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    seconds = time.monotonic() - start
    end = json.loads(said.splitlines()[-1])
    return seconds, end["seconds"], end["engine"]["expert_positions"], end["response_tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codit", default=HERE.parent / "target/release/codit")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    limit = ["--ignore-eos", "--max-tokens", str(options.tokens), "--max-num-seqs", str(options.prompts)]
    grid = ["--alpha", ",".join(ALPHAS), "--beta", ",".join(BETAS)]

    def eight_runs(prompts, folder):
        settings = itertools.product(ALPHAS, BETAS)
        runs = [run(options.codit, prompts, folder / f"{a}-{b}", [*limit, "--alpha", a, "--beta", b]) for a, b in settings]
        return [sum(column) for column in zip(*runs)]

    def sweep(prompts, folder, *shortcuts):
        return run(options.codit, prompts, folder / "{alpha}-{beta}", [*limit, *grid, *shortcuts])

    ways = {
        "eight runs": eight_runs,
        "a sweep": sweep,
        "a sweep without shared prefixes": lambda *where: sweep(*where, "--shortcuts", "gathered-candidates"),
    }
    found = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        write_prompts(prompts, options.prompts)
        for repeat, (way, measure) in itertools.product(range(options.repeats), ways.items()):
            output = Path(folder) / f"{way}-{repeat}"
            output.mkdir()
            found[way].append(measure(prompts, output))
            lines = lambda path: sorted(path.read_text().splitlines())
            for dataset in output.glob("*[0-9]"):
                assert lines(dataset) == lines(Path(folder) / "eight runs-0" / dataset.name), f"{way}: {dataset.name}"
    base = found["eight runs"]
    for way, runs in found.items():
        seconds, decoding, computed, sampled = (statistics.median(column) for column in zip(*runs))
        ratios = [statistics.median(column) for column in zip(*[(a[0] / b[0], a[1] / b[1]) for a, b in zip(runs, base)])]
        print(json.dumps({
            "way": way,
            "seconds": round(seconds, 2),
            "of_eight_runs": round(ratios[0], 3),
            "decoding_seconds": round(decoding, 2),
            "decoding_of_eight_runs": round(ratios[1], 3),
            "expert_computed": computed,
            "sampled": sampled,
        }))


if __name__ == "__main__":
    main()
