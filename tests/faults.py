#!/usr/bin/env python3
"""Does to a run what systems and people do to processes, and checks that nothing is lost.

    python3 tests/faults.py PROGRAM [--kills N] [NAME...]

PROGRAM is the codit to try, of any build. Without a NAME every fault is tried, in about a minute. Each fault happens to a run
over the built-in pair. Whatever happens:

- the run ends by itself, with a documented exit code and without a panic or an abort;
- its output holds whole records, none of them an error that a quiet run does not have;
- the same command then completes it, and the output equals that of a quiet run, line by line.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Long enough for any machine: a run that has not ended by then hangs.
PATIENCE = 120
# Bad input, a failure at work, an end that the user asked for.
DOCUMENTED = {0, 1, 2, 130, 143}
SETTINGS = ["--seed", "5", "--max-tokens", "40", "--max-num-seqs", "8"]
ROWS = 120
LONGEST_MESSAGE = 4000
# A user without processes, so that a limit on processes counts those of the run alone.
NOBODY = 61234


class Drill:
    """A place for one fault."""

    def __init__(self, program, folder, quiet):
        self.program, self.folder, self.quiet = program, folder, quiet
        self.input, self.output = folder / "in.jsonl", folder / "out.jsonl"
        words = ["river", "stone", "green", "seven", "garden", "letter", "winter"]
        row = lambda i: {"id": f"q{i}", "instruction": f"Write the word {words[i % 7]} in capital letters.", "source": i}
        self.input.write_text("".join(json.dumps(row(i)) + "\n" for i in range(ROWS)))

    def command(self, *more):
        return [self.program, "synth", str(self.input), "-o", str(self.output), *SETTINGS, *more]

    def start(self, *more, **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(self.command(*more), **options)

    def end(self, child, codes=DOCUMENTED):
        """Waits for a run and checks how it ended; returns its exit code and what it said."""
        try:
            said = (child.communicate(timeout=PATIENCE)[1] or b"").decode(errors="replace")
        except subprocess.TimeoutExpired:
            child.kill()
            raise AssertionError(f"the run does not end within {PATIENCE} s") from None
        assert child.returncode in codes, f"exit code {child.returncode}, not one of {sorted(codes)}: {said[-600:]}"
        for word in ("panicked at", "RUST_BACKTRACE", "memory allocation of", "overflowed its stack"):
            assert word not in said, f"it says {word!r}: {said[-600:]}"
        assert len(said) <= LONGEST_MESSAGE, f"it says {len(said)} characters: {said[:300]}"
        if child.returncode in (1, 2):
            assert "error" in said, f"a failure without a word: {said!r}"
        return child.returncode, said

    def run(self, *more, codes=DOCUMENTED, **options):
        return self.end(self.start(*more, **options), codes)

    def wait_for_records(self, child, count=1):
        """Waits until the run has written some records; false if it ended before."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.output.exists() and self.output.read_bytes().count(b"\n") >= count:
                return child.poll() is None
            if child.poll() is not None:
                return False
            time.sleep(0.001)
        raise AssertionError("the run writes nothing")

    def check_records(self, torn_end=False):
        """Whatever was written is whole, and none of it is an error."""
        if not self.output.exists():
            return 0
        lines = self.output.read_bytes().split(b"\n")
        if not torn_end:
            assert lines[-1] == b"", f"a torn end is left: {lines[-1][:80]!r}"
        for line in lines[:-1]:
            record = json.loads(line)
            assert record.get("error") is None, f"an error of the machine is recorded: {record['error'][:300]!r}"
        return len(lines) - 1

    def start_over(self):
        """Removes the output and what lies beside it."""
        for path in self.folder.glob("out.jsonl*"):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def complete(self):
        """The same command completes the output."""
        self.run(codes={0})
        self.check_records()
        found = sorted(self.output.read_bytes().splitlines())
        assert found == self.quiet, f"{len(found)} records, {sum(a != b for a, b in zip(found, self.quiet))} differ"


def limits(*pairs):
    """For `preexec_fn`: sets limits in the child."""

    def set_them():
        for which, value in pairs:
            resource.setrlimit(which, (value, value))

    return set_them


