"""Whole training runs for the tests in cli/: a small prepared corpus, a small model, the program under mpirun."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from patience import limit

SOURCE = pathlib.Path(os.environ.get("SOURCE", pathlib.Path(__file__).resolve().parents[2]))
SWITCHYARD = os.environ.get("SWITCHYARD", str(SOURCE / "build/ci/switchyard"))

# 7 micro-batches, which 2, 3, 4 and 8 ranks do not divide; a width that is no power of two.
CONFIG = """
[model]
d_model = 48
layers = 2
heads = 4
kv_heads = 2
d_ff = 56
seq_len = 32
[moe]
experts = 8
top_k = 2
[train]
steps = 20
global_batch = 14
micro_batch = 2
lr = 4e-3
warmup_steps = 4
eval_sequences = 5
"""
# What depends on the clock: also at which step a save that goes on beside the training comes to its end.
TIMES = {"tokens_per_s", "step_time_s", "exchange_s", "exchange_hidden", "checkpoint_step", "checkpoint_bytes", "checkpoint_stall_s",
         "checkpoint_write_s"}
# What tells where experts are: rank_load_max_over_mean of each layer, too.
PLACES = {"moved_experts"}


class Done:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


class Runs:
    """A folder of its own with text/ prepared in bytes, and run.toml; gone at the end of `with`."""

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-"))
        self.failures = 0
        text = self.folder / "text.txt"
        sources = [file for part in ("comm", "layers") for file in sorted((SOURCE / part).rglob("*.h"))]
        text.write_bytes(b"".join(file.read_bytes() for file in sources)[:60000])
        self.data = self.folder / "data"
        done = self.switchyard("prepare", "--input", text, "--tokenizer", "bytes", "--valid-fraction", "0.1",
                               "--out", self.data)
        if done.code != 0:
            sys.exit(f"the corpus could not be prepared: {done.err}")
        self.config = self.folder / "run.toml"
        self.config.write_text(CONFIG + f'[data]\ntrain = "{self.data}"\n')
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def switchyard(self, *arguments, np=0, threads=1, env=None, timeout=240, program=SWITCHYARD):
        """np = 0: without a launcher. timeout: seconds of a quiet machine."""
        command = [program, *map(str, arguments)]
        if np:
            command = [str(SOURCE / "tests/support/mpirun"), str(np), *command]
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), **(env or {}))
        done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", timeout=limit(timeout))
        return Done(done.returncode, done.stdout, done.stderr)

    def train(self, name, *sets, np=1, more=(), wanted=0, **options):
        """Trains in the folder `name`; sets are key=value. Checks the exit code."""
        arguments = [word for pair in sets for word in ("--set", pair)]
        done = self.switchyard("train", self.config, "--out", self.folder / name, *arguments, *more, np=np, **options)
        self.check(wanted is None or done.code == wanted,
                   f"{name} (np {np}, {sets} {more}) ended with {done.code}, not {wanted}: {done.err[-2000:]}")
        return done

    def check(self, holds, what):
        if not holds:
            self.failures += 1
            print(f"FAILED: {what}", file=sys.stderr, flush=True)

    def metrics(self, name):
        """The lines of metrics.jsonl, each number as its text, without what depends on the clock or tells of places."""
        file = self.folder / name / "metrics.jsonl"
        lines = [json.loads(line, parse_float=str) for line in file.read_text().splitlines()] if file.exists() else []
        hidden = TIMES | PLACES
        return [{key: value for key, value in line.items()
                 if key not in hidden and not key.endswith("rank_load_max_over_mean")} for line in lines]

    def raw(self, name):
        """The lines of metrics.jsonl as they are."""
        return [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]

    def moved(self, name):
        """How many experts moved after each step at which the run looked at its loads."""
        return [line["moved_experts"] for line in self.raw(name) if "moved_experts" in line]

    def same(self, got, wanted, what):
        """Two lists of metrics lines are the same to the last digit, and there are some."""
        self.check(len(got) == len(wanted) > 0, f"{what}: {len(got)} lines, wanted {len(wanted)}")
        for a, b in zip(got, wanted):
            if a != b:
                differing = {key: (a.get(key), b.get(key)) for key in a.keys() | b.keys() if a.get(key) != b.get(key)}
                self.check(False, f"{what}: step {b['step']} differs: {differing}")
                return

    def flip(self, file, offset, bit=1):
        """Turns a bit of a byte; a negative offset counts from the end."""
        bytes_ = bytearray(pathlib.Path(file).read_bytes())
        bytes_[offset] ^= bit
        pathlib.Path(file).write_bytes(bytes_)

    def finish(self):
        print(f"{self.failures} failed" if self.failures else "all as it should be")
        sys.exit(1 if self.failures else 0)


def faulty_disk(**order):
    """The environment of a program whose disk fails by that order (tests/faults/faulty_disk.cpp)."""
    # A sanitizer's own library must come first in every other program, and does no harm to come second in this one.
    options = os.environ.get("ASAN_OPTIONS", "")
    return {"LD_PRELOAD": str(pathlib.Path(SWITCHYARD).parent / "tests/libfaulty_disk.so"),
            "FAULTY_DISK": ",".join(f"{key}={value}" for key, value in order.items()),
            "ASAN_OPTIONS": (options + ":" if options else "") + "verify_asan_link_order=0:detect_leaks=0"}


def skip(why):
    """Ends a test that cannot be made here; one that leaves out a part prints a line that begins with SKIPPED instead."""
    print(f"SKIPPED: {why}")
    sys.exit(77)


def processes_of(folder):
    """The processes, by number, that have this run's folder among their words and have not ended."""
    alive = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if str(folder).encode() in words:
            alive.append(int(process.name))
    return alive


def left_of(folder, within=10):
    """The processes of a run that are still there after so many seconds: one that is ending needs a moment."""
    end = time.monotonic() + limit(within)
    while (alive := processes_of(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    return alive


def stopped(number):
    """Is the process stopped, as SIGSTOP leaves it?"""
    try:
        return pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def fault_points():
    done = subprocess.run([SWITCHYARD, "--version"], capture_output=True, text=True)
    return "fault points" in done.stdout


def times_said(text, pattern):
    return len(re.findall(pattern, text))
