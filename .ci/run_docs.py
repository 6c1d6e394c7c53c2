"""Runs the commands that README.md and docs/ show, and checks what the pages refer to.

    python3 .ci/run_docs.py [--codit PATH] [PAGE ...]

A fenced block is treated by the words after its three backticks:

- `sh`: run by bash in a scratch folder, in the order of the page. The folder holds a copy of examples/.
- `sh fails`: the same, and the command must fail.
- `sh no-run`: not run (it needs a network, a GPU or a build); its commands are checked instead: each flag must be in the help of its
  `codit` command, each script, bench and test must exist.
- `text` right after a block that ran: what it prints, standard error included. Numbers with a decimal point may differ (times,
  speeds, last digits), and so may tokens per second and the device; a line `...` stands for any lines; /path/to/ stands for the
  scratch folder.

On every page, links and the files named in `code` must exist, and so must the flags and CODIT_ variables that are named there. On
pages for developers, so must the names of types, functions and fields.
"""

import argparse
import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "embedded/README.md", "tests/golden/README.md"]
FOLDERS = ("src", "tests", "benches", "kernels", "docs", "embedded", "examples", "build", ".ci", ".github")
OTHERS_FLAGS = set("--cases --quick --budget --list --packed --no-default-features --release --all-targets --features --help --bench --test --bin --example --no-deps --open".split())
DEVELOPERS_PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md")
NAME = r"\w*[a-z](_\w+|[A-Z]\w*)|\w+(::\w+)+"  # snake_case, CamelCase, a::path
NUMBER = re.compile(r"-?\d+(\.\d+(e-?\d+)?|e-\d+)")
SPEED = re.compile(r"[\d,]+(?= response tokens/s|/s computed)")
DEVICE = re.compile(r"^(codit: device +).*")
TIME_LIMIT = 300


class Block:
    """A fenced block: its words, its lines, where it begins, and whether only blank lines lie between it and the one before."""

    def __init__(self, words, line, follows):
        self.words, self.line, self.follows, self.text = words, line, follows, ""


def blocks(page):
    """The fenced blocks of a page, and its text without them."""
    found, prose, block, blank = [], [], None, False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if block is not None and line.strip() == "```":
            block, blank = None, True
        elif block is not None:
            found[-1].text += line + "\n"
        elif line.startswith("```"):
            block = Block(line[3:].split(), number, blank)
            found.append(block)
        else:
            blank = blank and not line.strip()
            prose.append(line)
    return found, "\n".join(prose)


def matches(shown, printed):
    """Whether the printed lines are those shown, `...` standing for any."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(matches(shown[1:], printed[skip:]) for skip in range(len(printed) + 1))
    return bool(printed) and shown[0] == printed[0] and matches(shown[1:], printed[1:])


def normal(text, folder):
    lines = text.replace(f"{folder}/", "/path/to/").strip("\n").splitlines()
    return [NUMBER.sub("#.#", SPEED.sub("#", DEVICE.sub(r"\1#", line.rstrip()))) for line in lines]


def run_page(page, codit):
    """Runs the blocks of a page in order; returns what is wrong."""
    faults, output = [], None
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        shutil.copytree(ROOT / "examples", Path(folder) / "examples")
        environment = {**os.environ, "PATH": f"{codit.parent}:{os.environ['PATH']}", "HOME": folder}
        environment.update(HF_HUB_OFFLINE="1", LC_ALL="C", CUDA_VISIBLE_DEVICES="")
        for block in blocks(page)[0]:
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.words[:1] == ["text"] and block.follows and output is not None:
                shown, printed = normal(block.text, folder), normal(output, folder)
                if not matches(shown, printed):
                    difference = difflib.unified_diff(shown, printed, "shown", "printed", lineterm="", n=1)
                    faults.append(f"{where}: the output differs\n" + "\n".join(difference) + f"\n--- printed in full\n{output}")
            output = None
            if block.words[:1] == ["sh"] and "no-run" not in block.words:
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, env=environment, text=True,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIME_LIMIT,
                )  # fmt: skip
                output = done.stdout
                if (done.returncode != 0) != ("fails" in block.words):
                    faults.append(f"{where}: exit code {done.returncode}\n{block.text}{output}")
    return faults


class Help:
    """The flags that each command of codit has."""

    def __init__(self, codit):
        self.codit, self.pages = codit, {}

    def flags(self, command):
        if command not in self.pages:
            done = subprocess.run([self.codit, *([command] if command else []), "--help"], capture_output=True, text=True)
            self.pages[command] = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", done.stdout)) if done.returncode == 0 else None
        return self.pages[command]

    def all_flags(self):
        commands = re.findall(r"^  ([a-z]+) ", subprocess.check_output([self.codit, "--help"], text=True), re.MULTILINE)
        return set().union(*(self.flags(command) or set() for command in ["", *commands] if command != "help"))


def commands(text):
    """The commands of a block as lists of words."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        start = 0
        for end in [*(index for index, word in enumerate(words) if word in ("&&", "||", "|", ";")), len(words)]:
            if words[start:end]:
                yield words[start:end]
            start = end + 1