def refused_threads(drill):
    """The system refuses threads, the first or a later one."""
    if os.geteuid() != 0:
        return "skipped: only root can become a user without processes"
    shutil.copy(drill.program, drill.folder / "codit")
    drill.program = str(drill.folder / "codit")
    for path in [drill.folder, *drill.folder.iterdir()]:
        path.chmod(0o777)
    refused = 0
    for threads in range(1, 12):
        limit = limits((resource.RLIMIT_NPROC, threads))
        code, said = drill.run(preexec_fn=limit, user=NOBODY, group=NOBODY, extra_groups=[], codes={0, 1})
        if code == 1:
            refused += 1
            assert "thread" in said, said
        drill.check_records()
    assert refused > 0, "no limit was low enough to refuse a thread"
    drill.complete()


def refused_stacks(drill):
    """There is no address space left for a large stack, or for anything else."""
    ended = set()
    for mebibytes in (96, 160, 256, 320, 400, 512, 768):
        code, _ = drill.run(preexec_fn=limits((resource.RLIMIT_AS, mebibytes << 20)), codes={0, 1, 2, -signal.SIGABRT})
        ended.add(code)
        drill.check_records()
    # An allocation of a few bytes that fails aborts; what was written before stays whole.
    drill.complete()


def kills(drill, count):
    """SIGKILL at random moments."""
    draw = random.Random(1)
    begun = time.monotonic()
    drill.run(codes={0})
    whole = time.monotonic() - begun
    killed = runs = 0
    while killed < count:
        drill.start_over()
        runs += 1
        for _ in range(20):
            child = drill.start()
            try:
                child.wait(draw.uniform(0, 1.1) * whole)
                drill.end(child, {0})
                break
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                killed += 1
        drill.complete()
    return f"{killed} kills of {runs} runs"


def full_disk(drill):
    """The disk is full in the middle of a record, at the manifest, and from the start."""
    place = drill.folder / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "codit", str(place)], capture_output=True)
    if mounted.returncode != 0:
        return "skipped: no file system can be mounted here"
    try:
        home, drill.output = drill.output, place / "out.jsonl"
        for filled in (0, 20 << 10, 28 << 10, 32 << 10):
            (place / "filler").write_bytes(b"")
            (place / "out.jsonl").unlink(missing_ok=True)
            for old in place.glob("out.jsonl?*"):
                old.unlink()
            try:
                (place / "filler").write_bytes(b"x" * filled)
            except OSError:
                pass
            _, said = drill.run(codes={1})
            assert "space" in said.lower(), said
            drill.check_records()
        for old in place.glob("out.jsonl*"):
            shutil.copy(old, home.parent)
        drill.output = home
        drill.complete()
    finally:
        subprocess.run(["umount", str(place)], check=False)


def limited_file_size(drill):
    """A limit on the size of a file, with the signal that comes with it at its default."""
    for kibibytes in (0, 1, 3, 12, 25):
        drill.run(preexec_fn=limits((resource.RLIMIT_FSIZE, kibibytes << 10)), codes={1})
        drill.check_records()
    drill.complete()


def few_files(drill):
    """The system refuses to open more files."""
    for files in (3, 4, 5, 6, 7, 8, 10, 12):
        drill.run(preexec_fn=limits((resource.RLIMIT_NOFILE, files)), codes={0, 1, 2, 127})
        drill.check_records()
    drill.complete()


def closed_streams(drill):
    """Standard streams that are closed, full, or a pipe that nobody reads."""
    close = lambda *fds: lambda: [os.close(fd) for fd in fds]
    for fds in ((0,), (1,), (2,), (0, 1, 2)):
        drill.run(preexec_fn=close(*fds), stdin=None, codes={0})
        drill.complete()
        drill.start_over()
    with open("/dev/full", "wb") as full:
        drill.run(stdout=full, stderr=full, codes={0})
    drill.complete()
    drill.start_over()
    reader, writer = os.pipe()
    os.close(reader)
    drill.run(stdout=writer, stderr=writer, codes={0})
    os.close(writer)
    drill.complete()


