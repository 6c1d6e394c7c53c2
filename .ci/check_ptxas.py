"""Fails if an attention, grouped_matmul or contrast kernel spills registers or has a stack frame.

    cargo build --release --message-format=json | python3 .ci/check_ptxas.py

Reads ptxas's report, which the build script (`build/nvcc.rs`) writes, and prints a line for each kernel and architecture.
"""

import json
import re
import sys
from pathlib import Path

HOT = ("attention", "contrast", "grouped_matmul")
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
LOCAL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


def out_folders(lines):
    """Yields the OUT_DIRs of this package's build script from cargo's messages."""
    for line in lines:
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("reason") == "build-script-executed" and "codit" in message["package_id"]:
            yield Path(message["out_dir"])


def kernels(report):
    """Yields (kernel, architecture, registers, (bytes of stack, of spill stores, of spill loads))."""
    entry = local = None
    for line in report.splitlines():
        if match := ENTRY.search(line):
            entry, local = match.groups(), None
        elif (match := LOCAL.search(line)) and entry and local is None:
            local = tuple(map(int, match.groups()))
        elif (match := USED.search(line)) and entry and local is not None:
            yield (*entry, int(match[1]), local)
            entry = local = None


def main():
    reports = [folder / "ptxas.txt" for folder in out_folders(sys.stdin)]
    reports = [report for report in reports if report.exists()]
    if not reports:
        sys.exit("check_ptxas: the build wrote no report of ptxas, because it found no nvcc (kernels/toolchain.sh installs one)")
    found, bad = [], []
    for name, architecture, registers, local in kernels(reports[-1].read_text()):
        print(f"{name:40} {architecture:8} {registers:3} registers, stack and spills {local}")
        found.append(name)
        if name.startswith(HOT) and any(local):
            bad.append(f"{name} for {architecture}: {local[0]} bytes of stack, {local[1]} + {local[2]} of spills")
    missing = [family for family in HOT if not any(name.startswith(family) for name in found)]
    if bad or missing:
        sys.exit("check_ptxas: " + "; ".join(bad + [f"no kernel of {family}" for family in missing]))


if __name__ == "__main__":
    main()
