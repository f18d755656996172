"""A bed of one's own for a test, and what must be left of it: nothing. The launcher's own words: launch/testbed/testbed."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from patience import limit

# A test that is told to end runs its clean-up.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

SOURCE = pathlib.Path(os.environ.get("SOURCE", pathlib.Path(__file__).resolve().parents[2]))
TESTBED = str(SOURCE / "launch/testbed/testbed")


def home():
    """Where beds are listed."""
    run = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() == 0:
        return pathlib.Path("/run/switchyard-testbed")
    if run and os.access(run, os.W_OK):
        return pathlib.Path(run, "switchyard-testbed")
    return pathlib.Path(f"/var/tmp/switchyard-testbed-{os.geteuid()}")


def environment(path=None):
    env = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_TESTBED")}
    return dict(env, PATH=str(path)) if path else env


def built_program():
    """For benchmarks, which are not started by CTest: $SWITCHYARD, what was built here, or what is installed."""
    for candidate in (os.environ.get("SWITCHYARD"), SOURCE / "build/release/switchyard", shutil.which("switchyard")):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    sys.exit(f"{os.path.basename(sys.argv[0])}: switchyard is not built: cmake --preset release && cmake --build --preset release")


class Bed:
    def __init__(self, name=None):
        self.name = name or f"test-{os.getpid()}"
        self.failures = 0

    def check(self, holds, what):
        if not holds:
            self.failures += 1
            print(f"FAILED: {what}", file=sys.stderr, flush=True)

    def __call__(self, command, *words, code=0, path=None, before=(), timeout=60):
        """A command of testbed, on this bed; its code is checked."""
        done = subprocess.run([*before, TESTBED, command, "--bed", self.name, *map(str, words)], env=environment(path),
                              capture_output=True, text=True, timeout=limit(timeout), cwd="/")
        self.check(code is None or done.returncode == code,
                   f"testbed {command} {' '.join(map(str, words))}: code {done.returncode}, not {code}: {done.stderr}")
        return done

    def refuses(self, command, *words, says, **options):
        done = self(command, *words, code=2, **options)
        self.check(done.stderr.startswith("testbed: ") and done.stderr.count("\n") == 1 and says in done.stderr,
                   f"testbed {command} {' '.join(words)} says '{says}' in one line: {done.stderr}")

    def on(self, host, *command, code=0):
        return self("exec", host, *command, code=code).stdout

    def status(self):
        return json.loads(self("status", "--json", code=None).stdout)

    def processes_on_hosts(self):
        return [host["processes"] for host in self.status()["hosts"]]

    def empty_hosts(self, seconds):
        """Have all processes on the hosts ended, within so many seconds?"""
        end = time.monotonic() + limit(seconds)
        while any(self.processes_on_hosts()) and time.monotonic() < end:
            time.sleep(0.1)
        return not any(self.processes_on_hosts())

    def processes(self):
        """Those that hold the bed or run commands on it, by its name among their words."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.name.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def nothing_left(self, when):
        end = time.monotonic() + limit(10)  # who was killed may need a moment
        while self.processes() and time.monotonic() < end:
            time.sleep(0.05)
        self.check(not self.processes(), f"{when}: processes {self.processes()} are left")
        left = [file for name in (self.name, self.name + ".lock") if os.path.lexists(file := home() / name)]
        self.check(not left, f"{when}: {left} are left")

    def up_or_skip(self, *words):
        """`up`, or the end of the test where no bed can stand."""
        done = self("up", "--until", os.getpid(), *words, code=None)
        if done.returncode == 2:
            print(f"SKIPPED: no bed can stand here: {done.stderr.strip()}")
            self.nothing_left("a refused up")
            sys.exit(1 if self.failures else 77)
        self.check(done.returncode == 0, f"up: {done.stderr}")

    def down(self):
        return subprocess.run([TESTBED, "down", "--bed", self.name], env=environment(), capture_output=True, text=True)

    def finish(self):
        print(f"{self.failures} failed" if self.failures else "all as it should be")
        sys.exit(1 if self.failures else 0)