def changed_output(drill):
    """Another program truncates, extends, moves or removes the output in the middle of a run."""

    def truncate():
        os.truncate(drill.output, 0)

    def cut():
        os.truncate(drill.output, max(0, drill.output.stat().st_size - 30))

    def extend():
        with open(drill.output, "ab") as file:
            file.write(b"\0" * 500)

    def move():
        drill.output.rename(drill.folder / "moved.jsonl")

    def remove():
        drill.output.unlink()

    seen = []
    for change in (truncate, cut, extend, move, remove):
        noticed = False
        for _ in range(5):
            child = drill.start()
            if drill.wait_for_records(child, 10):
                child.send_signal(signal.SIGSTOP)
                change()
                child.send_signal(signal.SIGCONT)
                code, said = drill.end(child, {1})
                noticed = True
                assert "another program" in said or "changed" in said or "removed" in said, said
                # What another program did to the file is its own affair, but no hole of NULs is made.
                if change in (truncate, cut):
                    assert b"\0" not in drill.output.read_bytes(), f"{change.__name__}: a hole of NUL bytes"
                break
            drill.end(child)
        assert noticed, "the run ends too soon to change its output"
        seen.append(change.__name__)
        drill.complete()
        drill.start_over()
    return ", ".join(seen)


def two_writers(drill):
    """Four runs of one output at once."""
    for _ in range(5):
        children = [drill.start() for _ in range(4)]
        codes = sorted(drill.end(child, {0, 2})[0] for child in children)
        assert codes[0] == 0, f"none of them wrote: {codes}"
        drill.check_records()
        drill.complete()
        drill.start_over()


def signals(drill):
    """Signals that ask a run to end, once and twice, and such as stop it for a while."""
    for name, code in (("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)):
        for times in (1, 3):
            # A second signal may end the process at once, by the signal itself; a shell gives that the same code.
            codes = {0, code} if times == 1 and name != "SIGHUP" else {0, code, 128 - code}
            child = drill.start()
            drill.wait_for_records(child, 3)
            for _ in range(times):
                if child.poll() is None:
                    child.send_signal(getattr(signal, name))
            drill.end(child, codes)
            drill.check_records(torn_end=times > 1 or name == "SIGHUP")
            drill.complete()
            drill.start_over()
    child = drill.start()
    for _ in range(10):
        drill.wait_for_records(child)
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
        child.send_signal(signal.SIGCONT)
    drill.end(child, {0})
    drill.complete()


def changed_input(drill):
    """The input is rewritten in the middle of a run."""
    before = drill.input.read_bytes()
    child = drill.start()
    drill.wait_for_records(child)
    child.send_signal(signal.SIGSTOP)
    drill.input.write_bytes(before.replace(b"Write", b"Print"))
    child.send_signal(signal.SIGCONT)
    drill.end(child, {0, 1, 2})
    drill.check_records()
    drill.input.write_bytes(before)
    drill.complete()


def special_files(drill):
    """Links, folders and pipes in the place of the manifest and of its temporary file."""
    victim = drill.folder / "victim"
    victim.write_text("precious")
    for suffix in ("-manifest", "-manifest.codit-tmp", ".manifest.json", ".manifest.json.tmp"):
        path = Path(f"{drill.output}{suffix}")
        path.symlink_to(victim)
        drill.run(codes={0, 1, 2})
        assert victim.read_text() == "precious", f"{suffix}: the target of a link is overwritten"
        drill.start_over()
        path.mkdir()
        drill.run(codes={0, 2})
        drill.start_over()
        os.mkfifo(path)
        drill.run(codes={0, 2})
        drill.start_over()
    drill.complete()


FAULTS = [refused_threads, refused_stacks, kills, full_disk, limited_file_size, few_files, closed_streams, changed_output, two_writers,
          signals, changed_input, special_files]  # fmt: skip


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("program")
    arguments.add_argument("names", nargs="*", metavar="NAME", help=", ".join(fault.__name__ for fault in FAULTS))
    arguments.add_argument("--kills", type=int, default=20)
    arguments = arguments.parse_args()
    program = str(Path(arguments.program).resolve())
    passed = failed = 0
    # A shell starts background jobs with some of these ignored, and a program inherits that; it inherits no handler.
    for name in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: sys.exit("interrupted"))
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        quiet = Drill(program, Path(tempfile.mkdtemp(dir=root)), [])
        quiet.run(codes={0})
        quiet = sorted(quiet.output.read_bytes().splitlines())
        assert len(quiet) == ROWS, f"a quiet run writes {len(quiet)} records"
        for fault in FAULTS:
            if arguments.names and fault.__name__ not in arguments.names:
                continue
            drill = Drill(program, Path(tempfile.mkdtemp(dir=root)), quiet)
            begun = time.monotonic()
            try:
                note = fault(drill, arguments.kills) if fault is kills else fault(drill)
                passed += 1
            except AssertionError as error:
                note = f"FAILED: {error}"
                failed += 1
            print(f"{fault.__name__}: {note or 'ok'} ({time.monotonic() - begun:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