def check_command(words, help_of):
    """What is wrong with a command that is not run."""
    words = [word for index, word in enumerate(words) if index or "=" not in word]
    if "codit" in words:
        command, *arguments = words[words.index("codit") + 1 :]
        flags = help_of.flags(command)
        if flags is None:
            return [f"codit has no command {command!r}"]
        named = [word.split("=")[0] for word in arguments if re.match(r"--?[a-z]", word)]
        return [f"codit {command} has no {flag}" for flag in named if flag not in flags]
    faults = []
    for flag, place in (("--bench", "benches"), ("--example", "examples")):
        if words[0] == "cargo" and flag in words:
            name = words[words.index(flag) + 1]
            faults += [] if (ROOT / place / f"{name}.rs").exists() else [f"there is no {place}/{name}.rs"]
    if words[0].startswith("python") and words[1].endswith(".py"):
        words = words[1:]
    if re.search(r"\.(py|sh)$", words[0]) and not (ROOT / words[0]).exists():
        faults.append(f"there is no {words[0]}")
    return faults


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def check_page(page, help_of, sources):
    """What a page refers to that is not there."""
    found, prose = blocks(page)
    faults = []
    for block in found:
        if block.words[:1] == ["sh"] and "no-run" in block.words:
            faults += [fault for words in commands(block.text) for fault in check_command(words, help_of)]
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, part = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if "://" in target:
            continue
        if not file.exists():
            faults.append(f"the link {target} leads nowhere")
        elif part and part not in map(anchor, re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)):
            faults.append(f"the link {target} leads to no heading")
    code = re.findall(r"`([^`\n]+)`", prose)
    for name in (name for text in code for name in re.findall(r"[\w.][\w./\-*]*", text)):
        if name.split("/")[0] in FOLDERS and "/" in name and not any(ROOT.glob(name.rstrip("/."))):
            faults.append(f"there is no {name}")
    flags = {flag for text in code for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
    faults += [f"no command has {flag}" for flag in sorted(flags - help_of.all_flags() - OTHERS_FLAGS)]
    if page.parent.name == "internals" or page.name in DEVELOPERS_PAGES:
        names = {name for text in code if re.fullmatch(NAME, text) for name in text.split("::")}
        faults += [f"no source has the name {name}" for name in sorted(names) if not re.search(rf"\b{name}", sources)]
    variables = set(re.findall(r"\bCODIT_[A-Z_]+\b", page.read_text(encoding="utf-8")))
    faults += [f"nothing reads {variable}" for variable in sorted(variables) if variable not in sources]
    return [f"{page.relative_to(ROOT)}: {fault}" for fault in faults]


def source_text():
    """All sources, in which names and variables of the environment are looked up."""
    kinds = ["*.rs", "*.py", "*.sh", "*.cu", "*.cuh", "*.cpp", "*.h", ".ci/run"]
    names = subprocess.check_output(["git", "ls-files", *kinds], cwd=ROOT, text=True).split("\n")
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names if name and (ROOT / name).exists())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--codit", type=Path, default=ROOT / "target/release/codit")
    parser.add_argument("pages", nargs="*", type=Path)
    arguments = parser.parse_args()
    codit = arguments.codit.resolve()
    given = [page.resolve() for page in arguments.pages]
    pages = given or [ROOT / page for page in PAGES] + sorted((ROOT / "docs").rglob("*.md"))
    help_of, sources, faults = Help(codit), source_text(), []
    for page in pages:
        began = time.monotonic()
        found = check_page(page, help_of, sources) + run_page(page, codit)
        print(f"{page.relative_to(ROOT)}: {len(found)} faults, {time.monotonic() - began:.1f} s", flush=True)
        faults += found
    print("\n".join(faults))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
