"""Beds as this user's other commands find them: a folder each, with a lock and bed.json, which the keeper writes."""
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import sys
import time

import kernel


class Refusal(Exception):
    """Something that the user can mend, in a sentence; code 2."""


class Failure(Exception):
    """Something that went wrong, in a sentence; code 1."""


# Seconds in which anything here is done, on a machine that does much else.
PATIENCE = 120


def say(text):
    print(f"testbed: {text}", file=sys.stderr, flush=True)


def home(make=False):
    """Where this user's beds are listed: a folder that nobody else may write into."""
    run = os.environ.get("XDG_RUNTIME_DIR")
    if "SWITCHYARD_TESTBED_HOME" in os.environ:  # on a bed itself, where every user is root
        folder = os.environ["SWITCHYARD_TESTBED_HOME"]
    elif os.geteuid() == 0:
        folder = "/run/switchyard-testbed"
    elif run and os.access(run, os.W_OK):
        folder = os.path.join(run, "switchyard-testbed")
    else:
        folder = f"/var/tmp/switchyard-testbed-{os.geteuid()}"  # what mpirun reads must be on the hosts: not in /tmp
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        if not make:
            return folder
        with contextlib.suppress(FileExistsError):  # another command made it meanwhile
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise Refusal(f"{folder} is where beds are listed, but it was made by someone else, or others may write into it")
    return folder


class Bed:
    """A bed by its name, whether it stands or not."""

    def __init__(self, name):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", name):
            raise Refusal(f"'{name}' cannot name a bed: up to 32 letters, digits, - and _")
        self.name = name
        self.folder = os.path.join(home(), name)
        self.file = os.path.join(self.folder, "bed.json")
        self.lock_file = self.folder + ".lock"
        self.state = None
        self.read()

    def read(self):
        try:
            with open(self.file) as file:
                self.state = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            self.state = None

    def write(self, state):
        """For the keeper: whole or not at all."""
        with open(self.file + ".new", "w") as file:
            json.dump(state, file, indent=1)
        os.rename(self.file + ".new", self.file)

    def keeper(self):
        """The process that holds the bed; None: it does not stand."""
        if not self.state:
            return None
        keeper = self.state["keeper"]
        return keeper["pid"] if kernel.started(keeper["pid"]) == keeper["started"] else None

    def standing(self):
        """For commands that need the bed up."""
        if self.keeper() is None:
            others = ", ".join(sorted(bed.name for bed in all_beds() if bed.keeper()))
            raise Refusal(f"there is no bed '{self.name}'" + (f" (but: {others}; --bed NAME)" if others else "") +
                          ": testbed up" + ("" if self.name == "bed" else f" --bed {self.name}"))
        return self

    def hosts(self):
        return self.state["hosts"]

    def host(self, name):
        for host in self.hosts():
            if host["name"] == name:
                return host
        names = ", ".join(host["name"] for host in self.hosts())
        raise Refusal(f"there is no host '{name}' in the bed '{self.name}': {names}")

    @contextlib.contextmanager
    def lock(self, shared=False):
        """One `up` or `down` at a time; a keeper that makes its bed ready holds it too, and longer than a killed `up`.
        shared: for a process that is about to be at the switch, and must not come there when it has been cleared."""
        file = None
        try:
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                # What is not found has been removed since: the folder and the lock go with the last bed.
                with contextlib.suppress(BlockingIOError, FileNotFoundError):
                    home(make=True)
                    file = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    if os.fstat(file).st_ino == os.stat(self.lock_file).st_ino:
                        break
                if file is not None:
                    os.close(file)
                    file = None
                time.sleep(0.1)
            else:
                raise Failure(f"another command has been at the bed '{self.name}' for {PATIENCE} seconds ({self.lock_file})")
            self.read()
            yield file
        finally:
            if file is not None:
                os.close(file)

    def forget(self):
        """With the lock held: removes all that is on disk."""
        if os.path.lexists(self.folder):
            if os.path.islink(self.folder) or not os.path.isdir(self.folder):
                raise Refusal(f"{self.folder} is where this bed would be listed, and testbed did not make it")
            shutil.rmtree(self.folder)
        os.unlink(self.lock_file)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.folder))  # the last bed


def all_beds():
    folder = home()
    try:
        entries = sorted(os.listdir(folder))
    except FileNotFoundError:  # it goes with the last bed
        entries = []
    return [Bed(entry) for entry in entries if os.path.isdir(os.path.join(folder, entry))]


def processes_in(kind, name, besides=()):
    """The processes in a namespace of that kind ("net", "pid"), as kernel.namespace() names it."""
    return [int(entry) for entry in os.listdir("/proc")
            if entry.isdigit() and int(entry) not in besides and kernel.namespace(entry, kind) == name]


def clear_switch(state):
    """Ends what runs at the switch, whose network would stay with it."""
    def there():
        return processes_in("net", state["switch_net"], {state["keeper"]["pid"]})
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in there():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        end = time.monotonic() + 5
        while there() and time.monotonic() < end:
            time.sleep(0.05)
